//! What the lower layers hold. Every part is made once, on the disk, and only where a row asks for it.
//!
//! `material/root/base/PART` is root's, `material/user/base/PART` the same owned by uid 1000.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::host::{Outcome, Trouble, doing, run};

/// How much of everything there is.
#[derive(Debug, Clone, Copy)]
pub struct Amounts {
    /// Files of the tree that is only read, and of the archive.
    pub tree: u64,
    /// Operations of a loop over new names.
    pub names: u64,
    /// Operations of a loop over one hot object.
    pub hot: u64,
    /// Files of the npm-like tree.
    pub npm: u64,
    /// Lower files that are copied up one by one.
    pub copy_up: u64,
    /// Lower files that change their owner.
    pub owned: u64,
    /// MiB of the file that is copied up by one byte.
    pub big: u64,
    /// MiB of the file that is read and written.
    pub data: u64,
    /// Source files that are compiled.
    pub sources: u64,
    /// Transactions of a database.
    pub transactions: u64,
}

impl Amounts {
    /// What a run of minutes can bear, or what the documents say.
    pub fn new(quick: bool) -> Amounts {
        if quick {
            Amounts {
                tree: 2_000,
                names: 300,
                hot: 3_000,
                npm: 2_000,
                copy_up: 300,
                owned: 1_000,
                big: 64,
                data: 32,
                sources: 6,
                transactions: 30,
            }
        } else {
            Amounts {
                tree: 30_000,
                names: 5_000,
                hot: 50_000,
                npm: 30_000,
                copy_up: 10_000,
                owned: 50_000,
                big: 1024,
                data: 512,
                sources: 60,
                transactions: 500,
            }
        }
    }
}

/// A part of the lower layer: a directory of this name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Files of some KiB in directories of 40; read only.
    Tree,
    /// An open directory with some files, to change things in.
    Work,
    /// A git repository with two commits.
    Git,
    /// A small C project.
    C,
    /// Small files to be copied up.
    Many,
    /// Small files to be owned by another.
    Owned,
    /// One file, to be copied up by one byte.
    Big,
    /// One file, to be read.
    Data,
    /// An archive of [`Part::Tree`].
    Archive,
    /// A Debian root with packages in `/debs`.
    Debian,
}

impl Part {
    /// Its directory's name.
    pub fn name(self) -> &'static str {
        match self {
            Part::Tree => "tree",
            Part::Work => "w",
            Part::Git => "git",
            Part::C => "c",
            Part::Many => "many",
            Part::Owned => "owned",
            Part::Big => "big",
            Part::Data => "data",
            Part::Archive => "archive",
            Part::Debian => "debian",
        }
    }

    fn make(self, at: &Path, n: &Amounts) -> Outcome<()> {
        match self {
            Part::Tree => files(at, n.tree, Sizes::Source),
            Part::Work => {
                files_in(at, n.names, Sizes::Small)?;
                everybody_may_write(at)
            }
            Part::Git => repository(at, n.tree / 4),
            Part::C => project(at, n.sources),
            Part::Many => {
                files(at, n.copy_up, Sizes::Source)?;
                run(Command::new("chmod").args(["-R", "a+rwX"]).arg(at))
            }
            Part::Owned => files(at, n.owned, Sizes::Small),
            Part::Big => {
                fill(&at.join("file"), n.big)?;
                run(Command::new("chmod").args(["-R", "a+rwX"]).arg(at))
            }
            Part::Data => fill(&at.join("file"), n.data),
            Part::Archive => archive(at, n),
            Part::Debian => debian(at),
        }
    }
}

/// Where the trees of a way are.
pub fn of_owner(material: &Path, users: bool) -> PathBuf {
    material.join(if users { "user" } else { "root" })
}

/// Makes what is missing of these parts; a part that cannot be made is an empty directory with the reason in `SKIPPED`.
pub fn make(material: &Path, parts: &[Part], lowers: u32, quick: bool, users: bool) -> Outcome<()> {
    let n = Amounts::new(quick);
    let base = of_owner(material, false).join("base");
    for part in parts {
        let at = base.join(part.name());
        if at.exists() {
            continue;
        }
        fs::create_dir_all(&at)?;
        match part.make(&at, &n) {
            Err(Trouble::Skipped(why)) => fs::write(at.join("SKIPPED"), why)?,
            made => made?,
        }
    }
    for i in 0..lowers {
        let layer = of_owner(material, false).join(format!("above{i}"));
        fs::create_dir_all(&layer)?;
        fs::write(layer.join(format!("layer{i}")), "x")?;
    }
    if users {
        let theirs = of_owner(material, true);
        run(Command::new("cp")
            .args(["-a", "-T"])
            .arg(of_owner(material, false))
            .arg(&theirs))?;
        run(Command::new("chown").args(["-R", "1000:1000"]).arg(&theirs))?;
    }
    Ok(())
}

/// 500 small layers, for the rows that mount them.
pub fn many_layers(material: &Path, count: u64) -> Outcome<()> {
    for i in 0..count {
        let dir = material.join(format!("layers/l{i:03}/d"));
        fs::create_dir_all(&dir)?;
        fs::write(dir.join(format!("f{i}")), "x")?;
    }
    Ok(())
}

/// How long files are.
#[derive(Debug, Clone, Copy)]
pub enum Sizes {
    /// Some bytes.
    Small,
    /// 200 bytes to 16 KiB, as sources are.
    Source,
}

impl Sizes {
    fn of(self, i: u64) -> usize {
        match self {
            Sizes::Small => 32,
            Sizes::Source => {
                200 + usize::try_from(i.wrapping_mul(2_654_435_761) % 16_000).unwrap_or(0)
            }
        }
    }
}

/// `count` files in directories of 40, ten directories in one.
pub fn files(at: &Path, count: u64, sizes: Sizes) -> Outcome<()> {
    let text = text();
    for i in 0..count {
        let dir = at.join(format!("a{}/b{}", i / 400, i / 40));
        if i % 40 == 0 {
            fs::create_dir_all(&dir)?;
        }
        let bytes = text.get(..sizes.of(i)).unwrap_or(&text);
        doing("make a tree", fs::write(dir.join(format!("f{i}.c")), bytes))?;
    }
    Ok(())
}

/// `count` files in one directory.
pub fn files_in(at: &Path, count: u64, sizes: Sizes) -> Outcome<()> {
    let text = text();
    fs::create_dir_all(at)?;
    for i in 0..count {
        let bytes = text.get(..sizes.of(i)).unwrap_or(&text);
        doing(
            "make a directory's files",
            fs::write(at.join(format!("f{i}")), bytes),
        )?;
    }
    Ok(())
}

fn text() -> Vec<u8> {
    b"/* a line of a source file, neither long nor short */\n"
        .iter()
        .copied()
        .cycle()
        .take(16_384)
        .collect()
}

fn everybody_may_write(dir: &Path) -> Outcome<()> {
    run(Command::new("chmod").args(["-R", "a+rw"]).arg(dir))?;
    Ok(fs::set_permissions(dir, fs::Permissions::from_mode(0o777))?)
}

/// A file without holes whose blocks differ.
fn fill(path: &Path, mebibytes: u64) -> Outcome<()> {
    let mut file = fs::File::create(path)?;
    let mut block = vec![0_u8; 1 << 20];
    for i in 0..mebibytes {
        for (at, byte) in block.iter_mut().enumerate().step_by(512) {
            *byte = u8::try_from((at as u64 / 512 + i) % 255).unwrap_or(0) + 1;
        }
        doing("fill a file", file.write_all(&block))?;
    }
    Ok(file.sync_all()?)
}

/// git without the settings of whoever runs this.
pub fn git(dir: &Path) -> Command {
    let mut command = Command::new("git");
    command
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .env("GIT_OPTIONAL_LOCKS", "1")
        .args([
            "-c",
            "safe.directory=*",
            "-c",
            "user.name=a",
            "-c",
            "user.email=a@b",
            "-c",
            "gc.auto=0",
        ])
        .arg("-C")
        .arg(dir);
    command
}

fn repository(at: &Path, count: u64) -> Outcome<()> {
    files(at, count, Sizes::Source)?;
    run(git(at).args(["init", "-q", "-b", "one"]))?;
    run(git(at).args(["add", "-A"]))?;
    run(git(at).args(["commit", "-q", "-m", "one"]))?;
    run(git(at).args(["checkout", "-q", "-b", "two"]))?;
    for i in (0..count).step_by(5) {
        fs::write(
            at.join(format!("a{}/b{}/f{i}.c", i / 400, i / 40)),
            format!("another text {i}\n"),
        )?;
    }
    run(git(at).args(["commit", "-q", "-a", "-m", "two"]))?;
    run(git(at).args(["checkout", "-q", "one"]))?;
    run(Command::new("chmod").args(["-R", "a+rwX"]).arg(at))
}

fn project(at: &Path, sources: u64) -> Outcome<()> {
    let mut objects = String::new();
    for i in 0..sources {
        let functions: String = (0..40)
            .map(|f| format!("int f{i}_{f}(int a, const char *s) {{ int n = {f}; while (*s) n += *s++ * a; return n; }}\n"))
            .collect();
        let includes =
            "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include \"all.h\"\n";
        fs::write(at.join(format!("s{i}.c")), format!("{includes}{functions}"))?;
        objects.push_str(&format!(" s{i}.o"));
    }
    fs::write(at.join("all.h"), "#pragma once\n#define ALL 1\n")?;
    fs::write(at.join("main.c"), "int main(void) { return 0; }\n")?;
    let rules =
        format!("p: main.o{objects}\n\t$(CC) -o $@ $^\n%.o: %.c all.h\n\t$(CC) -O0 -c -o $@ $<\n");
    fs::write(at.join("Makefile"), rules)?;
    fs::set_permissions(at, fs::Permissions::from_mode(0o777))?;
    Ok(())
}

fn archive(at: &Path, n: &Amounts) -> Outcome<()> {
    let aside = at.join("tree");
    files(&aside, n.tree, Sizes::Source)?;
    run(Command::new("tar")
        .arg("-C")
        .arg(at)
        .arg("-cf")
        .arg(at.join("tree.tar"))
        .arg("tree"))?;
    Ok(fs::remove_dir_all(aside)?)
}

fn debian(at: &Path) -> Outcome<()> {
    let Some(root) = std::env::var_os("ACETATE_DEBIAN_ROOT")
        .map(PathBuf::from)
        .filter(|r| r.join("debs").is_dir())
    else {
        let why = "no Debian root: $ACETATE_DEBIAN_ROOT names none with packages in /debs (scripts/compare --debian makes one)";
        return Err(Trouble::Skipped(why.into()));
    };
    run(Command::new("cp").args(["-a", "-T"]).arg(root).arg(at))
}
