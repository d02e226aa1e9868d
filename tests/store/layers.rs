//! Layers: made, named, read, checked, removed.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::shop::{Shop, text};

#[test]
fn init_makes_a_store_and_may_be_repeated() {
    let shop = Shop::bare();
    shop.fails(3, "there is no store", &["layer", "list"]);
    assert_eq!(shop.ok(&["init"]), shop.root().display().to_string());
    shop.ok(&["init"]);
    let other = shop.at("full");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("letter"), "").unwrap();
    shop.fails(5, "not empty", &["init", other.to_str().unwrap()]);
}

#[test]
fn a_layer_of_a_directory_keeps_what_is_in_it() {
    let shop = Shop::new();
    let tree = shop.tree("tree");
    std::fs::set_permissions(tree.join("dir"), std::fs::Permissions::from_mode(0o1751)).unwrap();
    let sparse = std::fs::File::create(tree.join("sparse")).unwrap();
    sparse.set_len(1 << 30).unwrap();
    drop(sparse);
    assert_eq!(
        shop.ok(&["layer", "create", "base", tree.to_str().unwrap()]),
        "base"
    );
    let made = std::path::PathBuf::from(shop.ok(&["layer", "path", "base"]));
    let (a, b) = (
        made.join("a").metadata().unwrap(),
        made.join("b").metadata().unwrap(),
    );
    assert_eq!((a.ino(), a.nlink()), (b.ino(), 2), "hard links stay");
    assert_ne!(
        a.ino(),
        tree.join("a").metadata().unwrap().ino(),
        "not the source's file"
    );
    assert_eq!(
        a.mtime_nsec(),
        tree.join("a").metadata().unwrap().mtime_nsec()
    );
    assert_eq!(made.join("dir").metadata().unwrap().mode() & 0o7777, 0o1751);
    assert!(
        made.join("sparse").metadata().unwrap().blocks() < 1_000,
        "holes stay"
    );
    assert_eq!(
        made.join("link").read_link().unwrap().to_str(),
        Some("dir/file")
    );
    shop.is_sound();
}

#[test]
fn names_are_checked_and_taken_once() {
    let shop = Shop::new();
    for bad in ["../up", "a b", ".hidden", "", "a/b", "sha256:00"] {
        shop.fails(2, "cannot be a name", &["layer", "create", bad]);
    }
    shop.ok(&["layer", "create", "base"]);
    shop.fails(
        5,
        "there is a layer base already",
        &["layer", "create", "base"],
    );
    shop.fails(
        3,
        "does not exist",
        &["layer", "create", "new", "/no/such/dir"],
    );
    shop.fails(
        2,
        "has no key and value",
        &["layer", "create", "new", "--label", "word"],
    );
    shop.fails(
        3,
        "there is no layer nobody",
        &["layer", "create", "new", "--parent", "nobody"],
    );
    assert_eq!(
        shop.ok(&["layer", "list", "-q"]),
        "base",
        "nothing is left of what failed"
    );
    assert_eq!(
        std::fs::read_dir(shop.inside("staging")).unwrap().count(),
        0
    );
}

#[test]
fn identical_layers_are_stored_once() {
    let shop = Shop::new();
    let tree = shop.tree("tree");
    let tree = tree.to_str().unwrap();
    shop.ok(&["layer", "create", "one", tree]);
    let second = shop.run(&["layer", "create", "two", tree]);
    assert!(second.err.contains("stored once"), "{second:?}");
    assert_eq!(
        shop.ok(&["layer", "path", "one"]),
        shop.ok(&["layer", "path", "two"])
    );
    assert_eq!(std::fs::read_dir(shop.inside("layers")).unwrap().count(), 1);
    shop.ok(&["layer", "rm", "one"]);
    assert_eq!(shop.ok(&["layer", "cat", "two", "a"]), "tree a");
    shop.ok(&["layer", "rm", "two"]);
    assert_eq!(std::fs::read_dir(shop.inside("layers")).unwrap().count(), 0);
    shop.is_sound();
}

#[test]
fn a_layer_is_found_by_the_first_digits_of_its_digest() {
    let shop = Shop::new();
    shop.layer("base");
    shop.layer("other");
    let info = shop.json(&["layer", "info", "base"]);
    let digest = info["diff_id"].as_str().unwrap().to_owned();
    let path = shop.ok(&["layer", "path", "base"]);
    assert_eq!(shop.ok(&["layer", "path", &digest]), path);
    assert_eq!(shop.ok(&["layer", "path", &digest[7..19]]), path);
    shop.fails(3, "there is no layer", &["layer", "path", &digest[7..9]]);
    shop.fails(3, "there is no layer", &["layer", "path", "ffffffffffff"]);
    assert_eq!(info["schema_version"], 1);
    assert_eq!(info["path"], path);
}

#[test]
fn the_chain_of_parents_is_recorded() {
    let shop = Shop::new();
    shop.layer("base");
    let tree = shop.tree("second");
    shop.ok(&[
        "layer",
        "create",
        "app",
        tree.to_str().unwrap(),
        "--parent",
        "base",
        "--label",
        "k=v=w",
    ]);
    shop.ok(&["layer", "create", "top", "--parent", "app"]);
    let (base, app, top) = (
        shop.json(&["layer", "info", "base"]),
        shop.json(&["layer", "info", "app"]),
        shop.json(&["layer", "info", "top"]),
    );
    assert_eq!(base["chain_id"], base["diff_id"]);
    assert_eq!(app["labels"]["k"], "v=w");
    let names: Vec<&str> = top["parents"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["app", "base"]);
    // OCI image-spec config.md, "Layer ChainID", by another program.
    let text = format!(
        "{} {}",
        base["chain_id"].as_str().unwrap(),
        app["diff_id"].as_str().unwrap()
    );
    let mut sum = std::process::Command::new("sha256sum")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(sum.stdin.as_mut().unwrap(), text.as_bytes()).unwrap();
    let said = sum.wait_with_output().unwrap().stdout;
    let said = String::from_utf8(said).unwrap();
    assert_eq!(app["chain_id"].as_str().unwrap()[7..], said[..64]);
    shop.fails(
        4,
        "in use by the layer app, the layer top",
        &["layer", "rm", "base"],
    );
    shop.ok(&["layer", "rm", "top", "app", "base"]);
    shop.is_sound();
}

#[test]
fn ls_and_cat_show_a_layer_upon_its_parents() {
    let shop = Shop::new();
    shop.layer("base");
    let tree = shop.at("upper");
    std::fs::create_dir_all(tree.join("dir")).unwrap();
    std::fs::write(tree.join("dir/new"), "new\n").unwrap();
    shop.ok(&[
        "layer",
        "create",
        "app",
        tree.to_str().unwrap(),
        "--parent",
        "base",
    ]);
    assert_eq!(shop.ok(&["layer", "ls", "app", "-q"]), "a\nb\ndir\nlink");
    assert_eq!(
        shop.ok(&["layer", "ls", "app", "/dir", "-q"]),
        "deep\nfile\nnew"
    );
    let rows = shop.json(&["layer", "ls", "app", "link"]);
    assert_eq!(rows["entries"][0]["target"], "dir/file");
    assert_eq!(shop.ok(&["layer", "cat", "app", "./dir//new"]), "new");
    assert_eq!(shop.ok(&["layer", "cat", "app", "dir/deep/other"]), "other");
    shop.fails(3, "has no dir/none", &["layer", "cat", "app", "dir/none"]);
    shop.fails(3, "has no link/x", &["layer", "cat", "app", "link/x"]);
    shop.fails(2, "is a directory", &["layer", "cat", "app", "dir"]);
    shop.fails(2, "`..`", &["layer", "cat", "app", "../../etc/passwd"]);
}

#[test]
fn a_name_with_a_newline_does_not_break_the_table() {
    let shop = Shop::new();
    let tree = shop.at("tree");
    std::fs::create_dir(&tree).unwrap();
    std::fs::write(tree.join("two\nlines\x1b[31m"), "").unwrap();
    shop.ok(&["layer", "create", "odd", tree.to_str().unwrap()]);
    let shown = shop.ok(&["layer", "ls", "odd", "-q"]);
    assert_eq!(shown, "two\\nlines\\u{1b}[31m");
}

#[test]
fn verify_finds_a_changed_layer() {
    let shop = Shop::new();
    shop.layer("base");
    shop.layer("good");
    assert_eq!(shop.ok(&["layer", "verify", "-q"]), "base\ngood");
    let path = std::path::PathBuf::from(shop.ok(&["layer", "path", "base"]));
    std::fs::write(path.join("dir/file"), "evil\n").unwrap();
    let answer = shop.run(&["layer", "verify"]);
    assert_eq!(answer.code, 6, "{answer:?}");
    assert!(
        answer.err.contains("the layer base was changed"),
        "{answer:?}"
    );
    assert_eq!(answer.out, "good\n", "the others are checked all the same");
    let json = shop.run(&["layer", "verify", "base", "--format", "json"]);
    let error: serde_json::Value = serde_json::from_str(&json.err).unwrap();
    assert_eq!(error["error"]["code"], "integrity");
}

#[test]
fn du_tells_shared_from_unique() {
    let shop = Shop::new();
    let tree = shop.at("tree");
    std::fs::create_dir(&tree).unwrap();
    std::fs::write(tree.join("f"), vec![1; 1000]).unwrap();
    let tree = tree.to_str().unwrap();
    shop.ok(&["layer", "create", "one", tree]);
    shop.ok(&["layer", "create", "two", tree]);
    shop.ok(&["layer", "create", "top", "--parent", "one"]);
    let rooms = shop.json(&["layer", "du"]);
    let of = |name: &str, field: &str| {
        let rooms = rooms["layers"].as_array().unwrap();
        rooms.iter().find(|r| r["name"] == name).unwrap()[field]
            .as_u64()
            .unwrap()
    };
    // Sizes are those of the archives: a header, two blocks of data, the end.
    assert_eq!((of("one", "unique"), of("two", "unique")), (0, 0));
    assert!(of("one", "size") >= 1_000 + 512);
    assert_eq!(of("top", "size"), of("top", "unique"));
    assert_eq!(of("top", "chain"), of("top", "size") + of("one", "size"));
}

#[test]
fn a_damaged_record_hides_no_other_layer() {
    let shop = Shop::new();
    shop.layer("base");
    shop.layer("other");
    std::fs::write(shop.inside("names/base.json"), "{").unwrap();
    let listed = shop.run(&["layer", "list", "-q"]);
    assert_eq!(
        (listed.code, listed.out.as_str()),
        (6, "other\n"),
        "{listed:?}"
    );
    assert!(
        listed.err.contains("names/base.json is damaged"),
        "{listed:?}"
    );
    assert_eq!(shop.ok(&["layer", "cat", "other", "a"]), "other.tree a");
    assert!(text(shop.inside("store.json")).contains("\"format\": 1"));
}
