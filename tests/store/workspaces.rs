//! Workspaces: made, mounted, reset, copied, removed.

use std::fs;
use std::os::unix::fs::MetadataExt;

use super::shop::{Shop, text};
use super::support::{is_mountpoint, require_fuse, require_root};

#[test]
fn a_workspace_takes_changes_and_the_layer_does_not() {
    if !require_root() || !require_fuse() {
        return;
    }
    let shop = Shop::new();
    shop.layer("base");
    let at = shop.workspace("job", &["base"]);
    assert!(is_mountpoint(&at));
    fs::write(at.join("a"), "changed\n").unwrap();
    fs::write(at.join("new"), "new\n").unwrap();
    fs::remove_file(at.join("dir/file")).unwrap();
    assert_eq!(text(at.join("b")), "changed\n", "a hard link of the layer");
    let layer = std::path::PathBuf::from(shop.ok(&["layer", "path", "base"]));
    assert_eq!(text(layer.join("a")), "base.tree a\n");
    let upper = std::path::PathBuf::from(shop.ok(&["ws", "upper", "job"]));
    assert_eq!(text(upper.join("new")), "new\n");
    shop.fails(4, "is mounted at", &["ws", "rm", "job"]);
    shop.fails(4, "mounted at", &["ws", "mount", "job"]);
    shop.ok(&["ws", "unmount", "job"]);
    assert!(!is_mountpoint(&at));
    let unmounted = shop.run(&["ws", "path", "job"]);
    assert_eq!(
        unmounted.out,
        format!("{}\n", at.display()),
        "the path, and nothing else"
    );
    assert!(unmounted.err.contains("is not mounted"));
    shop.fails(3, "is not mounted", &["ws", "unmount", "job"]);
    assert_eq!(shop.ok(&["ws", "mount", "job"]), at.display().to_string());
    assert_eq!(text(at.join("new")), "new\n");
    shop.ok(&["ws", "rm", "-f", "job"]);
    assert!(!at.exists());
    shop.fails(3, "there is no workspace job", &["ws", "path", "job"]);
    shop.ok(&["layer", "verify"]);
    shop.is_sound();
}

#[test]
fn layers_lie_in_the_order_they_are_named_in() {
    if !require_root() || !require_fuse() {
        return;
    }
    let shop = Shop::new();
    for name in ["low", "top"] {
        let tree = shop.at(name);
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join("f"), name).unwrap();
        fs::write(tree.join(name), "").unwrap();
    }
    shop.ok(&["layer", "create", "low", shop.at("low").to_str().unwrap()]);
    shop.ok(&[
        "layer",
        "create",
        "top",
        shop.at("top").to_str().unwrap(),
        "--parent",
        "low",
    ]);
    let at = shop.workspace("one", &["top", "low"]);
    assert_eq!(text(at.join("f")), "top");
    let at = shop.workspace("two", &["low", "top"]);
    assert_eq!(text(at.join("f")), "low");
    shop.ok(&["ws", "create", "three", "--chain", "top"]);
    let at = std::path::PathBuf::from(shop.ok(&["ws", "path", "three"]));
    assert_eq!(text(at.join("f")), "top");
    assert!(at.join("low").exists(), "the chain brings the parents");
    let info = shop.json(&["ws", "info", "three"]);
    assert_eq!(info["lowers"][1]["name"], "low");
    assert_eq!(info["mounted_at"], at.display().to_string());
}

#[test]
fn a_directory_in_place_is_a_lower_and_is_not_changed() {
    if !require_root() || !require_fuse() {
        return;
    }
    let shop = Shop::new();
    let tree = shop.tree("live");
    let point = shop.at("point");
    shop.ok(&[
        "ws",
        "create",
        "job",
        "-l",
        tree.to_str().unwrap(),
        "-m",
        point.to_str().unwrap(),
    ]);
    fs::write(point.join("a"), "changed\n").unwrap();
    assert_eq!(text(tree.join("a")), "live a\n");
    assert_eq!(shop.ok(&["ws", "path", "job"]), point.display().to_string());
    shop.ok(&["ws", "unmount", "job"]);
    fs::rename(&tree, shop.at("gone")).unwrap();
    shop.fails(6, "is not there any more", &["ws", "mount", "job"]);
    shop.fails(
        3,
        "is no directory",
        &["ws", "create", "x", "-l", "/no/such/dir"],
    );
}

#[test]
fn mount_options_are_kept_and_checked() {
    if !require_root() || !require_fuse() {
        return;
    }
    let shop = Shop::new();
    shop.layer("base");
    shop.fails(
        2,
        "the store's to choose",
        &["ws", "create", "x", "-l", "base", "-o", "lowerdir=/"],
    );
    shop.fails(
        2,
        "unknown option",
        &["ws", "create", "x", "-l", "base", "-o", "wrong=1"],
    );
    shop.fails(
        2,
        "is not a mapping",
        &["ws", "create", "x", "-l", "base", "--uidmap", "0:1"],
    );
    shop.fails(2, "no layer is given", &["ws", "create", "x"]);
    shop.fails(
        3,
        "there is no layer nobody",
        &["ws", "create", "x", "-l", "nobody"],
    );
    assert_eq!(shop.ok(&["ws", "list", "-q"]), "");
    shop.ok(&[
        "ws",
        "create",
        "job",
        "-l",
        "base",
        "-o",
        "nodev,metacopy=on",
        "--uidmap",
        "0:1000:10",
        "--gidmap",
        "0:1000:10",
    ]);
    let at = shop.ok(&["ws", "path", "job"]);
    let shown = fs::metadata(format!("{at}/a")).unwrap();
    assert_eq!(
        (shown.uid(), shown.gid()),
        (1000, 1000),
        "the layer's root is shown as 1000"
    );
    let table = text("/proc/thread-self/mountinfo");
    let line = table
        .lines()
        .find(|l| l.contains(&format!(" {at} ")))
        .unwrap();
    assert!(line.contains("nodev"), "{line}");
    shop.ok(&["ws", "unmount", "job"]);
    shop.ok(&["ws", "mount", "job"]);
    assert_eq!(
        fs::metadata(format!("{at}/a")).unwrap().uid(),
        1000,
        "after a remount too"
    );
}

#[test]
fn one_layer_is_shared_by_workspaces_with_different_mappings() {
    if !require_root() || !require_fuse() {
        return;
    }
    let shop = Shop::new();
    shop.layer("base");
    for (name, host) in [("one", 10_000u32), ("two", 20_000)] {
        let map = format!("0:{host}:1000");
        shop.ok(&[
            "ws", "create", name, "-l", "base", "--uidmap", &map, "--gidmap", &map,
        ]);
        let at = std::path::PathBuf::from(shop.ok(&["ws", "path", name]));
        assert_eq!(at.join("a").metadata().unwrap().uid(), host);
    }
    let layer = std::path::PathBuf::from(shop.ok(&["layer", "path", "base"]));
    assert_eq!(
        layer.join("a").metadata().unwrap().uid(),
        0,
        "nothing was chowned"
    );
}

#[test]
fn where_it_cannot_be_mounted_no_workspace_is_made() {
    if !require_root() || !require_fuse() {
        return;
    }
    let shop = Shop::new();
    shop.layer("base");
    let file = shop.at("file");
    fs::write(&file, "").unwrap();
    let answer = shop.run(&[
        "ws",
        "create",
        "job",
        "-l",
        "base",
        "-m",
        file.to_str().unwrap(),
    ]);
    assert_eq!(answer.code, 32, "{answer:?}");
    assert_eq!(shop.ok(&["ws", "list", "-q"]), "");
    shop.is_sound();
}

#[test]
fn reset_throws_the_changes_away() {
    if !require_root() || !require_fuse() {
        return;
    }
    let shop = Shop::new();
    shop.layer("base");
    let at = shop.workspace("job", &["base"]);
    fs::write(at.join("a"), "changed\n").unwrap();
    fs::remove_dir_all(at.join("dir")).unwrap();
    shop.fails(4, "is mounted at", &["ws", "reset", "job"]);
    shop.ok(&["ws", "unmount", "job"]);
    shop.ok(&["ws", "reset", "job"]);
    assert_eq!(shop.ok(&["ws", "diff", "job"]), "");
    shop.ok(&["ws", "mount", "job"]);
    assert_eq!(
        (text(at.join("a")), text(at.join("b"))),
        ("base.tree a\n".into(), "base.tree a\n".into())
    );
    assert_eq!(text(at.join("dir/file")), "file\n");
}

#[test]
fn a_clone_has_the_changes_and_goes_its_own_way() {
    if !require_root() || !require_fuse() {
        return;
    }
    let shop = Shop::new();
    shop.layer("base");
    let at = shop.workspace("job", &["base"]);
    fs::write(at.join("a"), "changed\n").unwrap();
    fs::rename(at.join("dir"), at.join("moved")).unwrap();
    shop.fails(4, "is mounted at", &["ws", "clone", "job", "twin"]);
    shop.ok(&["ws", "unmount", "job"]);
    shop.ok(&["ws", "clone", "job", "twin"]);
    let twin = std::path::PathBuf::from(shop.ok(&["ws", "path", "twin"]));
    assert_eq!(
        text(twin.join("b")),
        "changed\n",
        "the further name of a hard link"
    );
    assert_eq!(
        text(twin.join("moved/file")),
        "file\n",
        "a moved directory of the layer"
    );
    assert!(!twin.join("dir").exists());
    fs::write(twin.join("a"), "twin\n").unwrap();
    shop.ok(&["ws", "mount", "job"]);
    assert_eq!(text(at.join("a")), "changed\n");
    shop.fails(
        5,
        "there is a workspace twin",
        &["ws", "clone", "job", "twin"],
    );
}

#[test]
fn a_layer_under_a_workspace_cannot_be_removed() {
    let shop = Shop::new();
    shop.layer("base");
    shop.ok(&["ws", "create", "job", "-l", "base", "--no-mount"]);
    shop.fails(4, "in use by the workspace job", &["layer", "rm", "base"]);
    shop.ok(&["ws", "rm", "job"]);
    shop.ok(&["layer", "rm", "base"]);
}

/// What is open so can be written after a SIGKILL of the daemon, when the upper may
/// have become a layer.
#[test]
fn a_workspace_is_never_written_past_its_daemon() {
    let shop = Shop::new();
    shop.layer("base");
    let words = ["ws", "create", "job", "-l", "base", "--no-mount", "-o"];
    let with = |options| [&words[..], &[options]].concat();
    shop.fails(2, "is not for workspaces", &with("passthrough=on"));
    shop.fails(2, "is not for workspaces", &with("noacl,passthrough=on"));
    shop.ok(&with("passthrough=off"));
}

#[test]
fn a_workspace_keeps_the_layers_it_was_made_of() {
    if !require_root() || !require_fuse() {
        return;
    }
    let shop = Shop::new();
    shop.layer("base");
    shop.ok(&["ws", "create", "job", "-l", "base", "--no-mount"]);
    // The name may be given to another content; the workspace knows the digest.
    let twin = shop.ok(&["layer", "path", "base"]);
    shop.ok(&["layer", "create", "twin", &twin]);
    shop.ok(&["layer", "rm", "base"]);
    shop.ok(&["layer", "create", "base"]);
    shop.ok(&["ws", "mount", "job"]);
    let at = std::path::PathBuf::from(shop.ok(&["ws", "path", "job"]));
    assert_eq!(text(at.join("a")), "base.tree a\n");
    shop.ok(&["ws", "unmount", "job"]);
    let digest = std::path::Path::new(&twin).parent().unwrap();
    fs::rename(digest, shop.at("stolen")).unwrap();
    shop.fails(6, "is not in the store", &["ws", "mount", "job"]);
    fs::rename(shop.at("stolen"), digest).unwrap();
}

#[test]
fn the_root_of_the_view_looks_like_the_layers() {
    if !require_root() || !require_fuse() {
        return;
    }
    let shop = Shop::new();
    let tree = shop.tree("tree");
    std::os::unix::fs::chown(&tree, Some(12), Some(34)).unwrap();
    fs::set_permissions(&tree, std::os::unix::fs::PermissionsExt::from_mode(0o1770)).unwrap();
    shop.ok(&["layer", "create", "base", tree.to_str().unwrap()]);
    let at = shop.workspace("job", &["base"]);
    let root = at.metadata().unwrap();
    assert_eq!(
        (root.uid(), root.gid(), root.mode() & 0o7777),
        (12, 34, 0o1770)
    );
}

#[test]
fn materialize_mounts_read_only_or_writes_a_plain_tree() {
    if !require_root() || !require_fuse() {
        return;
    }
    let shop = Shop::new();
    shop.layer("base");
    let at = shop.workspace("job", &["base"]);
    fs::write(at.join("new"), "new\n").unwrap();
    fs::remove_file(at.join("a")).unwrap();
    shop.ok(&["layer", "commit", "job", "app"]);
    let point = shop.at("view");
    shop.ok(&[
        "materialize",
        "view",
        "--chain",
        "app",
        "-m",
        point.to_str().unwrap(),
    ]);
    assert_eq!(text(point.join("new")), "new\n");
    assert!(fs::write(point.join("x"), "").is_err(), "read only");
    shop.fails(2, "read-only view", &["ws", "upper", "view"]);
    let plain = shop.at("plain");
    let words = [
        "materialize",
        "view",
        "--chain",
        "app",
        "-m",
        plain.to_str().unwrap(),
        "--copy",
    ];
    assert_eq!(shop.ok(&words), plain.display().to_string());
    assert!(!is_mountpoint(&plain) && !plain.join("a").exists());
    assert_eq!(
        (text(plain.join("b")), text(plain.join("new"))),
        ("base.tree a\n".into(), "new\n".into())
    );
    assert_eq!(
        plain.join("dir").metadata().unwrap().mtime(),
        point.join("dir").metadata().unwrap().mtime()
    );
    shop.fails(5, "no empty directory", &words);
    let left: Vec<_> = fs::read_dir(shop.at(""))
        .unwrap()
        .flatten()
        .map(|e| e.file_name())
        .collect();
    assert!(
        left.iter().all(|n| !n.to_string_lossy().starts_with('.')),
        "{left:?}"
    );
}
