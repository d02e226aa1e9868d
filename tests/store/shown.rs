//! What mounts show of what layers record beside their trees: owners of symlinks,
//! devices that could not be made.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use super::copied_users::as_a_user;
use super::shop::{Answer, Shop};
use super::support::host::require_program;
use super::support::mount::acetate_bin;
use super::support::{require_fuse, require_root};
use super::users::open_to_users;

#[test]
fn an_ordinary_users_mount_shows_the_recorded_owners_of_symlinks() {
    let Some(_device) = open_to_users(|| require_program("fusermount3")) else {
        return;
    };
    let shop = Shop::bare();
    let told = as_a_user(
        &shop,
        "acetate layer import many.tar base >/dev/null
         mkdir t; ln -s file t/roots; tar --no-recursion --owner=65534 --group=65534 -C t -cf roots.tar .
         tar --owner=0 --group=0 -C t -rf roots.tar ./roots
         acetate layer import roots.tar roots >/dev/null
         acetate ws create job -l roots -l base >/dev/null; cd $(acetate ws path job)
         look() { stat -c '%n %u:%g %F' \"$@\"; }
         look link roots file; ls -l link | cut -c1; readlink link; cd
         acetate ws unmount job; acetate ws mount job >/dev/null; cd $(acetate ws path job)
         look link; ln -s file own; look own; mkdir d; mv link d/moved; look d/moved; cd
         acetate ws diff job | grep -v '/d$'
         mkdir v; acetate materialize view -l roots -l base -m v >/dev/null; look v/link v/roots
         acetate ws unmount view",
    );
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(
        lines,
        [
            "link 1000:1000 symbolic link",
            "roots 0:0 symbolic link",
            "file 5:6 regular file",
            "l",
            "file",
            "link 1000:1000 symbolic link",
            "own 65534:65534 symbolic link",
            // A symlink of the upper is the user's: nothing else can hold its owner.
            "d/moved 65534:65534 symbolic link",
            "A  /d/moved",
            "D  /link",
            "A  /own",
            "v/link 1000:1000 symbolic link",
            "v/roots 0:0 symbolic link",
        ],
        "{told}"
    );
}

/// A lower with records of its own, mounted by root with owners in xattrs.
struct Stage {
    shop: Shop,
    at: PathBuf,
}

impl Stage {
    fn new() -> Option<Stage> {
        if !require_root() || !require_fuse() {
            return None;
        }
        let shop = Shop::bare();
        for name in ["tree/dir", "upper", "work", "merged"] {
            fs::create_dir_all(shop.at(name)).unwrap();
        }
        symlink("there", shop.at("tree/dir/link")).unwrap();
        fs::hard_link(shop.at("tree/dir/link"), shop.at("tree/dir/twin")).unwrap();
        symlink("there", shop.at("tree/plain")).unwrap();
        fs::write(shop.at("tree/null"), "").unwrap();
        let at = shop.at("merged");
        Some(Stage { shop, at })
    }

    fn mount(&self, records: &str) -> Answer {
        fs::write(self.shop.at("records"), records).unwrap();
        self.mount_with("records")
    }

    fn mount_with(&self, file: &str) -> Answer {
        let path = |name: &str| self.shop.at(name).display().to_string();
        let words = [
            "mount".to_owned(),
            "-oxattr_permissions=2".to_owned(),
            "--lower".to_owned(),
            path("tree"),
            format!("--side-records=1={}", path(file)),
            "--upper".to_owned(),
            path("upper"),
            "--work".to_owned(),
            path("work"),
            path("merged"),
        ];
        let said = std::process::Command::new(acetate_bin())
            .args(words)
            .output();
        Answer::of(&said.unwrap())
    }

    fn unmount(&self) {
        let said = std::process::Command::new(acetate_bin())
            .arg("unmount")
            .arg(&self.at)
            .output();
        assert!(said.unwrap().status.success());
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        drop(
            std::process::Command::new(acetate_bin())
                .args(["unmount", "--lazy"])
                .arg(&self.at)
                .output(),
        );
    }
}

fn owner(path: &Path) -> (u32, u32) {
    let found = path.symlink_metadata().unwrap();
    (found.uid(), found.gid())
}

#[test]
fn a_symlink_that_is_copied_up_keeps_its_recorded_owner_where_it_can_be_given_away() {
    let Some(stage) = Stage::new() else { return };
    let records = "1000:1001:777:symlink dir/link\n1000:1001:777:symlink dir/twin\n";
    assert_eq!(stage.mount(records).code, 0);
    let at = &stage.at;
    assert_eq!(owner(&at.join("dir/link")), (1000, 1001));
    // The record belongs to the layer's own path: the view's may be another.
    fs::rename(at.join("dir"), at.join("moved")).unwrap();
    assert_eq!(owner(&at.join("moved/link")), (1000, 1001));
    fs::rename(at.join("moved/link"), at.join("there")).unwrap();
    assert_eq!(owner(&at.join("there")), (1000, 1001));
    // In the place of what is recorded stands something else now.
    fs::create_dir_all(at.join("dir")).unwrap();
    symlink("x", at.join("dir/link")).unwrap();
    assert_eq!(owner(&at.join("dir/link")), (0, 0));
    fs::hard_link(at.join("moved/twin"), at.join("third")).unwrap();
    assert_eq!(owner(&at.join("third")), (1000, 1001));
    stage.unmount();
    assert_eq!(stage.mount(records).code, 0);
    assert_eq!(owner(&at.join("there")), (1000, 1001));
    std::os::unix::fs::lchown(at.join("third"), Some(5), Some(6)).unwrap();
    assert_eq!(owner(&at.join("third")), (5, 6));
    stage.unmount();
    assert_eq!(stage.mount(records).code, 0);
    // One object under three names.
    for name in ["there", "third", "moved/twin"] {
        assert_eq!(owner(&at.join(name)), (5, 6), "{name}");
    }
    assert_eq!(owner(&at.join("dir/link")), (0, 0));
    stage.unmount();
}

#[test]
fn a_device_that_only_a_record_tells_of_is_shown_as_one() {
    let Some(stage) = Stage::new() else { return };
    assert_eq!(stage.mount("7:8:640:char-1-3 null\n").code, 0);
    let null = stage.at.join("null");
    let shown = null.symlink_metadata().unwrap();
    assert!(shown.file_type().is_char_device());
    assert_eq!(
        (shown.uid(), shown.gid(), shown.mode() & 0o7777),
        (7, 8, 0o640)
    );
    assert_eq!(shown.rdev(), rustix::fs::makedev(1, 3));
    let listed = fs::read_dir(&stage.at).unwrap().flatten();
    let listed: Vec<_> = listed.filter(|e| e.file_name() == "null").collect();
    assert!(listed[0].file_type().unwrap().is_char_device());
    drop(listed);
    // Copied up it is one by an xattr.
    fs::rename(&null, stage.at.join("other")).unwrap();
    stage.unmount();
    assert_eq!(stage.mount("").code, 0);
    let shown = stage.at.join("other").symlink_metadata().unwrap();
    assert!(shown.file_type().is_char_device());
    assert_eq!((shown.uid(), shown.rdev()), (7, rustix::fs::makedev(1, 3)));
    stage.unmount();
}

#[test]
fn records_of_what_is_not_there_or_is_something_else_show_nothing() {
    let Some(stage) = Stage::new() else { return };
    let records = "9:9:644:file plain\n9:9:755:dir dir\n9:9:777:symlink null\n9:9:777:symlink ../tree/plain\n\
        9:9:777:symlink /plain\n9:9:777:symlink dir//link\n9:9:777:symlink no/such\n9:9:777:symlink \n";
    assert_eq!(stage.mount(records).code, 0);
    for name in ["plain", "dir", "null", "dir/link"] {
        assert_eq!(owner(&stage.at.join(name)), (0, 0), "{name}");
    }
    assert!(stage.at.join("null").metadata().unwrap().is_file());
    stage.unmount();
    let refused = |answer: Answer, says: &str| {
        assert!(answer.code != 0 && answer.err.contains(says), "{answer:?}");
    };
    refused(stage.mount("nonsense\n"), "is malformed");
    refused(stage.mount("1:2:777:symlink %zz\n"), "is malformed");
    refused(stage.mount_with("tree"), "cannot be read");
    symlink("records", stage.shop.at("a-link")).unwrap();
    refused(stage.mount_with("a-link"), "cannot be read");
    let made = std::process::Command::new("mkfifo")
        .arg(stage.shop.at("fifo"))
        .status();
    assert!(made.unwrap().success());
    refused(stage.mount_with("fifo"), "cannot be read");
    let huge = fs::File::create(stage.shop.at("huge")).unwrap();
    huge.set_len((1 << 28) + 1).unwrap();
    refused(stage.mount_with("huge"), "cannot be read");
}
