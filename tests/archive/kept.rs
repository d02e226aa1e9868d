//! Owners, modes, types and xattrs where root is missing.

use std::os::unix::fs::MetadataExt;
use std::process::Command;

use acetate::archive::{Ids, Owners, PackOptions, SideRecords};
use acetate::idmap::{IdExtent, IdMap};
use acetate::layer::disguise::Disguise;
use acetate::sys::Kind;

use super::craft::{Block, Craft};
use super::roundtrip::rich;
use super::{pack_with, packed, packed_recorded, real, temp, unpack_into, unpacked};
use crate::support::host::{in_userns, require_userns};
use crate::support::{as_user, require_root};

/// A symlink of 1000:1000 and a device node among them.
#[test]
fn a_tree_without_owners_of_its_own_gives_back_the_same_archive() {
    if !require_root() {
        return;
    }
    let canonical = packed(unpacked(&rich()).path());
    let into = temp();
    let done = unpack_into(&canonical, into.path(), Owners::Recorded).unwrap();
    assert!(packed_recorded(into.path(), done.records.clone()) == canonical);
    let text = done.records.to_text();
    let records = SideRecords::from_text(&text).unwrap();
    assert_eq!(records, done.records);
    assert!(text.contains("1000:1000:777:symlink d/link\n"), "{text}");
    assert!(
        text.contains(" d/link2\n"),
        "each name of a symlink: {text}"
    );
    assert_eq!(records.len(), 2, "all else is in xattrs: {text}");
    let null = xattr_of(into.path().join("null").as_path());
    assert_eq!(null, b"0:5:666:char-1-3");
    for name in ["null", "disk", "pipe", "d/su", "far"] {
        let made = into.path().join(name).symlink_metadata().unwrap();
        assert!(
            made.is_file() && made.uid() == 0 && made.mode() & 0o7022 == 0,
            "{name}"
        );
    }
}

fn xattr_of(path: &std::path::Path) -> Vec<u8> {
    let mut buf = [0; 256];
    let n = rustix::fs::lgetxattr(path, "user.containers.override_stat", &mut buf).unwrap();
    buf[..n].to_vec()
}

/// Runs one test of this file again as somebody else. It takes a directory from
/// `ACETATE_KEPT` and works there.
fn again(test: &str, how: impl Fn(String) -> Command) -> std::process::Output {
    let work = tempfile::tempdir().unwrap();
    let exe = work.path().join("tests");
    std::fs::copy(std::env::current_exe().unwrap(), &exe).unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(work.path(), open).unwrap();
    let tree = work.path().join("tree");
    let call = format!(
        "mkdir {tree} && ACETATE_KEPT={tree} {exe} --exact kept::{test} --nocapture",
        tree = tree.display(),
        exe = exe.display(),
    );
    let out = how(call).output().unwrap();
    assert!(
        out.status.success(),
        "{}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    out
}

#[test]
fn an_ordinary_user_keeps_it_all() {
    if let Some(tree) = std::env::var_os("ACETATE_KEPT") {
        let done = unpack_into(&rich(), tree.as_ref(), Owners::Recorded).unwrap();
        let out = packed_recorded(tree.as_ref(), done.records);
        println!("digest {}", acetate::digest::Digest::of(&out));
        return;
    }
    if !require_root() {
        return;
    }
    let out = again("an_ordinary_user_keeps_it_all", |call| as_user(12345, call));
    let canonical = packed(unpacked(&rich()).path());
    let want = acetate::digest::Digest::of(&canonical).to_string();
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(said.contains(&want), "{said}");
}

/// The only owners that there are in a namespace of one id; a device cannot be made,
/// and has a record.
#[test]
fn in_a_user_namespace_a_device_is_recorded() {
    let archive = Craft::default()
        .block(Block::new(b"null", b'3').mode(0o666).device(1, 3))
        .with_data(Block::new(b"f", b'0').mode(0o4711), b"x")
        .end();
    if let Some(tree) = std::env::var_os("ACETATE_KEPT") {
        let done = unpack_into(&archive, tree.as_ref(), real()).unwrap();
        let null = done.records.get(b"null").unwrap();
        let want = Disguise {
            uid: 0,
            gid: 0,
            mode: 0o666,
            kind: Some(Kind::Char),
            rdev: (1, 3),
        };
        assert_eq!(null, want);
        let options = PackOptions {
            records: done.records,
            ..PackOptions::new(real())
        };
        let out = pack_with(tree.as_ref(), &options).unwrap();
        println!("digest {}", acetate::digest::Digest::of(&out));
        return;
    }
    if !require_root() || !require_userns() {
        return;
    }
    let out = again("in_a_user_namespace_a_device_is_recorded", in_userns);
    let want = acetate::digest::Digest::of(&packed(unpacked(&archive).path())).to_string();
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(said.contains(&want), "{said}");
}

#[test]
fn ids_are_shifted_both_ways_and_acls_with_them() {
    if !require_root() {
        return;
    }
    let map = IdMap::new(
        vec![IdExtent {
            disk: 100_000,
            view: 0,
            count: 65_536,
        }],
        None,
    );
    let owners = Owners::Real(Ids {
        users: map.clone(),
        groups: map,
    });
    let acl = b"user::rwx,user:9:r-x,group::r-x,mask::r-x,other::---";
    let archive = Craft::default()
        .pax(&[("SCHILY.acl.access", acl)])
        .with_data(Block::new(b"f", b'0').mode(0o750).owner(7, 8), b"x")
        .block(Block::new(b"s", b'2').link(b"t").owner(1000, 1000))
        .end();
    let into = temp();
    unpack_into(&archive, into.path(), owners.clone()).unwrap();
    let f = into.path().join("f").metadata().unwrap();
    let s = into.path().join("s").symlink_metadata().unwrap();
    assert_eq!((f.uid(), f.gid(), s.uid()), (100_007, 100_008, 101_000));
    let canonical = packed(unpacked(&archive).path());
    let back = pack_with(into.path(), &PackOptions::new(owners.clone())).unwrap();
    assert!(back == canonical);

    let outside = Craft::default().block(Block::new(b"far", b'0').owner(70_000, 0));
    let into = temp();
    let error = unpack_into(&outside.end(), into.path(), owners.clone()).unwrap_err();
    assert!(error.to_string().contains("entry far"), "{error}");
    std::fs::write(into.path().join("ours"), "x").unwrap();
    let error = pack_with(into.path(), &PackOptions::new(owners)).unwrap_err();
    assert!(
        error.to_string().contains("no place in the id map"),
        "{error}"
    );
}

#[test]
fn capabilities_outlive_the_change_of_owner() {
    if !require_root() {
        return;
    }
    let capability: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let archive = Craft::default()
        .pax(&[("SCHILY.xattr.security.capability", &capability)])
        .with_data(Block::new(b"ping", b'0').mode(0o4755).owner(1, 1), b"x")
        .end();
    let tree = unpacked(&archive);
    let mut buf = [0; 64];
    let n = rustix::fs::getxattr(tree.path().join("ping"), "security.capability", &mut buf);
    assert_eq!(&buf[..n.unwrap()], capability);
    assert_eq!(
        tree.path().join("ping").metadata().unwrap().mode() & 0o7777,
        0o4755
    );
}
