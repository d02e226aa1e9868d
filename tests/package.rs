//! What is handed out: the static program and the Debian package, made by `scripts/package` and tried in roots that are thrown
//! away (a copy-on-write view of this host's `/`, or a directory with busybox only).
//!
//! * `ACETATE_DEB`: a package to try instead of the one that `scripts/package` makes.

#![allow(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/mod.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::fs::{FlockOperation, flock};
use support::host::{require_program, skip};
use support::story::require_real_root;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The last line that `scripts/package` prints: the file it made. Cargo builds nothing anew that is fresh.
fn made(args: &[&str]) -> PathBuf {
    // Two tests at once would write the same file.
    let lock =
        std::fs::File::create(Path::new(env!("CARGO_TARGET_TMPDIR")).join("package.lock")).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    let out = Command::new(repository().join("scripts/package"))
        .args(args)
        // What cargo sets for tests is not for the build of another program.
        .env_remove("CARGO_MANIFEST_DIR")
        .output()
        .unwrap();
    assert!(out.status.success(), "scripts/package: {}", said(&out));
    let printed = String::from_utf8_lossy(&out.stdout).into_owned();
    PathBuf::from(printed.lines().last().unwrap())
}

fn the_deb() -> Option<PathBuf> {
    if let Some(given) = std::env::var_os("ACETATE_DEB") {
        return Some(given.into());
    }
    let has_cargo_deb = Command::new("cargo")
        .args(["deb", "--version"])
        .output()
        .is_ok_and(|o| o.status.success());
    if !has_cargo_deb {
        skip("neither ACETATE_DEB nor cargo-deb (cargo install cargo-deb --locked)");
        return None;
    }
    Some(made(&[]))
}

fn said(out: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    )
}

/// A bash script in a mount namespace of its own, ended with everything it mounted.
fn in_own_mounts(script: &str, place: &Path, argument: &Path) -> Output {
    Command::new("unshare")
        .args([
            "-m",
            "--propagation",
            "slave",
            "bash",
            "-euc",
            script,
            "bash",
        ])
        .arg(place)
        .arg(argument)
        .env("LC_ALL", "C")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .output()
        .unwrap()
}

/// `$1`: a directory for the upper layer; `$2`: the package. The script at the end runs in the root.
const THROW_AWAY_ROOT: &str = r#"
mount -t tmpfs none "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay none -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
cp "$2" "$1/root/acetate.deb"
cat >"$1/root/script"
mount --bind /dev "$1/root/dev"
mount -t proc none "$1/root/proc"
mount -t tmpfs none "$1/root/tmp"
# Its index of man pages is no part of this, and takes long.
rm -f "$1/root/var/lib/man-db/auto-update"
exec chroot "$1/root" /bin/bash -euo pipefail /script
"#;

/// Runs a script as root of a system like this one, without the package fuse-overlayfs.
fn in_a_system_like_this(deb: &Path, script: &str) -> String {
    use std::io::Write;
    let place = tempfile::tempdir().unwrap();
    let mut input = tempfile::tempfile().unwrap();
    write!(input, "{SHELL_WORDS}\n{script}\necho the end").unwrap();
    std::io::Seek::rewind(&mut input).unwrap();
    let out = Command::new("unshare")
        .args([
            "-m",
            "--propagation",
            "slave",
            "bash",
            "-euc",
            THROW_AWAY_ROOT,
            "bash",
        ])
        .arg(place.path())
        .arg(deb)
        .env("LC_ALL", "C")
        .env("HOME", "/root")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(input)
        .output()
        .unwrap();
    let text = said(&out);
    assert!(
        out.status.success() && text.contains("the end"),
        "{}: {text}",
        out.status
    );
    text
}

/// For the scripts: how to fail, another package with the names of Debian's fuse-overlayfs, two layers.
const SHELL_WORDS: &str = r#"
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
fail() { echo "FAILED: $*"; exit 1; }
says() { local text=$("${@:2}" 2>&1); case $text in *"$1"*) ;; *) fail "${*:2} says '$text', not '$1'" ;; esac; }
dpkg -s fuse-overlayfs >/dev/null 2>&1 && dpkg --force-depends --purge fuse-overlayfs >/dev/null
rm -f /usr/local/bin/fuse-overlayfs
make_other() {
    mkdir -p /tmp/other/DEBIAN /tmp/other/usr/bin /tmp/other/usr/share/man/man1
    printf 'Package: fuse-overlayfs\nVersion: 1.10-1\nArchitecture: all\nMaintainer: nobody <nobody@localhost>\nDescription: stands for the real one\n' >/tmp/other/DEBIAN/control
    printf '#!/bin/sh\necho the other one\n' >/tmp/other/usr/bin/fuse-overlayfs
    printf '.TH other 1\n' | gzip -n >/tmp/other/usr/share/man/man1/fuse-overlayfs.1.gz
    chmod 755 /tmp/other/usr/bin/fuse-overlayfs
    (cd /tmp/other && find usr -type f -exec md5sum {} + >DEBIAN/md5sums)
    dpkg-deb --build --root-owner-group /tmp/other /tmp/other.deb >/dev/null
}
make_layers() {
    mkdir -p /tmp/l/app /tmp/l/base /tmp/l/changes /tmp/l/work /tmp/l/m
    echo base >/tmp/l/base/f
    echo app >/tmp/l/app/g
}
options=lowerdir=/tmp/l/app:/tmp/l/base,upperdir=/tmp/l/changes,workdir=/tmp/l/work
"#;

fn possible() -> bool {
    require_real_root()
        && require_program("dpkg-deb")
        && require_program("update-alternatives")
        && require_program("unshare")
        && support::require_kernel_overlay()
}

#[test]
fn the_package_installs_works_and_is_gone_after_its_removal() {
    let Some(deb) = possible().then(the_deb).flatten() else {
        return;
    };
    in_a_system_like_this(
        &deb,
        r#"
        find /usr /etc -xdev | sort >/tmp/before
        dpkg -i /acetate.deb >/tmp/said 2>&1 || fail "$(cat /tmp/said)"
        ! grep -iE 'warning|error|fail' /tmp/said || fail "$(cat /tmp/said)"
        says acetate acetate --version
        says '(acetate)' fuse-overlayfs --version
        says acetate readlink -f /usr/bin/fuse-overlayfs /sbin/mount.acetate
        test -z "$(dpkg --verify acetate)" || fail "$(dpkg --verify acetate)"

        for page in $(dpkg -L acetate | grep /man/man.*gz); do
            gzip -t "$page"
            if command -v man >/dev/null; then
                warnings=$(man --warnings -l "$page" 2>&1 >/tmp/page)
                test -z "$warnings" && test -s /tmp/page || fail "$page: $warnings"
            fi
        done
        if command -v man >/dev/null; then
            says lowerdir man mount.acetate
            says lowerdir man fuse-overlayfs
            says ACETATE_LOG_FILE man acetate-mount
        fi
        says _acetate bash -c '. /usr/share/bash-completion/completions/acetate; complete -p acetate'
        says unmount bash -c '. /usr/share/bash-completion/completions/acetate; COMP_WORDS=(acetate un); COMP_CWORD=1; _acetate acetate un acetate; echo "${COMPREPLY[@]}"'
        ! command -v zsh >/dev/null || zsh -n /usr/share/zsh/vendor-completions/_acetate
        ! command -v fish >/dev/null || fish -n /usr/share/fish/vendor_completions.d/acetate.fish
        if command -v systemd-analyze >/dev/null; then
            cp /usr/share/doc/acetate/examples/srv-merged.mount /etc/systemd/system/
            systemd-analyze verify --man=no srv-merged.mount
            rm /etc/systemd/system/srv-merged.mount
        fi
        ! command -v findmnt >/dev/null || says '0 parse errors' findmnt --verify --tab-file /usr/share/doc/acetate/examples/fstab

        make_layers
        mount -t acetate -o "$options" none /tmp/l/m
        says 'fuse.acetate' grep ' /tmp/l/m ' /proc/mounts
        echo new >/tmp/l/m/f
        umount /tmp/l/m
        says new cat /tmp/l/changes/f
        says base cat /tmp/l/base/f
        echo "none /tmp/l/m acetate $options,nofail,x-systemd.automount 0 0" >>/etc/fstab
        mount /tmp/l/m
        says app cat /tmp/l/m/g
        fuse-overlayfs -o lowerdir=/tmp/l/app:/tmp/l/base /tmp/l/base
        says fuse.fuse-overlayfs grep ' /tmp/l/base ' /proc/mounts

        # Removed while it serves: what is mounted goes on.
        dpkg -r acetate >/tmp/said 2>&1 || fail "$(cat /tmp/said)"
        ! grep -iE 'warning|error|fail' /tmp/said || fail "$(cat /tmp/said)"
        says app cat /tmp/l/m/g
        umount /tmp/l/m /tmp/l/base
        dpkg --purge acetate
        find /usr /etc -xdev | sort >/tmp/after
        diff /tmp/before /tmp/after || fail "left behind, or lost"
        test -z "$(dpkg-divert --list | grep acetate)" || fail "$(dpkg-divert --list)"
        "#,
    );
}

#[test]
fn beside_the_package_fuse_overlayfs_it_goes_first_and_gives_the_name_back() {
    let Some(deb) = possible().then(the_deb).flatten() else {
        return;
    };
    in_a_system_like_this(
        &deb,
        r#"
        make_other
        dpkg -i /tmp/other.deb >/dev/null
        says 'the other one' fuse-overlayfs
        dpkg -i /acetate.deb >/dev/null
        says '(acetate)' fuse-overlayfs --version
        says 'the other one' fuse-overlayfs.distrib

        # The administrator's choice outlives an upgrade.
        update-alternatives --set fuse-overlayfs /usr/bin/fuse-overlayfs.distrib >/dev/null
        says 'the other one' fuse-overlayfs
        dpkg -i /acetate.deb >/dev/null
        says 'the other one' fuse-overlayfs
        update-alternatives --auto fuse-overlayfs >/dev/null
        says '(acetate)' fuse-overlayfs --version

        # The other comes and goes.
        dpkg -r fuse-overlayfs >/dev/null
        says '(acetate)' fuse-overlayfs --version
        ! update-alternatives --query fuse-overlayfs | grep distrib || fail "offers what is not there"
        dpkg -i /tmp/other.deb >/dev/null
        says '(acetate)' fuse-overlayfs --version
        update-alternatives --query fuse-overlayfs | grep -q 'Alternative: .*distrib' || fail "does not offer the other"

        dpkg --purge acetate >/dev/null
        says 'the other one' fuse-overlayfs
        test -z "$(dpkg --verify fuse-overlayfs)" || fail "$(dpkg --verify fuse-overlayfs)"
        test ! -L /usr/bin/fuse-overlayfs && test ! -e /etc/alternatives/fuse-overlayfs
        test ! -e /usr/bin/fuse-overlayfs.distrib && test ! -e /usr/share/man/man1/fuse-overlayfs.distrib.1.gz
        says other bash -c 'zcat /usr/share/man/man1/fuse-overlayfs.1.gz'

        # What it offers may be gone before it is removed.
        dpkg -i /acetate.deb >/dev/null
        update-alternatives --remove-all fuse-overlayfs
        dpkg -r acetate >/tmp/said 2>&1 || fail "$(cat /tmp/said)"
        says 'the other one' fuse-overlayfs

        # Both at once, and both away.
        dpkg -i /acetate.deb /tmp/other.deb >/dev/null
        says '(acetate)' fuse-overlayfs --version
        dpkg --purge fuse-overlayfs acetate >/dev/null
        test ! -e /usr/bin/fuse-overlayfs && test ! -L /usr/bin/fuse-overlayfs
        "#,
    );
}

/// `$1`: the root to be; `$2`: the program.
const BUSYBOX_ONLY: &str = r#"
mount -t tmpfs none "$1"
mkdir "$1/dev" "$1/proc" "$1/app" "$1/base" "$1/changes" "$1/work" "$1/m"
cp "$(command -v busybox)" "$1/busybox"
cp "$2" "$1/acetate"
mknod "$1/dev/fuse" c 10 229
mknod "$1/dev/null" c 1 3
mount -t proc none "$1/proc"
echo base >"$1/base/f"
trace=()
if command -v strace >/dev/null; then trace=(strace -f -qq -e trace=open,openat,openat2,execve -o "$1/trace"); fi
# strace ends with the last process it sees, and so after the unmount.
"${trace[@]}" chroot "$1" /acetate mount -o lowerdir=/app:/base,upperdir=/changes,workdir=/work /m &
for i in $(seq 500); do if chroot "$1" /busybox grep -q ' /merged /m ' /proc/self/mountinfo; then break; fi; sleep 0.02; done
chroot "$1" /busybox cat /m/f
chroot "$1" /busybox sh -c 'echo new >/m/f; /acetate unmount /m'
if ! wait $!; then echo "the mount failed"; fi
cat "$1/changes/f"
echo TRACE
if [ -e "$1/trace" ]; then cat "$1/trace"; fi
"#;

/// No userland is needed at all, so an old one is as good as a new one. What the kernel must be, the C library's start-up
/// says in the note that this reads.
#[test]
fn the_static_program_mounts_where_there_is_busybox_and_nothing_else() {
    if !(require_real_root() && require_program("busybox") && require_program("unshare")) {
        return;
    }
    let program = made(&["--static"]);
    let place = tempfile::tempdir().unwrap();
    let out = in_own_mounts(BUSYBOX_ONLY, place.path(), &program);
    let text = said(&out);
    let (results, trace) = text
        .split_once("TRACE\n")
        .unwrap_or_else(|| panic!("{text}"));
    assert!(out.status.success() && results == "base\nnew\n", "{text}");
    // What came before is chroot(1)'s own.
    let ours = trace
        .split_once("execve(\"/acetate\"")
        .map(|(_, ours)| ours);
    if ours.is_none() && require_program("strace") {
        panic!("it was not traced: {trace}");
    }
    let trace = ours.unwrap_or_default();
    for library in [
        "/lib",
        "/usr/lib",
        "ld.so",
        "nsswitch",
        "/etc/passwd",
        "gconv",
        "locale",
    ] {
        assert!(!trace.contains(library), "it looks for {library}: {trace}");
    }
}

#[test]
fn the_static_program_needs_no_interpreter_and_no_library() {
    let static_pie = Command::new("cc")
        .arg("--version")
        .output()
        .is_ok_and(|o| o.status.success());
    if !static_pie {
        skip("no C compiler to link with");
        return;
    }
    let elf = std::fs::read(made(&["--static"])).unwrap();
    let headers = program_headers(&elf);
    assert!(
        headers.iter().any(|(kind, _)| *kind == 1),
        "no program was read"
    );
    assert!(
        !headers.iter().any(|(kind, _)| *kind == 3),
        "PT_INTERP: it wants a loader"
    );
    let dynamic = headers.iter().find(|(kind, _)| *kind == 2);
    let entries = dynamic
        .map(|(_, bytes)| bytes.as_chunks::<16>().0)
        .unwrap_or_default();
    assert!(
        !entries.iter().any(|entry| word(entry, 0, 8) == 1),
        "DT_NEEDED: it wants a library"
    );
    // NT_GNU_ABI_TAG: Linux, and the oldest version that the start-up accepts.
    let tag = elf.windows(32).find_map(|w| {
        let is_tag = word(w, 0, 4) == 4
            && word(w, 4, 4) == 16
            && word(w, 8, 4) == 1
            && &w[12..16] == b"GNU\0";
        (is_tag && word(w, 16, 4) == 0).then(|| (word(w, 20, 4), word(w, 24, 4)))
    });
    let oldest = tag.unwrap();
    assert!(oldest <= (4, 18), "the C library wants Linux {oldest:?}");
}

/// A number of `size` bytes, the lowest first.
fn word(bytes: &[u8], at: usize, size: usize) -> u64 {
    bytes[at..at + size]
        .iter()
        .rev()
        .fold(0, |sum, b| sum << 8 | u64::from(*b))
}

/// The type and bytes of each segment of a 64-bit program.
fn program_headers(elf: &[u8]) -> Vec<(u64, &[u8])> {
    assert_eq!(&elf[..5], b"\x7fELF\x02");
    let usize_of = |at, size| usize::try_from(word(elf, at, size)).unwrap();
    let (start, size, count) = (usize_of(32, 8), usize_of(54, 2), usize_of(56, 2));
    (0..count)
        .map(|i| {
            let header = start + i * size;
            let (offset, length) = (usize_of(header + 8, 8), usize_of(header + 32, 8));
            (word(elf, header, 4), &elf[offset..offset + length])
        })
        .collect()
}

#[test]
fn the_packages_changelog_is_of_this_version() {
    let text = std::fs::read_to_string(repository().join("scripts/deb/changelog")).unwrap();
    let first = text.lines().next().unwrap();
    let wanted = format!("acetate ({}-1) ", env!("CARGO_PKG_VERSION"));
    assert!(first.starts_with(&wanted), "{first}");
}
