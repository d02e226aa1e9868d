//! `acetate stats`: figures that are what was done, of the mount that was meant, for those who may ask.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use acetate::fuse::control::{HOLD, Lease, RELEASE};
use acetate::sys::ask;
use serde_json::Value;

use crate::world::{ACETATE, World, can_mount, signal, text, wait_until};

/// The figures, by the path of a mount in the world.
fn figures_at(world: &World, at: &str) -> Value {
    let out = world.acetate(&["stats", at, "--format", "json"]);
    assert!(out.status.success(), "{}", text(&out));
    serde_json::from_slice(&out.stdout).unwrap()
}

fn figures(world: &World) -> Value {
    figures_at(world, "m")
}

fn number(of: &Value, path: &str) -> u64 {
    let found = of.pointer(path).and_then(Value::as_u64);
    found.unwrap_or_else(|| panic!("no number {path} in {of:#}"))
}

fn count(of: &Value, kind: &str) -> u64 {
    number(of, &format!("/requests/{kind}/count"))
}

/// How many of a kind were answered, by its histogram.
fn answered(kind: &Value) -> u64 {
    let buckets = kind["histogram"].as_array().unwrap();
    buckets.iter().map(|b| b["count"].as_u64().unwrap()).sum()
}

#[test]
fn counts_are_what_was_done() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    fs::write(world.path("b/large"), vec![7; 100_000]).unwrap();
    world.mount(true);
    let before = figures(&world);
    assert_eq!(number(&before, "/copy_ups"), 0);
    assert_eq!(number(&before, "/bytes_read"), 0);

    let at = |name: &str| world.path("m").join(name);
    for i in 0..5 {
        fs::write(at(&format!("new{i}")), vec![1; 1000]).unwrap();
    }
    assert_eq!(fs::read(at("large")).unwrap().len(), 100_000);
    let mut large = fs::File::options().write(true).open(at("large")).unwrap();
    large.seek(SeekFrom::Start(50)).unwrap();
    large.write_all(b"seven b").unwrap();
    drop(large);
    fs::create_dir(at("d")).unwrap();
    fs::rename(at("new0"), at("d/moved")).unwrap();
    fs::remove_file(at("new1")).unwrap();
    assert_eq!(fs::read_dir(at("d")).unwrap().count(), 1);
    assert_eq!(fs::read_dir(world.path("m")).unwrap().count(), 7);

    let after = figures(&world);
    let more = |path: &str| number(&after, path) - number(&before, path);
    let requests = |kind: &str| count(&after, kind) - count(&before, kind);
    assert_eq!(requests("create"), 5);
    assert_eq!(requests("write"), 6);
    assert_eq!(requests("mkdir"), 1);
    assert_eq!(requests("rename"), 1);
    assert_eq!(requests("unlink"), 1);
    assert_eq!(requests("symlink"), 0);
    assert_eq!(more("/bytes_written"), 5_007);
    assert_eq!(more("/bytes_read"), 100_000);
    assert_eq!(more("/copy_ups"), 1);
    assert_eq!(more("/copy_up_bytes"), 100_000);
    let (took, longest) = (more("/copy_up_ns"), more("/copy_up_longest_ns"));
    assert!(took > 0 && took == longest, "{took} {longest}");
    assert_eq!(more("/listing_misses"), 2);
    assert!(more("/listing_hits") >= 1);
    // Five made, one read and copied up.
    assert!(more("/descriptor_misses") >= 6, "{after:#}");
    assert!(more("/descriptor_hits") >= 1, "{after:#}");
    assert!(more("/open_descriptors") >= 4, "{after:#}");
    // The root, two and a large one below it, a directory, the moved one, three more; the removed one goes when it goes.
    let known = number(&after, "/known_inodes");
    assert!((9..=10).contains(&known), "{after:#}");
    assert!(number(&after, "/descriptor_budget") > 16);
    assert_eq!(number(&after, "/parked_changes"), 0);
    let served_by = i32::try_from(number(&after, "/pid")).unwrap();
    assert_eq!(world.daemons(), [served_by]);
    assert_eq!(after["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(after["schema_version"], 1);
    assert!(more("/uptime_ns") > 0);

    // The same for people.
    let out = world.acetate(&["stats", "m"]);
    let said = text(&out);
    assert!(
        said.contains("97.7 KiB read, 4.9 KiB written") && said.contains("REQUEST"),
        "{said}"
    );
    let row = said.lines().find(|l| l.starts_with("create")).unwrap();
    assert_eq!(row.split_whitespace().nth(1), Some("5"), "{said}");
    assert!(!said.contains("symlink"), "what nobody asked for: {said}");
}

#[test]
fn histograms_sum_to_counts() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    world.mount(true);
    let clients: Vec<_> = (0..4)
        .map(|client| {
            let dir = world.path("m").join(format!("d{client}"));
            std::thread::spawn(move || {
                fs::create_dir(&dir).unwrap();
                for i in 0..100 {
                    let file = dir.join(i.to_string());
                    fs::write(&file, b"x").unwrap();
                    fs::metadata(&file).unwrap();
                    fs::remove_file(&file).unwrap();
                }
            })
        })
        .collect();
    clients.into_iter().for_each(|c| c.join().unwrap());
    // A request is measured to its end when its client goes on already.
    let mut all = Value::Null;
    wait_until("all requests are answered", || {
        all = figures(&world)["requests"].clone();
        let kinds = all.as_object().unwrap();
        // The question itself is being served.
        let open = |(name, kind): (&String, &Value)| {
            name != "ioctl" && kind["count"].as_u64() != Some(answered(kind))
        };
        !kinds.iter().any(open)
    });
    assert_eq!(all["create"]["count"], 400);
    assert_eq!(all["unlink"]["count"], 400);
    for (name, kind) in all.as_object().unwrap() {
        let [p50, p99, max, total] =
            ["p50_ns", "p99_ns", "max_ns", "total_ns"].map(|field| kind[field].as_u64().unwrap());
        let served = answered(kind);
        assert!(p50 <= p99 && p99 <= max, "{name}: {kind:#}");
        assert!(total <= max * served && total >= max, "{name}: {kind:#}");
        assert_eq!(served == 0, max == 0, "{name}: {kind:#}");
    }
}

#[test]
fn two_mounts_are_not_mixed() {
    if !can_mount() {
        return;
    }
    let (one, other) = (World::new(), World::new());
    one.mount(true);
    other.mount(true);
    for i in 0..20 {
        fs::create_dir(one.path("m").join(format!("d{i}"))).unwrap();
    }
    assert_eq!(count(&figures(&one), "mkdir"), 20);
    assert_eq!(count(&figures(&other), "mkdir"), 0);
    assert_ne!(figures(&one)["pid"], figures(&other)["pid"]);
}

#[test]
fn a_mount_is_found_by_any_path_in_it() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    world.mount(true);
    fs::create_dir_all(world.path("m/x/y")).unwrap();
    fs::write(world.path("m/x/y/file"), b"").unwrap();
    std::os::unix::fs::symlink("m/x", world.path("link")).unwrap();
    let pid = figures(&world)["pid"].clone();
    for path in ["m/", "m/x/y", "m/x/y/file", "m/x/../from-a", "link/y", "."] {
        let (folder, at) = match path {
            "." => (world.path("m/x"), "."),
            at => (world.path(""), at),
        };
        let out = Command::new(ACETATE)
            .args(["stats", at, "--format", "json"])
            .current_dir(folder)
            .output()
            .unwrap();
        assert!(out.status.success(), "{path}: {}", text(&out));
        let found: Value = serde_json::from_slice(&out.stdout).unwrap();
        assert_eq!(found["pid"], pid, "{path}");
        let place = found["mountpoint"].as_str().unwrap();
        assert_eq!(
            world.path("m").canonicalize().unwrap().to_str(),
            Some(place)
        );
    }
    // Of a part of it, bound elsewhere, no more can be seen.
    let out = world.sh(
        "mkdir part; exec unshare -m sh -ec 'mount --bind m/x part; umount -l m; \"$ACETATE\" stats part/y --format json'",
    );
    assert!(out.status.success(), "{}", text(&out));
    let found: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(found["pid"], pid);
    assert!(found["mountpoint"].as_str().unwrap().ends_with("/part"));
}

#[test]
fn what_is_no_mount_of_ours_is_answered_with_a_sentence() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    let expect = |at: &str, code: i32, says: &str| {
        let out = world.acetate(&["stats", at]);
        assert_eq!(out.status.code(), Some(code), "{at}: {}", text(&out));
        assert!(text(&out).contains(says), "{at}: {}", text(&out));
        assert!(out.stdout.is_empty(), "{at}: {}", text(&out));
    };
    expect("m", 3, "is on no acetate mount, but on ");
    expect("/proc/self", 3, "but on proc");
    expect("nowhere", 3, "there is no nowhere");
    expect("a/from-a/below", 3, "there is no");
    world.mount(true);
    let out = world.acetate(&["unmount", "m"]);
    assert!(out.status.success(), "{}", text(&out));
    expect("m", 3, "is on no acetate mount");
    world.wait_for_the_end();

    world.mount(true);
    world
        .daemons()
        .into_iter()
        .for_each(|pid| signal(pid, "KILL"));
    world.wait_for_the_end();
    expect("m", 3, "has ended");

    let out = world.acetate(&["stats", "m", "--format", "json"]);
    let error: Value = serde_json::from_slice(&out.stderr).unwrap();
    assert_eq!(error["error"]["code"], "not_found");
}

/// Another program's mount stands for an older acetate's: both answer that they know no such ioctl.
#[test]
fn a_mount_that_tells_no_figures_is_answered_with_a_sentence() {
    if !can_mount() {
        return;
    }
    let peer = "/usr/bin/fuse-overlayfs";
    let said = Command::new(peer).arg("--version").output();
    if !said.is_ok_and(|out| !text(&out).contains("acetate")) {
        eprintln!("SKIPPED: needs another {peer}");
        return;
    }
    let world = World::new();
    let out = world.sh(&format!("exec {peer} -o {} m", world.options(true)));
    assert!(out.status.success(), "{}", text(&out));
    let out = world.acetate(&["stats", "m"]);
    assert_eq!(out.status.code(), Some(1), "{}", text(&out));
    assert!(
        text(&out).contains("another program serves it, or an older acetate"),
        "{}",
        text(&out)
    );
}

#[test]
fn an_ordinary_user_is_told_of_no_mount_but_its_own() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    world.mount(true);
    let out = world.sh(
        "cp \"$ACETATE\" acetate; chmod 755 acetate; exec setpriv --reuid=1001 --regid=1001 --clear-groups ./acetate stats m",
    );
    assert_eq!(out.status.code(), Some(1), "{}", text(&out));
    let said = text(&out);
    assert!(
        said.contains("/m is another user's")
            && said.contains("only root and the user whose process serves it may ask"),
        "{said}"
    );
}

#[test]
fn a_change_that_is_parked_takes_as_long_as_its_client_waits() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    fs::write(world.path("a/large"), vec![1; 4 << 20]).unwrap();
    world.mount(true);
    let root = fs::File::open(world.path("m")).unwrap();
    // A mkdir that waits keeps everybody from looking names up beside it.
    fs::metadata(world.path("m/large")).unwrap();
    let lease = |token| Lease {
        milliseconds: 10_000,
        token,
    };
    let mut data = lease(0).encode();
    ask::ioctl(root.as_fd(), HOLD, &mut data).unwrap();
    let token = Lease::decode(&data).unwrap().token;
    // A request that a loop serves, and one that a worker does: a copy-up of 4 MiB.
    let made = world.path("m/made");
    let large = world.path("m/large");
    let clients = [
        std::thread::spawn(move || fs::create_dir(made).unwrap()),
        std::thread::spawn(move || {
            let mut file = fs::File::options().write(true).open(large).unwrap();
            file.write_all(b"1").unwrap();
        }),
    ];
    wait_until("both changes are parked", || {
        number(&figures(&world), "/parked_changes") == 2
    });
    std::thread::sleep(Duration::from_millis(300));
    let now = figures(&world);
    for kind in ["mkdir", "write"] {
        assert_eq!(count(&now, kind), 1);
        assert_eq!(answered(&now["requests"][kind]), 0, "{kind} waits");
    }
    ask::ioctl(root.as_fd(), RELEASE, &mut lease(token).encode()).unwrap();
    clients.into_iter().for_each(|c| c.join().unwrap());
    for kind in ["mkdir", "write"] {
        let mut took = 0;
        wait_until("it is measured", || {
            let now = figures(&world);
            took = number(&now, &format!("/requests/{kind}/max_ns"));
            answered(&now["requests"][kind]) == 1
        });
        assert!(took >= 300_000_000, "{kind}: {took} ns");
    }
    drop(root);
}

/// What OpenMetrics 1.0 asks of the lines that we write.
#[derive(Default)]
struct Exposition {
    /// Families and their types.
    families: BTreeMap<String, String>,
    /// Samples, name and labels as they stand.
    samples: BTreeMap<String, f64>,
}

impl Exposition {
    fn parse(text: &str) -> Self {
        let mut found = Exposition::default();
        let body = text.strip_suffix("# EOF\n").expect("it ends with EOF");
        assert!(!body.contains("# EOF") && !body.contains("\n\n"), "{body}");
        let (mut current, mut helped) = (String::new(), BTreeSet::new());
        for line in body.lines() {
            if let Some(comment) = line.strip_prefix("# ") {
                let mut words = comment.splitn(3, ' ');
                let [word, name, rest] = [(); 3].map(|()| words.next().unwrap());
                match word {
                    "TYPE" => {
                        let known = ["counter", "gauge", "histogram", "info"];
                        assert!(known.contains(&rest), "{line}");
                        let old = found.families.insert(name.to_owned(), rest.to_owned());
                        assert!(old.is_none(), "a family comes once: {line}");
                        current = name.to_owned();
                    }
                    "UNIT" => assert!(name == current && name.ends_with(&format!("_{rest}"))),
                    "HELP" => assert!(name == current && helped.insert(name.to_owned())),
                    _ => panic!("{line}"),
                }
                continue;
            }
            let (series, value) = line.rsplit_once(' ').unwrap();
            let name = series.split('{').next().unwrap();
            assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'));
            let ending = name
                .strip_prefix(current.as_str())
                .unwrap_or_else(|| panic!("{line} is of no family"));
            let endings: &[&str] = match found.families[&current].as_str() {
                "counter" => &["_total"],
                "info" => &["_info"],
                "histogram" => &["_bucket", "_count", "_sum"],
                _ => &[""],
            };
            assert!(endings.contains(&ending), "{line}");
            let labels = series.split_once('{').unwrap().1.strip_suffix('}').unwrap();
            assert!(
                labels.starts_with("mountpoint=\"/") && labels.ends_with('"'),
                "{line}"
            );
            let value: f64 = value.parse().unwrap();
            assert!(value >= 0.0, "{line}");
            let old = found.samples.insert(series.to_owned(), value);
            assert!(old.is_none(), "twice: {line}");
        }
        assert_eq!(helped.len(), found.families.len());
        found
    }

    /// The one sample of a name whose labels say this.
    fn sample(&self, name: &str, label: &str) -> f64 {
        let is =
            |series: &&String| series.starts_with(&format!("{name}{{")) && series.contains(label);
        let found: Vec<_> = self.samples.keys().filter(is).collect();
        assert_eq!(found.len(), 1, "{name} {label}: {found:?}");
        self.samples[found[0]]
    }

    /// `le` and number of each bucket of a kind.
    fn buckets(&self, kind: &str) -> Vec<(f64, f64)> {
        let wanted = format!("kind=\"{kind}\"");
        let mut found: Vec<(f64, f64)> = self
            .samples
            .iter()
            .filter(|(s, _)| s.contains("_bucket{") && s.contains(&wanted))
            .map(|(s, n)| {
                let le = s.split("le=\"").nth(1).unwrap();
                (le.trim_end_matches("\"}").parse().unwrap(), *n)
            })
            .collect();
        found.sort_by(|a, b| a.0.total_cmp(&b.0));
        found
    }
}

#[test]
fn openmetrics_are_valid_and_say_the_same() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    // A name that has to be escaped.
    fs::rename(world.path("m"), world.path("m \"q\\ \u{e9}")).unwrap();
    let place = "m \"q\\ \u{e9}";
    let out = world.acetate(&["mount", "-o", &world.options(true), place]);
    assert!(out.status.success(), "{}", text(&out));
    for i in 0..10 {
        fs::write(world.path(place).join(i.to_string()), vec![0; 500]).unwrap();
    }
    let json = figures_at(&world, place);
    let out = world.acetate(&["stats", place, "--format", "openmetrics"]);
    let umount = Command::new("umount").arg(world.path(place)).status();
    assert!(umount.unwrap().success());
    assert!(out.status.success(), "{}", text(&out));
    let said = String::from_utf8(out.stdout).unwrap();
    assert!(said.contains("/m \\\"q\\\\ \u{e9}\""), "{said}");
    let found = Exposition::parse(&said);
    assert_eq!(found.sample("acetate_bytes_written_total", ""), 5_000.0);
    assert_eq!(
        found.sample("acetate_requests_total", "kind=\"create\""),
        10.0
    );
    assert_eq!(found.sample("acetate_mount_info", "version=\""), 1.0);
    let up = found.sample("acetate_uptime_seconds", "");
    assert!(up > number(&json, "/uptime_ns") as f64 / 1e9 && up < 60.0);
    assert_eq!(found.families["acetate_copy_up_seconds"], "counter");
    let buckets = found.buckets("create");
    assert!(buckets.len() > 10 && buckets.windows(2).all(|w| w[0].1 <= w[1].1));
    assert_eq!(buckets.last(), Some(&(f64::INFINITY, 10.0)));
    let times = "acetate_request_duration_seconds";
    assert_eq!(
        found.sample(&format!("{times}_count"), "kind=\"create\""),
        10.0
    );
    let total = found.sample(&format!("{times}_sum"), "kind=\"create\"");
    let longest = found.sample("acetate_request_longest_seconds", "kind=\"create\"");
    assert!(total > longest && total < longest * 10.0);
    world.wait_for_the_end();
}

#[test]
fn only_stats_speaks_openmetrics() {
    let world = World::new();
    for args in [
        &["doctor", "--format", "openmetrics"][..],
        &["layer", "list", "--format", "openmetrics"],
    ] {
        let out = world.acetate(args);
        assert_eq!(out.status.code(), Some(2), "{}", text(&out));
        assert!(
            text(&out).contains("for `acetate stats` alone"),
            "{}",
            text(&out)
        );
    }
    for wrong in ["x", "0", "-1", "1e400", "nan"] {
        let out = world.acetate(&["stats", "m", &format!("--watch={wrong}")]);
        assert_eq!(out.status.code(), Some(2), "{}", text(&out));
        assert!(
            text(&out).contains("a number of seconds stands here"),
            "{}",
            text(&out)
        );
    }
}

fn watching(world: &World, more: &[&str]) -> Child {
    Command::new(ACETATE)
        .args(["stats", "m", "--watch", "0.05"])
        .args(more)
        .current_dir(world.path(""))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn a_watch_prints_a_line_each_time_and_ends_with_the_mount() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    world.mount(true);
    let mut watch = watching(&world, &[]);
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    assert!(next().contains(" requests/s, p50 "));
    for i in 0..10 {
        fs::create_dir(world.path("m").join(format!("d{i}"))).unwrap();
    }
    while !next().contains("mkdir ") {}
    // What was done is no news for ever: there is a line without it.
    while next().contains("mkdir ") {}
    // It keeps nothing open, so that the mount can be taken away beside it.
    let out = world.acetate(&["unmount", "m"]);
    assert!(out.status.success(), "{}", text(&out));
    for line in lines {
        assert!(line.unwrap().contains(" requests/s"));
    }
    let out = watch.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(0), "{}", text(&out));
    assert!(text(&out).contains("/m has ended"), "{}", text(&out));
    world.wait_for_the_end();
}

#[test]
fn a_watch_ends_at_a_signal_and_with_its_reader() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    world.mount(false);
    let mut watch = watching(&world, &["--format", "json"]);
    let mut out = BufReader::new(watch.stdout.take().unwrap());
    let mut uptime = 0;
    for _ in 0..3 {
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let found: Value = serde_json::from_str(&line).unwrap();
        let now = number(&found, "/uptime_ns");
        assert!(now > uptime && found["schema_version"] == 1);
        uptime = now;
    }
    signal(i32::try_from(watch.id()).unwrap(), "INT");
    assert_eq!(watch.wait().unwrap().signal(), Some(libc::SIGINT));

    let mut watch = watching(&world, &[]);
    drop(watch.stdout.take());
    assert_eq!(watch.wait().unwrap().code(), Some(0));

    let out = world.acetate(&["stats", "m", "--watch", "--format", "openmetrics"]);
    assert_eq!(out.status.code(), Some(2), "{}", text(&out));
}

#[test]
fn on_a_terminal_a_watch_draws_over_what_it_drew() {
    if !can_mount() {
        return;
    }
    if !Command::new("script")
        .arg("--version")
        .output()
        .is_ok_and(|out| out.status.success())
    {
        eprintln!("SKIPPED: needs script(1), for a terminal");
        return;
    }
    let world = World::new();
    world.mount(false);
    let mut script = Command::new("script")
        .args([
            "-qfec",
            &format!("{ACETATE} stats m --watch 0.05"),
            "/dev/null",
        ])
        .current_dir(world.path(""))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut seen = String::new();
    let mut out = script.stdout.take().unwrap();
    let mut buffer = [0; 4096];
    while seen.matches("\u{1b}[H\u{1b}[2J").count() < 3 {
        let n = out.read(&mut buffer).unwrap();
        assert!(n > 0, "it ended: {seen}");
        seen.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
    let out = world.acetate(&["unmount", "m"]);
    assert!(out.status.success(), "{}", text(&out));
    assert!(script.wait().unwrap().success());
    assert!(seen.contains("PER SECOND"), "{seen}");
}

#[test]
fn a_mount_looks_no_name_up_before_somebody_asks() {
    if !can_mount() {
        return;
    }
    let world = World::new();
    for i in 0..100 {
        fs::write(world.path("a").join(format!("f{i}")), b"").unwrap();
    }
    world.mount(true);
    let now = figures(&world);
    // Its own: the root, and the file that it is primed with.
    assert!(count(&now, "lookup") <= 2, "{now:#}");
    assert_eq!(count(&now, "readdirplus") + count(&now, "readdir"), 0);
    assert_eq!(number(&now, "/known_inodes"), 1);
}
