//! Many processes at once; many layers and workspaces.

use std::fs;
use std::time::{Duration, Instant};

use super::shop::{Answer, Shop};
use super::support::host::slowly;

/// Runs all of them at once.
fn all_at_once(shop: &Shop, calls: &[Vec<String>]) -> Vec<Answer> {
    let spawn = |words: &Vec<String>| {
        let mut command = shop.command();
        command
            .args(words)
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        command.spawn().unwrap()
    };
    let children: Vec<_> = calls.iter().map(spawn).collect();
    children
        .into_iter()
        .map(|c| Answer::of(&c.wait_with_output().unwrap()))
        .collect()
}

fn call(words: &[&str]) -> Vec<String> {
    words.iter().map(|w| (*w).to_owned()).collect()
}

#[test]
fn of_many_who_want_one_name_one_gets_it() {
    let shop = Shop::new();
    shop.layer("base");
    for what in [
        &["layer", "create", "x"][..],
        &["ws", "create", "x", "-l", "base", "--no-mount"],
    ] {
        let answers = all_at_once(&shop, &vec![call(what); 8]);
        let codes: Vec<i32> = answers.iter().map(|a| a.code).collect();
        assert_eq!(codes.iter().filter(|c| **c == 0).count(), 1, "{answers:?}");
        assert_eq!(codes.iter().filter(|c| **c == 5).count(), 7, "{answers:?}");
    }
    shop.is_sound();
}

#[test]
fn one_content_is_added_and_removed_by_many_at_once() {
    let shop = Shop::new();
    let tree = shop.tree("tree");
    let tree = tree.to_str().unwrap();
    for round in 0..5 {
        let names: Vec<String> = (0..6).map(|i| format!("n{round}-{i}")).collect();
        let made = all_at_once(
            &shop,
            &names
                .iter()
                .map(|n| call(&["layer", "create", n, tree]))
                .collect::<Vec<_>>(),
        );
        assert!(made.iter().all(|a| a.code == 0), "{made:?}");
        assert_eq!(fs::read_dir(shop.inside("layers")).unwrap().count(), 1);
        // Removed, given to workspaces, collected and added again, all at once.
        let mut calls: Vec<_> = names.iter().map(|n| call(&["layer", "rm", n])).collect();
        for (i, n) in names.iter().enumerate() {
            let ws = format!("w{round}-{i}");
            calls.push(call(&["ws", "create", &ws, "-l", n, "--no-mount"]));
        }
        calls.push(call(&["gc"]));
        calls.push(call(&["layer", "create", &format!("again-{round}"), tree]));
        let answers = all_at_once(&shop, &calls);
        for (words, answer) in calls.iter().zip(&answers) {
            // 6 would be a record of a content that is not there.
            assert!([0, 3, 4].contains(&answer.code), "{words:?}: {answer:?}");
        }
        shop.is_sound();
        let spaces = shop.ok(&["ws", "list", "-q"]);
        spaces.lines().for_each(|w| drop(shop.ok(&["ws", "rm", w])));
        let left = shop.ok(&["layer", "list", "-q"]);
        left.lines()
            .for_each(|l| drop(shop.ok(&["layer", "rm", l])));
        assert_eq!(fs::read_dir(shop.inside("layers")).unwrap().count(), 0);
    }
}

#[test]
fn one_workspace_is_worked_on_by_one_at_a_time() {
    let shop = Shop::new();
    shop.layer("base");
    shop.ok(&["ws", "create", "job", "-l", "base", "--no-mount"]);
    for round in 0..5 {
        fs::write(shop.inside("workspaces/job/upper/f"), format!("{round}")).unwrap();
        let names: Vec<String> = (0..4).map(|i| format!("c{round}-{i}")).collect();
        let mut calls: Vec<_> = names
            .iter()
            .map(|n| call(&["layer", "commit", "job", n]))
            .collect();
        calls.push(call(&["ws", "reset", "job"]));
        calls.push(call(&["gc"]));
        let answers = all_at_once(&shop, &calls);
        assert!(answers.iter().all(|a| a.code == 0), "{answers:?}");
        shop.is_sound();
    }
}

/// The promise is 50 ms, measured with a release build; here only the order of
/// magnitude is watched.
#[test]
fn a_thousand_of_each_are_listed_at_once() {
    let shop = Shop::new();
    shop.layer("base");
    shop.ok(&["ws", "create", "job", "-l", "base", "--no-mount"]);
    let layer = fs::read_to_string(shop.inside("names/base.json")).unwrap();
    let space = fs::read_to_string(shop.inside("workspaces/job/workspace.json")).unwrap();
    for i in 0..999 {
        let name = format!("layer-{i}");
        fs::write(
            shop.inside(&format!("names/{name}.json")),
            layer.replace("\"base\"", &format!("{name:?}")),
        )
        .unwrap();
        let name = format!("space-{i}");
        let folder = shop.inside(&format!("workspaces/{name}"));
        fs::create_dir_all(folder.join("upper")).unwrap();
        fs::create_dir(folder.join("work")).unwrap();
        fs::write(
            folder.join("workspace.json"),
            space.replace("\"job\"", &format!("{name:?}")),
        )
        .unwrap();
    }
    let mut best = Duration::from_secs(1_000);
    for _ in 0..5 {
        let begun = Instant::now();
        assert_eq!(shop.ok(&["layer", "list", "-q"]).lines().count(), 1_000);
        assert_eq!(shop.ok(&["ws", "list", "-q"]).lines().count(), 1_000);
        best = best.min(begun.elapsed());
    }
    println!("1,000 layers and 1,000 workspaces listed in {best:?}");
    assert!(best < slowly(Duration::from_millis(500)), "{best:?}");
}
