//! A store for the length of a test.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use super::support::mount::acetate_bin;

/// What a command answered.
#[derive(Debug)]
pub struct Answer {
    /// Exit code; 128 and more for a signal.
    pub code: i32,
    /// stdout.
    pub out: String,
    /// stderr.
    pub err: String,
}

impl Answer {
    pub fn of(output: &Output) -> Answer {
        use std::os::unix::process::ExitStatusExt;
        let signal = output.status.signal().unwrap_or(0);
        Answer {
            code: output.status.code().unwrap_or(128 + signal),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// A store and a directory beside it.
#[derive(Debug)]
pub struct Shop {
    temp: TempDir,
}

impl Shop {
    /// A fresh store.
    pub fn new() -> Shop {
        let shop = Shop::bare();
        shop.ok(&["init"]);
        shop
    }

    /// A fresh store in memory, where there is a file system for that.
    pub fn in_memory() -> Shop {
        let memory = Path::new("/dev/shm");
        let shop = match memory.is_dir() {
            true => Shop::below(memory),
            false => Shop::bare(),
        };
        shop.ok(&["init"]);
        shop
    }

    /// A directory for a store that is not made yet.
    pub fn bare() -> Shop {
        thread_local! {
            static ONCE: std::cell::OnceCell<()> = const { std::cell::OnceCell::new() };
        }
        // Other tests make mount namespaces: copies of our mounts in them would keep
        // our daemons from ending.
        ONCE.with(|once| *once.get_or_init(super::support::host::own_mounts));
        let base =
            std::env::var_os("ACETATE_TEST_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
        Shop::below(&base)
    }

    fn below(base: &Path) -> Shop {
        let temp = tempfile::Builder::new()
            .prefix("acetate-store-")
            .tempdir_in(base)
            .unwrap();
        Shop { temp }
    }

    /// Where the store is.
    pub fn root(&self) -> PathBuf {
        self.temp.path().join("store")
    }

    /// A path beside the store.
    pub fn at(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    /// The program, told of this store.
    pub fn command(&self) -> Command {
        let mut command = Command::new(acetate_bin());
        command
            .arg("--root")
            .arg(self.root())
            .stdin(Stdio::null())
            .current_dir(self.temp.path());
        command
    }

    /// Runs it.
    pub fn run<S: AsRef<OsStr>>(&self, words: &[S]) -> Answer {
        Answer::of(&self.command().args(words).output().unwrap())
    }

    /// Runs it; it must succeed. What it printed, without the last newline.
    pub fn ok<S: AsRef<OsStr> + std::fmt::Debug>(&self, words: &[S]) -> String {
        let answer = self.run(words);
        assert_eq!(answer.code, 0, "{words:?}: {answer:?}");
        answer.out.trim_end_matches('\n').to_owned()
    }

    /// Runs it; it must fail with this code and say this.
    pub fn fails<S: AsRef<OsStr> + std::fmt::Debug>(&self, code: i32, says: &str, words: &[S]) {
        let answer = self.run(words);
        assert_eq!(answer.code, code, "{words:?}: {answer:?}");
        assert!(
            answer.err.contains(says),
            "{words:?} should say {says:?}: {answer:?}"
        );
        assert!(answer.out.is_empty(), "{words:?} printed {:?}", answer.out);
    }

    /// What it prints as JSON.
    pub fn json(&self, words: &[&str]) -> serde_json::Value {
        let words = [words, &["--format", "json"]].concat();
        serde_json::from_str(&self.ok(&words)).unwrap()
    }

    /// What it says as JSON where it fails.
    pub fn json_error(&self, words: &[&str]) -> serde_json::Value {
        let answer = self.run(&[words, &["--format", "json"]].concat());
        assert_ne!(answer.code, 0, "{words:?}: {answer:?}");
        serde_json::from_str(&answer.err).unwrap()
    }

    /// A directory with files: `a`, its hard link `b`, a symlink, a directory.
    pub fn tree(&self, name: &str) -> PathBuf {
        let tree = self.at(name);
        std::fs::create_dir_all(tree.join("dir/deep")).unwrap();
        std::fs::write(tree.join("a"), format!("{name} a\n")).unwrap();
        std::fs::hard_link(tree.join("a"), tree.join("b")).unwrap();
        std::fs::write(tree.join("dir/file"), "file\n").unwrap();
        std::fs::write(tree.join("dir/deep/other"), "other\n").unwrap();
        std::os::unix::fs::symlink("dir/file", tree.join("link")).unwrap();
        tree
    }

    /// A layer of such a directory.
    pub fn layer(&self, name: &str) {
        let tree = self.tree(&format!("{name}.tree"));
        self.ok(&["layer", "create", name, tree.to_str().unwrap()]);
    }

    /// A mounted workspace; where.
    pub fn workspace(&self, name: &str, layers: &[&str]) -> PathBuf {
        let mut words = vec!["ws", "create", name];
        layers.iter().for_each(|l| words.extend(["-l", l]));
        self.ok(&words);
        PathBuf::from(self.ok(&["ws", "path", name]))
    }

    /// fsck finds nothing, digests included.
    pub fn is_sound(&self) {
        let found = self.run(&["fsck", "--digests"]);
        assert_eq!((found.code, found.out.as_str()), (0, ""), "{found:?}");
    }

    /// A path in the store.
    pub fn inside(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        let listed = self.run(&["ws", "list", "-q"]);
        for name in listed.out.lines() {
            let _best_effort = self.run(&["ws", "rm", "-f", name]);
        }
    }
}

/// A file's text.
pub fn text(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}
