//! The dependency table of the architecture, as a test.
//!
//! Folders are rights (see the docs of `lib.rs`): what a folder may use is
//! written here and nowhere else. A change of a table below is a change of the
//! architecture and is reviewed as one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::fs;
use std::path::{Path, PathBuf};

/// Who may use whom. A folder may always use itself.
const MAY_USE: &[(&str, &[&str])] = &[
    ("main", &["cli"]),
    ("lib", &[]),
    ("digest", &[]),
    ("cli", &["app"]),
    (
        "app",
        &[
            "fuse", "overlay", "store", "archive", "layer", "idmap", "digest", "sys",
        ],
    ),
    ("fuse", &["overlay", "idmap", "sys"]),
    ("overlay", &["layer", "idmap", "sys"]),
    ("store", &["layer", "digest", "sys"]),
    ("archive", &["layer", "idmap", "digest", "sys"]),
    ("layer", &["idmap", "sys"]),
    ("idmap", &[]),
    ("sys", &[]),
];

/// Inside the engine: what a folder must not mention.
const OVERLAY_MUST_NOT_USE: &[(&str, &[&str])] = &[
    (
        "decide",
        &[
            "overlay::inode",
            "overlay::upper",
            "overlay::ops",
            "overlay::handle",
            "overlay::lock",
        ],
    ),
    ("inode", &["overlay::upper", "overlay::ops"]),
    (
        "upper",
        &["overlay::inode", "overlay::handle", "overlay::ops"],
    ),
];

/// What of `sys` the deciding folder may name: values, which ask nothing.
const VALUES: &[&str] = &[
    "sys::name",
    "sys::Name",
    "sys::Kind",
    "sys::Timespec",
    "sys::Errno",
];

/// Which folders may name which crates; other crates are free.
const CRATE_BELONGS_TO: &[(&str, &[&str])] = &[
    ("clap", &["cli"]),
    ("tracing_subscriber", &["cli"]),
    ("fuser", &["fuse"]),
    ("tar", &["archive"]),
    ("flate2", &["archive"]),
    ("zstd", &["archive"]),
    ("lzma_rust2", &["archive"]),
    ("bzip2", &["archive"]),
    ("sha2", &["digest"]),
];

/// Crates that are system calls: only `sys` calls them. Their constants and
/// flag types are values like any other and may be named anywhere.
const SYSTEM_CALLS: &[&str] = &["rustix", "libc"];

/// Lines of a file without its tests.
const FILE_BUDGET: usize = 500;
/// Files that may be longer, and why.
const LONGER: &[(&str, usize, &str)] = &[
    (
        "fuse/requests.rs",
        820,
        "one method for each of FUSE's requests, each of them short",
    ),
    (
        "overlay/open.rs",
        600,
        "one story: every check of a mount's directories, in order",
    ),
];

struct Source {
    /// Below `src/`.
    path: PathBuf,
    /// Without comments, strings and inline tests.
    code: String,
    /// As it stands.
    text: String,
}

impl Source {
    /// The folder, or the file that stands at the top.
    fn folder(&self) -> String {
        let first = self.path.components().next().unwrap().as_os_str();
        first.to_str().unwrap().trim_end_matches(".rs").to_owned()
    }

    fn is_tests(&self) -> bool {
        self.path
            .file_stem()
            .unwrap()
            .to_str()
            .unwrap()
            .ends_with("tests")
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let code = without_comments_and_strings(without_tests(&text));
                found.push(Source {
                    path: path.strip_prefix(&root).unwrap().to_owned(),
                    code,
                    text,
                });
            }
        }
    }
    assert!(found.len() > 10, "the sources were not found");
    found
}

fn without_tests(text: &str) -> &str {
    text.find("\n#[cfg(test)]").map_or(text, |end| &text[..end])
}

/// Blanks out comments and string and character literals.
fn without_comments_and_strings(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = String::new();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &text[at..];
        if rest.starts_with("//") {
            at += rest.find('\n').unwrap_or(rest.len());
        } else if rest.starts_with("/*") {
            at += rest.find("*/").map_or(rest.len(), |e| e + 2);
        } else if let Some(hashes) = raw_string(rest) {
            let close = format!("\"{}", "#".repeat(hashes));
            let body = 2 + hashes;
            at += rest[body..]
                .find(&close)
                .map_or(rest.len(), |e| body + e + close.len());
        } else if rest.starts_with('"') {
            at += string_end(rest);
        } else if let Some(end) = char_end(rest) {
            at += end;
        } else {
            let c = rest.chars().next().unwrap();
            out.push(c);
            at += c.len_utf8();
        }
    }
    out
}

fn raw_string(rest: &str) -> Option<usize> {
    let tail = rest.strip_prefix('r')?;
    let hashes = tail.bytes().take_while(|b| *b == b'#').count();
    tail[hashes..].starts_with('"').then_some(hashes)
}

fn string_end(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// The end of a character literal; a lifetime is none.
fn char_end(rest: &str) -> Option<usize> {
    let inner = rest.strip_prefix('\'')?;
    if let Some(escape) = inner.strip_prefix('\\') {
        return escape
            .char_indices()
            .skip(1)
            .find(|(_, c)| *c == '\'')
            .map(|(at, _)| at + 3);
    }
    let mut chars = inner.char_indices();
    chars.next()?;
    let (at, c) = chars.next()?;
    (c == '\'').then_some(at + 2)
}

/// Every path behind `crate::`, groups opened: `crate::{a, b::c}` gives `a` and `b::c`.
fn crate_paths(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = code[at + "crate::".len()..].trim_start();
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 1;
            let mut piece = String::new();
            for c in group.chars() {
                match c {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    _ => {}
                }
                if depth == 0 || (depth == 1 && c == ',') {
                    found.push(piece.trim().to_owned());
                    piece.clear();
                }
                if depth == 0 {
                    break;
                }
                if !(depth == 1 && c == ',') {
                    piece.push(c);
                }
            }
        } else {
            found.push(
                rest.chars()
                    .take_while(|c| c.is_alphanumeric() || "_:".contains(*c))
                    .collect(),
            );
        }
    }
    found.retain(|p| !p.is_empty());
    found
}

fn first_segment(path: &str) -> &str {
    path.split("::").next().unwrap()
}

/// Whether `word` stands in the code as a word of its own.
fn mentions(code: &str, word: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| {
        !code[..at].chars().next_back().is_some_and(is_word)
            && !code[at + word.len()..].chars().next().is_some_and(is_word)
    })
}

/// Whether the code has a path that begins with this crate.
fn names_crate(code: &str, name: &str) -> bool {
    code.match_indices(&format!("{name}::")).any(|(at, _)| {
        !code[..at]
            .chars()
            .next_back()
            .is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
    })
}

/// Functions of a crate that the code names: paths without a capital.
fn calls_of(code: &str, name: &str) -> Vec<String> {
    let path = format!("{name}::");
    code.match_indices(&path)
        .map(|(at, _)| {
            let is_path = |c: char| c.is_alphanumeric() || "_:{".contains(c);
            code[at..]
                .chars()
                .take_while(|c| is_path(*c))
                .collect::<String>()
        })
        .filter(|path| !path.contains(|c: char| c.is_uppercase()))
        .collect()
}

#[test]
fn folders_use_only_what_the_table_allows() {
    let mut wrong = Vec::new();
    for source in sources() {
        let folder = source.folder();
        let (_, allowed) = MAY_USE
            .iter()
            .find(|(name, _)| *name == folder)
            .unwrap_or_else(|| panic!("src/{folder} is not in the table"));
        for path in crate_paths(&source.code) {
            let used = first_segment(&path);
            let is_folder = MAY_USE.iter().any(|(name, _)| *name == used);
            if is_folder && used != folder && !allowed.contains(&used) {
                wrong.push(format!("src/{} uses {used}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn folders_of_the_engine_keep_to_their_rights() {
    let mut wrong = Vec::new();
    for source in sources() {
        for (folder, forbidden) in OVERLAY_MUST_NOT_USE {
            if !source.path.starts_with(Path::new("overlay").join(folder)) {
                continue;
            }
            let paths = crate_paths(&source.code);
            for path in &paths {
                if forbidden.iter().any(|f| path.starts_with(f)) {
                    wrong.push(format!("src/{} uses {path}", source.path.display()));
                }
            }
            let sys_beyond_names = paths
                .iter()
                .any(|p| p.starts_with("sys") && !VALUES.iter().any(|v| p.starts_with(v)));
            if *folder == "decide" && sys_beyond_names {
                wrong.push(format!(
                    "src/{} decides, and so may not ask the system",
                    source.path.display()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_outside_crate_stays_in_its_folder() {
    let mut wrong = Vec::new();
    for source in sources() {
        for (name, folders) in CRATE_BELONGS_TO {
            let used = names_crate(&source.code, name);
            if used && !folders.contains(&source.folder().as_str()) {
                wrong.push(format!("src/{} names {name}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_sys_makes_system_calls() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|s| s.folder() != "sys") {
        for name in SYSTEM_CALLS {
            for call in calls_of(&source.code, name) {
                wrong.push(format!("src/{} calls {call}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unsafe_code_is_in_sys_only() {
    let wrong: Vec<String> = sources()
        .iter()
        .filter(|s| s.folder() != "sys" && mentions(&s.code, "unsafe"))
        .map(|s| format!("src/{}", s.path.display()))
        .collect();
    assert!(
        wrong.is_empty(),
        "unsafe outside src/sys: {}",
        wrong.join(", ")
    );
}

#[test]
fn every_file_says_what_it_is_for() {
    let wrong: Vec<String> = sources()
        .iter()
        .filter(|s| !s.text.starts_with("//!"))
        .map(|s| format!("src/{}", s.path.display()))
        .collect();
    assert!(
        wrong.is_empty(),
        "no module docs at the top of: {}",
        wrong.join(", ")
    );
}

#[test]
fn files_keep_to_their_budget() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|s| !s.is_tests()) {
        let lines = without_tests(&source.text).lines().count();
        let path = source.path.to_str().unwrap();
        let budget = LONGER
            .iter()
            .find(|(p, ..)| *p == path)
            .map_or(FILE_BUDGET, |(_, b, _)| *b);
        if lines > budget {
            wrong.push(format!(
                "src/{path} has {lines} lines, its budget is {budget}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_scanner_finds_what_it_is_for() {
    let planted = "use crate::fuse::adapter; // crate::cli\nlet s = \"crate::app\"; crate::{idmap::Id, sys::{a, b}}";
    let code = without_comments_and_strings(planted);
    let used: Vec<String> = crate_paths(&code)
        .iter()
        .map(|p| first_segment(p).to_owned())
        .collect();
    assert_eq!(used, ["fuse", "idmap", "sys"]);
    assert!(names_crate("x: <libc::c_int>", "libc") && !names_crate("sys::libc::x", "libc"));
    assert_eq!(
        calls_of(
            "libc::S_ISUID; libc::open(x); use rustix::fs::{Mode, A};",
            "libc"
        ),
        ["libc::open"]
    );
    assert!(calls_of("use rustix::fs::{Mode, A};", "rustix").is_empty());
    assert!(mentions("an unsafe { block }", "unsafe"));
    assert!(!mentions("unsafe_code", "unsafe"));
    assert_eq!(
        without_comments_and_strings(r##"a r#"b " c"# '"' 'x' '\n' &'a d"##),
        "a     &'a d"
    );
}
