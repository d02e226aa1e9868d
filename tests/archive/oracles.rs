//! Other tools: what they write we read, what we write they read.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use super::{packed, temp, unpacked};
use crate::support::host::require_program;
use crate::support::{Facets, Snapshot, diff_with, require_root};

fn run(command: &mut Command) {
    let out = command.output().unwrap();
    assert!(
        out.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
}

fn shell(dir: &Path, script: &str) {
    run(Command::new("sh").args(["-ec", script]).current_dir(dir));
}

/// A tree as a Linux system has them, without what only some formats know.
fn tree(dir: &Path) {
    shell(
        dir,
        r#"
        mkdir -p usr/bin var/empty "odd names/with spaces"
        echo hello > usr/bin/hello; chmod 4755 usr/bin/hello
        head -c 300000 /dev/urandom > var/data; chown 12:34 var/data
        ln usr/bin/hello usr/bin/again
        ln -s ../usr/bin/hello var/link; chown -h 1000:1000 var/link
        mknod null c 1 3; mkfifo pipe; mknod loop b 7 1
        truncate -s 3000000 sparse
        printf data | dd of=sparse bs=1 seek=1000000 conv=notrunc 2>/dev/null
        touch "odd names/with spaces/$(printf 'new\nline')"
        touch "odd names/$(printf '\303\244\377')"
        long=$(printf 'n%.0s' $(seq 120)); mkdir "$long"; touch "$long/$long"
        touch -d 1970-01-02T00:00:00Z usr/bin/hello; touch -d 2013-05-18T03:33:20Z var/data
        chmod 1777 var/empty; chmod 2750 usr
        find . -depth -type d -exec touch -d 2001-02-03T04:05:06Z {} +
        "#,
    );
}

/// What every format of today knows: everything but other xattrs and fractions.
fn assert_same(want: &Path, got: &Path, facets: Facets, what: &str) {
    let differences = diff_with(&Snapshot::of(want), &Snapshot::of(got), facets);
    assert!(
        differences.is_empty(),
        "{what}:\n{}",
        differences.join("\n")
    );
}

const ALL: Facets = Facets {
    mtimes: true,
    dir_mtimes: true,
    ..Facets::TREE
};

/// Whole seconds.
const NO_TIMES: Facets = Facets::TREE;

#[test]
fn all_formats_of_gnu_tar_are_read() {
    if !require_root() || !require_program("tar") {
        return;
    }
    let source = temp();
    tree(source.path());
    for format in ["gnu", "posix", "oldgnu"] {
        for sparse in [
            &[][..],
            &["--sparse"],
            &["--sparse", "--sparse-version=0.0"],
            &["--sparse", "--sparse-version=0.1"],
        ] {
            if format != "posix" && sparse.len() > 1 {
                continue;
            }
            let archive = temp().path().with_extension("tar");
            run(Command::new("tar")
                .args([&format!("--format={format}"), "-cf"])
                .arg(&archive)
                .args(sparse)
                .args(["-C"])
                .arg(source.path())
                .arg("."));
            let got = unpacked(&std::fs::read(&archive).unwrap());
            std::fs::remove_file(&archive).unwrap();
            let facets = if format == "posix" { ALL } else { NO_TIMES };
            assert_same(
                source.path(),
                got.path(),
                facets,
                &format!("{format} {sparse:?}"),
            );
            let blocks = got.path().join("sparse").metadata().unwrap().blocks();
            assert!(blocks * 512 < 1 << 20, "{format} {sparse:?}: no holes");
        }
    }
}

#[test]
fn xattrs_acls_and_capabilities_of_gnu_tar_are_read_and_ours_by_it() {
    if !require_root()
        || !["tar", "setfattr", "setfacl"]
            .iter()
            .all(|p| require_program(p))
    {
        return;
    }
    let source = temp();
    shell(
        source.path(),
        r#"
        mkdir d; touch d/f d/g
        setfattr -n user.one -v 'a=b
c' d/f
        setfattr -n trusted.two -v x d
        setfacl -m u:1234:rwx,m:r-x d/g; setfacl -d -m g:99:rx d
        touch -d 2001-02-03T04:05:06.123456789Z d/f
        "#,
    );
    let archive = source.path().with_extension("tar");
    run(Command::new("tar")
        .args([
            "--format=posix",
            "--numeric-owner",
            "--acls",
            "--xattrs",
            "--xattrs-include=*",
            "-cf",
        ])
        .arg(&archive)
        .arg("-C")
        .arg(source.path())
        .arg("."));
    let got = unpacked(&std::fs::read(&archive).unwrap());
    assert_same(source.path(), got.path(), ALL, "read");
    std::fs::write(&archive, packed(source.path())).unwrap();
    let back = temp();
    run(Command::new("tar")
        .args([
            "--numeric-owner",
            "--acls",
            "--xattrs",
            "--xattrs-include=*",
            "-xpf",
        ])
        .arg(&archive)
        .arg("-C")
        .arg(back.path()));
    std::fs::remove_file(&archive).unwrap();
    assert_same(source.path(), back.path(), ALL, "written");
}

#[test]
fn gnu_tar_reads_what_we_write_without_a_word() {
    if !require_root() || !require_program("tar") {
        return;
    }
    let source = temp();
    tree(source.path());
    let archive = source.path().with_extension("tar");
    std::fs::write(&archive, packed(source.path())).unwrap();
    let back = temp();
    let out = Command::new("tar")
        .arg("-xpf")
        .arg(&archive)
        .args(["--numeric-owner", "-C"])
        .arg(back.path())
        .output()
        .unwrap();
    std::fs::remove_file(&archive).unwrap();
    assert!(out.status.success() && out.stderr.is_empty(), "{out:?}");
    assert_same(source.path(), back.path(), ALL, "GNU tar");
}

#[test]
fn bsdtar_reads_ours_and_we_read_all_its_formats() {
    if !require_root() || !require_program("bsdtar") {
        return;
    }
    let source = temp();
    tree(source.path());
    shell(
        source.path(),
        "setfattr -n user.one -v two var/data || true",
    );
    let archive = source.path().with_extension("tar");
    for format in ["pax", "gnutar"] {
        run(Command::new("bsdtar")
            .args(["--numeric-owner", "--format", format, "--xattrs", "-cf"])
            .arg(&archive)
            .arg("-C")
            .arg(source.path())
            .arg("."));
        let got = unpacked(&std::fs::read(&archive).unwrap());
        let facets = match format {
            "pax" => ALL,
            _ => Facets {
                xattrs: false,
                ..NO_TIMES
            },
        };
        assert_same(source.path(), got.path(), facets, format);
    }
    std::fs::write(&archive, packed(source.path())).unwrap();
    let back = temp();
    run(Command::new("bsdtar")
        .args(["--numeric-owner", "--xattrs", "-xpf"])
        .arg(&archive)
        .arg("-C")
        .arg(back.path()));
    std::fs::remove_file(&archive).unwrap();
    // It gives the directory it was told to go to no time.
    let [want, got] = [source.path(), back.path()].map(|dir| {
        let mut all = Snapshot::of(dir);
        all.objects.remove(".");
        all
    });
    let differences = diff_with(&want, &got, ALL);
    assert!(
        differences.is_empty(),
        "written:\n{}",
        differences.join("\n")
    );
}

#[test]
fn pythons_tarfile_reads_ours_and_we_read_all_its_formats() {
    if !require_root() || !require_program("python3") {
        return;
    }
    let source = temp();
    tree(source.path());
    let archive = source.path().with_extension("tar");
    for format in ["PAX_FORMAT", "GNU_FORMAT"] {
        let script = "import sys,tarfile\n\
             with tarfile.open(sys.argv[1],'w',format=getattr(tarfile,sys.argv[3])) as t: t.add(sys.argv[2],'.')";
        run(Command::new("python3")
            .args(["-c", script])
            .arg(&archive)
            .arg(source.path())
            .arg(format));
        let got = unpacked(&std::fs::read(&archive).unwrap());
        assert_same(source.path(), got.path(), NO_TIMES, format);
    }
    let ours = packed(source.path());
    std::fs::write(&archive, &ours).unwrap();
    let script = "import sys,tarfile\n\
         for m in tarfile.open(sys.argv[1]): print(repr(m.name), m.mode, m.uid, m.gid, m.size, m.type, repr(m.linkname))";
    let out = Command::new("python3")
        .args(["-c", script])
        .arg(&archive)
        .output()
        .unwrap();
    std::fs::remove_file(&archive).unwrap();
    assert!(out.status.success(), "{out:?}");
    let lines = String::from_utf8(out.stdout).unwrap();
    let mut reader = acetate::archive::Reader::new(&ours[..]);
    let mut count = 0;
    while let Some(entry) = reader.next_entry().unwrap() {
        let line = lines.lines().nth(count).unwrap();
        let middle = format!(
            " {} {} {} {} ",
            entry.mode, entry.uid, entry.gid, entry.size
        );
        assert!(line.contains(&middle), "{line} has not {middle}");
        count += 1;
    }
    assert_eq!(lines.lines().count(), count);
}

/// GNU tar's own extraction of the same archive is what we must make of it.
#[test]
fn what_we_unpack_is_what_gnu_tar_extracts() {
    if !require_root() || !require_program("tar") {
        return;
    }
    let source = temp();
    tree(source.path());
    std::fs::set_permissions(source.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let archive = source.path().with_extension("tar");
    run(Command::new("tar")
        .args(["--format=posix", "--sparse", "-cf"])
        .arg(&archive)
        .arg("-C")
        .arg(source.path())
        .arg("."));
    let theirs = temp();
    run(Command::new("tar")
        .args(["--numeric-owner", "-xpf"])
        .arg(&archive)
        .arg("-C")
        .arg(theirs.path()));
    let ours = unpacked(&std::fs::read(&archive).unwrap());
    std::fs::remove_file(&archive).unwrap();
    assert_same(theirs.path(), ours.path(), ALL, "GNU tar");
}
