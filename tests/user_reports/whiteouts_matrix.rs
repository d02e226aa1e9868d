//! Section A: the two reports whose test is a matrix: every type over every type, and every order of looking.

use std::fs;
use std::path::Path;

use crate::support::story::{require_real_root, sh};
use crate::support::{Base, Kind, Layers, Mount, Snapshot, diff};

/// What one layer may say about a name.
const KINDS: [&str; 7] = [
    "none", "file", "dir", "symlink", "fifo", "whiteout", "opaque",
];

fn put(layer: &Path, name: &str, kind: &str, layer_name: &str) -> String {
    let at = layer.join(name);
    let at = at.display();
    match kind {
        "file" => format!("echo {layer_name} > {at};"),
        "dir" => format!(
            "mkdir {at}; echo {layer_name} > {at}/in_{layer_name}; echo {layer_name} > {at}/same;"
        ),
        "symlink" => format!("ln -s to_{layer_name} {at};"),
        "fifo" => format!("mkfifo {at};"),
        "whiteout" => format!("mknod {at} c 0 0;"),
        "opaque" => format!(
            "mkdir {at}; setfattr -n trusted.overlay.opaque -v y {at}; echo {layer_name} > {at}/opq_{layer_name};"
        ),
        _ => String::new(),
    }
}

/// F#76, F#338: ENOTDIR and ELOOP where a component is a whiteout or a symlink in one layer and a directory in another.
/// Every kind over every kind over every kind, also one directory deeper; the whole tree equal to the kernel's.
#[test]
fn f76_every_type_over_every_type_in_three_layers() {
    if !(require_real_root()) {
        return;
    }
    let build = |deep: &str| {
        let layers = Layers::new(Base::Shm, 3);
        let mut script = String::new();
        for lower in &layers.lowers {
            script += &format!("mkdir -p {};", lower.join(deep).display());
        }
        for (i, a) in KINDS.iter().enumerate() {
            for (j, b) in KINDS.iter().enumerate() {
                for (k, c) in KINDS.iter().enumerate() {
                    let name = format!("{deep}n{i}{j}{k}");
                    script += &put(&layers.lowers[0], &name, a, "L0");
                    script += &put(&layers.lowers[1], &name, b, "L1");
                    script += &put(&layers.lowers[2], &name, c, "L2");
                }
            }
        }
        fs::write(layers.root.join("setup"), &script).unwrap();
        sh(&layers.root, "sh -eu ./setup").unwrap();
        layers
    };
    for deep in ["", "p/q/"] {
        let ours = build(deep);
        let mount = Mount::acetate(&ours, "");
        let our_tree = Snapshot::of(&ours.merged);
        mount.unmount();
        let kernel = build(deep);
        let mount = Mount::kernel(&kernel, "");
        let kernel_tree = Snapshot::of(&kernel.merged);
        mount.unmount();
        assert!(
            kernel_tree.objects.len() > 7 * 7 * 5,
            "the set-up made too little"
        );
        assert_eq!(
            diff(&our_tree, &kernel_tree),
            Vec::<String>::new(),
            "ours | the kernel's, below {deep:?}"
        );
    }
}

/// F#425: a wrong answer only for one order of accesses (a cached parent). On fresh mounts, the same questions in 60
/// different orders must get the same answers.
#[test]
fn f425_the_order_of_lookups_and_listings_changes_no_answer() {
    if !(require_real_root()) {
        return;
    }
    let layers = Layers::new(Base::Shm, 3);
    sh(
        &layers.root,
        "mkdir -p l2/a/sub/deep l2/b/c l2/k; echo x > l2/a/sub/x; echo y > l2/a/sub/deep/y; echo 1 > l2/a/f2; echo 1 > l2/b/c/f; echo 1 > l2/k/f
         mkdir -p l1/a/sub l1/b; mknod l1/a/f2 c 0 0; setfattr -n trusted.overlay.opaque -v y l1/a/sub; echo n > l1/a/sub/new; mknod l1/b/c c 0 0
         mkdir -p l0/b/c l0/a; echo top > l0/b/c/top; : > l0/.wh.k; ln -s a l0/link",
    )
    .unwrap();
    let questions = [
        "ls a",
        "ls a/sub",
        "ls b",
        "ls b/c",
        "ls .",
        "stat a/sub/x",
        "stat a/sub/deep/y",
        "stat a/f2",
        "stat b/c/f",
        "stat b/c/top",
        "stat k/f",
        "stat k",
        "ls link/sub",
        "stat a/sub/new",
        "ls a/sub/deep",
    ];
    let ask = |question: &str| {
        let (verb, name) = question.split_once(' ').unwrap();
        let path = layers.at(name);
        match verb {
            "ls" => match fs::read_dir(&path) {
                Ok(entries) => {
                    let mut names: Vec<_> = entries
                        .map(|e| e.unwrap().file_name().into_string().unwrap())
                        .collect();
                    names.sort();
                    names.join(" ")
                }
                Err(e) => format!("{:?}", e.raw_os_error()),
            },
            _ => match path.symlink_metadata() {
                Ok(m) => format!(
                    "{:?} {}",
                    m.file_type(),
                    if m.is_dir() { 0 } else { m.len() }
                ),
                Err(e) => format!("{:?}", e.raw_os_error()),
            },
        }
    };
    let mut order: Vec<usize> = (0..questions.len()).collect();
    let mut first: Option<Vec<String>> = None;
    // A fixed linear congruential generator: the orders are the same in every run.
    let mut state = 0x2545_f491_u64;
    for round in 0..60 {
        let mount = Mount::with(Kind::Acetate, &layers, "");
        let mut answers = vec![String::new(); questions.len()];
        for &q in &order {
            answers[q] = ask(questions[q]);
        }
        mount.unmount();
        let text: Vec<_> = questions
            .iter()
            .zip(&answers)
            .map(|(q, a)| format!("{q} -> {a}"))
            .collect();
        match &first {
            None => {
                assert_eq!(ask_for(&text, "ls a"), "sub");
                assert_eq!(ask_for(&text, "ls a/sub"), "new");
                assert_eq!(ask_for(&text, "stat a/sub/x"), "Some(2)");
                assert_eq!(ask_for(&text, "stat k"), "Some(2)");
                assert_eq!(ask_for(&text, "ls b/c"), "top");
                first = Some(text);
            }
            Some(first) => {
                let orders: Vec<_> = order.iter().map(|&q| questions[q]).collect();
                assert_eq!(&text, first, "round {round}, asked in the order {orders:?}");
            }
        }
        for i in (1..order.len()).rev() {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            order.swap(i, (state >> 33) as usize % (i + 1));
        }
    }
}

fn ask_for<'a>(answers: &'a [String], question: &str) -> &'a str {
    answers
        .iter()
        .find_map(|line| line.strip_prefix(&format!("{question} -> ")))
        .unwrap()
}
