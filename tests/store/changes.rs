//! diff: of a workspace, of a layer, between two.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::shop::Shop;
use super::support::{require_fuse, require_root};

fn lines(shown: &str) -> Vec<String> {
    let words = |l: &str| l.split_whitespace().collect::<Vec<_>>().join(" ");
    shown.lines().map(words).collect()
}

#[test]
fn every_kind_of_change_is_told_with_its_reasons() {
    if !require_root() || !require_fuse() {
        return;
    }
    let shop = Shop::new();
    shop.layer("base");
    let at = shop.workspace("job", &["base"]);
    assert_eq!(shop.ok(&["ws", "diff", "job"]), "");
    fs::set_permissions(at.join("dir/file"), fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::chown(at.join("dir/deep"), Some(3), None).unwrap();
    fs::remove_file(at.join("link")).unwrap();
    std::os::unix::fs::symlink("elsewhere", at.join("link")).unwrap();
    fs::remove_file(at.join("b")).unwrap();
    fs::create_dir(at.join("new")).unwrap();
    fs::write(at.join("new/in"), "x").unwrap();
    let expected = [
        "C /dir/deep owner",
        "C /dir/file mode",
        "C /link target,mtime",
        "A /new",
        "A /new/in",
    ];
    let shown = lines(&shop.ok(&["ws", "diff", "job"]));
    let without_links: Vec<_> = shown
        .iter()
        .filter(|l| !l.contains(" /a") && !l.contains(" /b"))
        .collect();
    assert_eq!(without_links, expected, "{shown:?}");
    assert!(shown.contains(&"D /b".to_owned()), "{shown:?}");
    let json = shop.json(&["ws", "diff", "job"]);
    let changes = json["changes"].as_array().unwrap();
    let of = |path: &str| changes.iter().find(|c| c["path"] == path).unwrap();
    assert_eq!(of("/link")["what"], "changed");
    assert_eq!(of("/link")["kind"], "symlink");
    assert_eq!(of("/b")["what"], "deleted");
    // The same, once it is a layer, and between the two.
    shop.ok(&["ws", "unmount", "job"]);
    assert_eq!(lines(&shop.ok(&["ws", "diff", "job"])), shown, "unmounted");
    shop.ok(&["layer", "commit", "job", "app"]);
    assert_eq!(lines(&shop.ok(&["layer", "diff", "app"])), shown);
    assert_eq!(lines(&shop.ok(&["layer", "diff", "base", "app"])), shown);
    let back = lines(&shop.ok(&["layer", "diff", "app", "base"]));
    assert!(
        back.contains(&"A /b".to_owned()) && back.contains(&"D /new".to_owned()),
        "{back:?}"
    );
}

#[test]
fn what_was_only_touched_without_a_change_is_no_change() {
    if !require_root() || !require_fuse() {
        return;
    }
    let shop = Shop::new();
    shop.layer("base");
    let at = shop.workspace("job", &["base"]);
    // Copied up, directories too, and left as it was.
    drop(
        fs::OpenOptions::new()
            .append(true)
            .open(at.join("dir/file"))
            .unwrap(),
    );
    let mode = fs::metadata(at.join("dir/deep/other"))
        .unwrap()
        .permissions();
    fs::set_permissions(at.join("dir/deep/other"), mode).unwrap();
    assert_eq!(shop.ok(&["ws", "diff", "job"]), "");
}

#[test]
fn a_directory_made_anew_and_one_that_was_moved_are_told_by_their_content() {
    if !require_root() || !require_fuse() {
        return;
    }
    let shop = Shop::new();
    shop.layer("base");
    let at = shop.workspace("job", &["base"]);
    fs::rename(at.join("dir/deep"), at.join("shallow")).unwrap();
    fs::remove_dir_all(at.join("dir")).unwrap();
    fs::create_dir(at.join("dir")).unwrap();
    fs::write(at.join("dir/fresh"), "").unwrap();
    let shown = lines(&shop.ok(&["ws", "diff", "job"]));
    let expected = [
        "D /dir/deep",
        "D /dir/file",
        "A /dir/fresh",
        "A /shallow",
        "A /shallow/other",
    ];
    assert_eq!(shown, expected);
}

#[test]
fn a_layer_upon_nothing_is_all_new() {
    let shop = Shop::new();
    shop.layer("base");
    let shown = lines(&shop.ok(&["layer", "diff", "base"]));
    assert_eq!(
        shown,
        [
            "A /a",
            "A /b",
            "A /dir",
            "A /dir/deep",
            "A /dir/deep/other",
            "A /dir/file",
            "A /link"
        ]
    );
    assert_eq!(shop.ok(&["layer", "diff", "base", "base"]), "");
}

#[test]
fn names_that_are_no_utf8_are_given_in_hexadecimal_too() {
    use std::os::unix::ffi::OsStrExt;
    let shop = Shop::new();
    let tree = shop.at("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(
        tree.join(PathBuf::from(std::ffi::OsStr::from_bytes(b"\xff\xfe"))),
        "",
    )
    .unwrap();
    shop.ok(&["layer", "create", "odd", tree.to_str().unwrap()]);
    let json = shop.json(&["layer", "diff", "odd"]);
    assert_eq!(json["changes"][0]["path_hex"], "2ffffe");
}

/// A file of a layer with several names is written by one of them: the others show it
/// too, and only the index of the upper knows.
#[test]
fn every_name_of_a_changed_hard_link_is_told() {
    if !require_root() || !require_fuse() {
        return;
    }
    let shop = Shop::new();
    shop.layer("base");
    let at = shop.workspace("job", &["base"]);
    fs::write(at.join("a"), "changed\n").unwrap();
    let expected = ["C /a content,mtime", "C /b content,mtime"];
    assert_eq!(lines(&shop.ok(&["ws", "diff", "job"])), expected);
    // The name that was used goes: only the index has the file now.
    fs::remove_file(at.join("a")).unwrap();
    let expected = ["D /a", "C /b content,mtime"];
    assert_eq!(lines(&shop.ok(&["ws", "diff", "job"])), expected);
    shop.ok(&["layer", "commit", "job", "live"]);
    shop.ok(&["ws", "unmount", "job"]);
    assert_eq!(lines(&shop.ok(&["ws", "diff", "job"])), expected);
    shop.ok(&["layer", "commit", "job", "moved"]);
    for layer in ["live", "moved"] {
        assert_eq!(
            lines(&shop.ok(&["layer", "diff", layer])),
            expected,
            "{layer}"
        );
        assert_eq!(shop.ok(&["layer", "cat", layer, "b"]), "changed");
    }
}
