//! gc, fsck, damaged records.

use std::fs;

use super::shop::Shop;

#[test]
fn gc_removes_what_a_crash_left_and_nothing_else() {
    let shop = Shop::new();
    shop.layer("base");
    shop.ok(&["ws", "create", "job", "-l", "base", "--no-mount"]);
    fs::create_dir_all(shop.inside("staging/123-0-abc/layer/tree/deep")).unwrap();
    let orphan = shop.inside(&format!("layers/{}", "ab".repeat(32)));
    fs::create_dir_all(orphan.join("tree")).unwrap();
    fs::write(shop.inside("locks/name.gone"), "").unwrap();
    let done = shop.json(&["gc"]);
    assert_eq!(
        (&done["staging"], &done["contents"], &done["locks"]),
        (&1.into(), &1.into(), &1.into())
    );
    assert!(!orphan.exists());
    assert_eq!(shop.ok(&["layer", "list", "-q"]), "base");
    assert_eq!(shop.ok(&["ws", "list", "-q"]), "job");
    shop.is_sound();
    let again = shop.json(&["gc"]);
    assert_eq!(
        (&again["staging"], &again["contents"], &again["locks"]),
        (&0.into(), &0.into(), &0.into())
    );
}

#[test]
fn the_next_change_removes_what_a_crash_left_in_staging() {
    let shop = Shop::new();
    fs::create_dir_all(shop.inside("staging/123-0-abc/layer/tree/deep")).unwrap();
    fs::set_permissions(
        shop.inside("staging/123-0-abc/layer"),
        std::os::unix::fs::PermissionsExt::from_mode(0o000),
    )
    .unwrap();
    shop.ok(&["layer", "list"]);
    assert!(
        shop.inside("staging/123-0-abc").exists(),
        "who only looks changes nothing"
    );
    shop.ok(&["layer", "create", "empty"]);
    assert_eq!(fs::read_dir(shop.inside("staging")).unwrap().count(), 0);
}

#[test]
fn gc_removes_no_content_while_a_record_cannot_be_read() {
    let shop = Shop::new();
    shop.layer("base");
    let path = shop.ok(&["layer", "path", "base"]);
    fs::write(shop.inside("names/base.json"), "rubbish").unwrap();
    shop.ok(&["gc"]);
    assert!(
        std::path::Path::new(&path).exists(),
        "the damaged record may be of this content"
    );
}

#[test]
fn fsck_names_what_is_damaged_and_repair_puts_it_aside() {
    let shop = Shop::new();
    shop.layer("base");
    shop.layer("other");
    shop.ok(&["ws", "create", "job", "-l", "base", "--no-mount"]);
    fs::write(shop.inside("names/other.json"), "rubbish").unwrap();
    fs::write(shop.inside("names/strange"), "").unwrap();
    fs::remove_dir(shop.inside("workspaces/job/work")).unwrap();
    let found = shop.run(&["fsck"]);
    assert_eq!(found.code, 6, "{found:?}");
    assert!(
        found.out.contains("names/other.json is damaged"),
        "{found:?}"
    );
    assert!(
        found.out.contains("its directory work is missing"),
        "{found:?}"
    );
    assert!(found.out.contains("names/strange"), "{found:?}");
    let repaired = shop.run(&["fsck", "--repair"]);
    assert_eq!(repaired.code, 0, "{repaired:?}");
    shop.is_sound();
    let aside: Vec<_> = fs::read_dir(shop.inside("damaged"))
        .unwrap()
        .flatten()
        .map(|e| e.file_name())
        .collect();
    assert_eq!(aside.len(), 2, "{aside:?}");
    assert_eq!(shop.ok(&["layer", "list", "-q"]), "base");
}

#[test]
fn fsck_finds_a_missing_content_and_a_wrong_chain() {
    let shop = Shop::new();
    shop.layer("base");
    shop.ok(&["ws", "create", "job", "-l", "base", "--no-mount"]);
    shop.ok(&["layer", "create", "app", "--parent", "base"]);
    let text = fs::read_to_string(shop.inside("names/app.json")).unwrap();
    let record: serde_json::Value = serde_json::from_str(&text).unwrap();
    let chain = record["chain_id"].as_str().unwrap();
    let wrong = text.replace(chain, record["diff_id"].as_str().unwrap());
    fs::write(shop.inside("names/app.json"), wrong).unwrap();
    let path = shop.ok(&["layer", "path", "base"]);
    fs::rename(
        std::path::Path::new(&path).parent().unwrap(),
        shop.at("stolen"),
    )
    .unwrap();
    let found = shop.run(&["fsck"]);
    assert_eq!(found.code, 6, "{found:?}");
    for part in [
        "chain ID does not follow",
        "layer base",
        "workspace job",
        "its parent base",
    ] {
        assert!(found.out.contains(part), "{part}: {found:?}");
    }
    // Deleting works all the same.
    shop.ok(&["ws", "rm", "job"]);
    shop.ok(&["layer", "rm", "app"]);
    shop.ok(&["layer", "rm", "base"]);
    shop.is_sound();
}

#[test]
fn fsck_computes_digests_where_asked() {
    let shop = Shop::new();
    shop.layer("base");
    let path = shop.ok(&["layer", "path", "base"]);
    fs::write(format!("{path}/a"), "evil").unwrap();
    assert_eq!(shop.run(&["fsck"]).code, 0);
    let found = shop.run(&["fsck", "--digests"]);
    assert_eq!(found.code, 6);
    assert!(
        found.out.contains("the layer base was changed"),
        "{found:?}"
    );
}

#[test]
fn a_record_of_another_content_is_not_believed() {
    let shop = Shop::new();
    shop.layer("base");
    shop.layer("other");
    let (base, other) = (
        shop.ok(&["layer", "path", "base"]),
        shop.ok(&["layer", "path", "other"]),
    );
    let of = |p: &str| std::path::Path::new(p).parent().unwrap().join("layer.json");
    fs::copy(of(&other), of(&base)).unwrap();
    shop.fails(6, "not of its own folder", &["layer", "path", "base"]);
    // A digest that leads elsewhere is none.
    let evil = fs::read_to_string(shop.inside("names/other.json")).unwrap();
    let digest = serde_json::from_str::<serde_json::Value>(&evil).unwrap()["diff_id"]
        .as_str()
        .unwrap()
        .to_owned();
    fs::write(
        shop.inside("names/other.json"),
        evil.replace(&digest, "sha256:../../../etc"),
    )
    .unwrap();
    shop.fails(6, "is damaged", &["layer", "path", "other"]);
}
