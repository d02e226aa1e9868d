//! The daemon of an ordinary user without a user namespace of its own: the layers' group is a supplementary one, so it cannot be
//! mapped, and the daemon works with the user's own rights and no capability.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt, chown};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::host::require_program;
use crate::support::mount::{acetate_bin, is_mountpoint};
use crate::support::story::{as_uid, sh};
use crate::support::{Base, DevFuseOpen, Layers, as_user, skip};
use crate::{Scratch, Watch, able, code};

const GROUP: u32 = 2000;

/// A mount made by user 1000 with the supplementary group 2000, through fusermount3. Only that user sees it.
struct UsersMount {
    daemon: Child,
    _watch: Option<Watch>,
    _point: Scratch,
}

impl UsersMount {
    fn new(layers: &Layers, words: &str) -> Option<Self> {
        let open = DevFuseOpen::new()?;
        let socket = layers.root.join("ready");
        let _of_a_mount_before = fs::remove_file(&socket);
        let listener = UnixDatagram::bind(&socket).unwrap();
        listener
            .set_read_timeout(Some(Duration::from_millis(10)))
            .unwrap();
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o777)).unwrap();
        let mut daemon = Command::new("setpriv")
            .args([
                "--reuid=1000",
                "--regid=1000",
                &format!("--groups={GROUP}"),
                "--",
            ])
            .arg(acetate_bin())
            .args([
                "mount",
                "-f",
                "-o",
                &format!("{},{words}", layers.options()),
            ])
            .arg(&layers.merged)
            .env("NOTIFY_SOCKET", &socket)
            .stdin(Stdio::null())
            .stderr(File::create(layers.root.join("said")).unwrap())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + crate::support::host::slowly(Duration::from_secs(20));
        let mut message = [0; 64];
        while !listener
            .recv(&mut message)
            .is_ok_and(|n| message[..n].starts_with(b"READY=1"))
        {
            let ended = daemon.try_wait().unwrap();
            if ended.is_some() || Instant::now() > deadline {
                let _ended_already = daemon.kill();
                daemon.wait().unwrap();
                let _left = is_mountpoint(&layers.merged).then(|| Scratch(layers.merged.clone()));
                skip(&format!(
                    "a user cannot mount here ({ended:?}): {}",
                    fs::read_to_string(layers.root.join("said")).unwrap()
                ));
                return None;
            }
        }
        drop(open);
        let _watch = Some(Watch::pid(daemon.id()));
        Some(Self {
            daemon,
            _watch,
            _point: Scratch(layers.merged.clone()),
        })
    }
}

impl Drop for UsersMount {
    fn drop(&mut self) {
        self._watch = None;
        // An interrupt is how a user ends it.
        let pid = i32::try_from(self.daemon.id()).unwrap();
        // SAFETY: a plain number; our child, not yet waited for.
        unsafe { libc::kill(pid, libc::SIGTERM) };
        let deadline = Instant::now() + crate::support::host::slowly(Duration::from_secs(20));
        while self.daemon.try_wait().unwrap().is_none() {
            if Instant::now() > deadline {
                eprintln!("the daemon {pid} does not end");
                self.daemon.kill().unwrap();
                self.daemon.wait().unwrap();
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Layers that belong to user 1000 and to the group that only a supplementary membership gives.
fn users_layers(script: &str) -> Option<Layers> {
    if !(able() && require_program("fusermount3") && require_program("setpriv")) {
        return None;
    }
    let reachable = format!("test -x '{}'", acetate_bin().display());
    if !as_user(1000, reachable).status().is_ok_and(|s| s.success()) {
        skip("user 1000 cannot reach the program");
        return None;
    }
    let layers = Layers::new(Base::Disk, 1);
    sh(
        &layers.root,
        &format!("{script}; chown -R 1000:{GROUP} l0 upper work"),
    )
    .unwrap();
    chown(&layers.merged, Some(1000), Some(1000)).unwrap();
    Some(layers)
}

/// Finding 11: a write to a file that its owner may write but not read went to its end, whatever the offset: O_APPEND was the
/// daemon's way around a refused O_RDWR. Every byte must land where it was written.
#[test]
fn finding_11_a_write_to_a_write_only_file_lands_at_its_offset() {
    for place in ["upper", "l0"] {
        let Some(layers) = users_layers(&format!(
            "printf abcdefgh > {place}/wo; chmod 200 {place}/wo"
        )) else {
            return;
        };
        let Some(mount) = UsersMount::new(&layers, "") else {
            return;
        };
        let wrote = as_uid(1000, || {
            let file = File::options().write(true).open(layers.at("wo"))?;
            file.write_all_at(b"XY", 0)?;
            file.write_all_at(b"Z", 5)?;
            let mut end = File::options().append(true).open(layers.at("wo"))?;
            end.write_all(b"!")
        });
        drop(mount);
        if place == "l0" && wrote.is_err() {
            // It cannot be copied up without being read: an error is right, a misplaced byte is not.
            continue;
        }
        assert_eq!(code(wrote), Ok(()), "{place}");
        assert_eq!(
            fs::read_to_string(layers.upper.join("wo")).unwrap(),
            "XYcdeZgh!",
            "{place}"
        );
        assert_eq!(
            layers
                .upper
                .join("wo")
                .metadata()
                .unwrap()
                .permissions()
                .mode()
                & 0o7777,
            0o200,
            "{place}"
        );
    }
}

/// Finding 12: with few descriptors, a file open here whose mode no longer admits its owner failed with EACCES once its descriptor
/// had left the cache: what tar, git and `cp -p` do all the time. Who has it open may go on.
#[test]
fn finding_12_files_stay_usable_when_their_mode_shuts_out_the_owner() {
    let Some(layers) = users_layers(":") else {
        return;
    };
    let Some(mount) = UsersMount::new(&layers, "fd_cache=4") else {
        return;
    };
    let (read_only, shut) = as_uid(1000, || {
        let new = |i: usize, kind: &str, mode| {
            File::options()
                .read(true)
                .write(true)
                .create_new(true)
                .mode(mode)
                .open(layers.at(&format!("{kind}{i}")))
                .unwrap()
        };
        let files: Vec<_> = (0..20).map(|i| new(i, "ro", 0o444)).collect();
        let read_only: Vec<_> = files
            .iter()
            .map(|f| code(f.write_all_at(b"text", 0)))
            .collect();
        let files: Vec<_> = (0..20).map(|i| new(i, "shut", 0o644)).collect();
        let shut: Vec<_> = files
            .iter()
            .map(|f| {
                f.write_all_at(b"te", 0)
                    .and_then(|()| f.set_permissions(fs::Permissions::from_mode(0o0)))
            })
            .collect();
        let shut: Vec<_> = std::iter::zip(&files, shut)
            .map(|(f, before)| {
                let mut buffer = [0; 4];
                code(
                    before
                        .and_then(|()| f.write_all_at(b"xt", 2))
                        .and_then(|()| f.read_exact_at(&mut buffer, 0))
                        .map(|()| {
                            assert_eq!(&buffer, b"text");
                        }),
                )
            })
            .collect();
        (read_only, shut)
    });
    drop(mount);
    assert_eq!(read_only, vec![Ok(()); 20], "created with mode 0444");
    assert_eq!(shut, vec![Ok(()); 20], "fchmod to 0");
    let state = sh(
        &layers.upper,
        "cat * | wc -c; stat -c %a ro* shut* | sort | uniq -c | tr -s ' '",
    )
    .unwrap();
    assert_eq!(state, "160\n 20 0\n 20 444\n", "what is on the disk");
}
