//! What the help texts and the man pages say, once: options, flags, exit codes,
//! environment, files. `--help` prints it, [`super::man`] sets it as pages.

/// Words to type and what they mean.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// As they are typed; several with commas between.
    pub words: &'static str,
    /// One paragraph.
    pub says: &'static str,
}

/// Short for the tables below.
const fn entry(words: &'static str, says: &'static str) -> Entry {
    Entry { words, says }
}

/// The words of `-o`.
pub const MOUNT_OPTIONS: &[Entry] = &[
    entry(
        "lowerdir=A:B:C",
        "layers to read, uppermost first; `\\:` for a colon in a path, `\\,` for a comma, `::` before layers \
         that only hold file data; `lowerdir+=A` and `datadir+=A` add one",
    ),
    entry(
        "upperdir=U,workdir=W",
        "where changes go; W is an empty directory on the same file system as U; without them the mount is read only",
    ),
    entry("ro", "read only although there is an upper layer"),
    entry(
        "uidmapping=D:S:N[:...]",
        "users D.. on disk are shown as S.., N of them",
    ),
    entry("gidmapping=D:S:N[:...]", "the same for groups"),
    entry(
        "squash_to_root, squash_to_uid=N, squash_to_gid=N",
        "every file is shown as belonging to this one",
    ),
    entry(
        "xattr_permissions=1|2",
        "owner, mode and type kept in an extended attribute: 1 security.fuseoverlayfs.override_stat, \
         2 user.containers.override_stat",
    ),
    entry(
        "volatile, fsync=0",
        "nothing is synced to disk: fast, and after a crash the upper layer may be damaged",
    ),
    entry(
        "timeout=SECONDS",
        "how long the kernel may keep names and attributes; default: for ever, as all changes pass through it",
    ),
    entry("threaded=0, max_threads=N", "one event loop, or N"),
    entry(
        "polling=off|auto|on",
        "look out for the next request a moment before sleeping; auto: while it is seen to pay; default: off",
    ),
    entry(
        "follow_client=off|auto|on|always",
        "answer a client that asks in a burst on the CPU that it runs on, while the machine has little else to do; default: auto, with CAP_SYS_NICE",
    ),
    entry("writeback", "the kernel collects small writes"),
    entry("noacl", "POSIX ACLs are neither enforced nor shown"),
    entry("static_nlink", "every directory has one link"),
    entry(
        "xino=off|auto|on, ino32_t",
        "how inode numbers are made of the layers' numbers",
    ),
    entry(
        "redirect_dir=on|off|follow|nofollow",
        "how renamed directories of lower layers are recorded",
    ),
    entry("metacopy=on", "chown, chmod and the like copy no file data"),
    entry(
        "index=off",
        "hard links of lower layers may come apart when one is written",
    ),
    entry(
        "userxattr",
        "marks are written as user.overlay.* even where trusted.overlay.* works",
    ),
    entry(
        "push_ahead=on",
        "read-only mounts: give the kernel the files that a client is likely to read next; if the process is \
         killed (SIGKILL) meanwhile, it may stay until its connection is aborted",
    ),
    entry(
        "passthrough=on",
        "the kernel reads and writes files of the upper layer, and of read-only mounts, by itself; each open and \
         close is a request then (root alone, Linux 6.9)",
    ),
    entry(
        "xattr_search=off",
        "read-only mounts: never say that extended attributes are not supported, even where no file has any",
    ),
    entry(
        "submounts=follow",
        "what is mounted below a lower layer's root is shown too; default: empty directories",
    ),
    entry(
        "fd_cache=N, dir_cache=N",
        "how many descriptors, and how many entries of merged directories, are kept",
    ),
    entry(
        "fence=off",
        "the serving process keeps all rights that it was given",
    ),
    entry(
        "kernel_features=4.18, kernel_features=-openat2:-statx",
        "do without what that kernel lacks, or without these (for tests, and to get around faults of a kernel)",
    ),
    entry(
        "nosuid, nodev, noexec, noatime, ...",
        "as for mount(8); its other words, and those of libfuse and of kernel overlayfs that ask nothing of us, \
         are accepted in silence",
    ),
];

/// What stands before the mount point, for `fuse-overlayfs`.
pub const OVERLAY_FLAGS: &[Entry] = &[
    entry("-o OPTIONS", "see MOUNT OPTIONS; may be repeated"),
    entry("-f, --foreground", "stay in the foreground"),
    entry(
        "-d, --debug",
        "log every request to stderr; stays in the foreground",
    ),
    entry("-s", "one event loop, as threaded=0"),
    entry("-h, --help", "print a help text"),
    entry("-V, --version", "print the version"),
];

/// The same for `mount.acetate`, as mount(8) calls it.
pub const HELPER_FLAGS: &[Entry] = &[
    entry("-o OPTIONS", "see MOUNT OPTIONS; may be repeated"),
    entry("-f", "check the words, mount nothing"),
    entry("-N NAMESPACE", "the mount namespace to mount in, a file"),
    entry("-s, -n, -v, -t TYPE", "accepted, and ask nothing of us"),
    entry("-h, -V", "print a help text, print the version"),
];

/// Exit codes of our own commands.
pub const OWN_CODES: &[Entry] = &[
    entry("0", "done"),
    entry("1", "failed"),
    entry("2", "the command line is wrong"),
    entry(
        "3",
        "there is no such mount, layer, workspace, store or path",
    ),
    entry("4", "it is in use"),
    entry("5", "it exists already"),
    entry("6", "data is not what its digest or its record says"),
    entry("7", "what lies below was changed in the meantime"),
    entry("32", "the mount failed"),
];

/// Exit codes of `acetate run` and `acetate try` beside those of the command.
pub const JOB_CODES: &[Entry] = &[
    entry("0 to 124", "the command's own"),
    entry(
        "125",
        "acetate failed: the command was not run, or what was to follow it went wrong; stderr says what",
    ),
    entry("126", "the command cannot be run"),
    entry("127", "there is no such command in the tree"),
    entry("128+N", "signal N ended the command"),
    entry("2", "also where acetate's command line is wrong"),
];

/// Exit codes of `fuse-overlayfs` and `mount.acetate`: those of mount(8).
pub const MOUNT_CODES: &[Entry] = &[
    entry("0", "done"),
    entry("1", "the command line is wrong"),
    entry("32", "the mount failed"),
];

/// Environment variables.
pub const ENVIRONMENT: &[Entry] = &[
    entry("ACETATE_ROOT", "the store, where --root names none"),
    entry(
        "ACETATE_LOG_FILE",
        "the file to log to; without it a process in the background logs nothing, one in the foreground logs to stderr",
    ),
    entry(
        "ACETATE_LOG",
        "what to log: error, warn (the default), info, debug, or a filter such as acetate=debug,fuser=warn",
    ),
    entry(
        "ACETATE_KERNEL_FEATURES",
        "as kernel_features=, for every mount",
    ),
    entry(
        "NOTIFY_SOCKET",
        "set by systemd: with -f, READY=1 is sent there when the mount serves",
    ),
    entry(
        "PATH",
        "where fusermount3 is looked for first, if the user may not mount",
    ),
];

/// Files.
pub const FILES: &[Entry] = &[
    entry(
        "/dev/fuse",
        "must be readable and writable for whoever mounts; a container needs `--device /dev/fuse`",
    ),
    entry(
        "/etc/fuse.conf",
        "with a line user_allow_other the mounts of ordinary users are open to others",
    ),
    entry(
        "/usr/bin/fusermount3",
        "mounts for ordinary users (package fuse3)",
    ),
    entry(
        "/usr/bin/fuse-overlayfs",
        "this program under the name that podman, buildah and docker look for; chosen by update-alternatives(1)",
    ),
    entry(
        "/usr/sbin/mount.acetate",
        "this program as mount(8) calls it, for lines of type acetate in /etc/fstab",
    ),
];

/// Under `acetate --help`, behind the examples.
const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 failed, 2 wrong command line, 3 not found or not mounted,
4 in use, 5 exists already, 6 data damaged, 32 the mount failed.";

/// Examples of the whole program.
pub const EXAMPLES: &str = "\
  A writable tree over two layers:
    acetate mount -o lowerdir=app:base,upperdir=changes,workdir=work merged
  The same, read only:
    acetate mount --lower app --lower base merged
  The end of it:
    acetate unmount merged
  For podman, in storage.conf:
    [storage.options.overlay]
    mount_program = \"/usr/bin/fuse-overlayfs\"    # a symlink to acetate
";

/// Examples of `acetate mount`.
pub const MOUNT_EXAMPLE: &str = "\
  mkdir -p changes work merged
  acetate mount -o lowerdir=app:base,upperdir=changes,workdir=work merged
";

/// Under `acetate --help`.
pub fn program() -> String {
    format!("Examples:\n{EXAMPLES}\n{EXIT_CODES}")
}

/// Under `acetate mount --help`.
pub fn mount() -> String {
    format!("{}\nExample:\n{MOUNT_EXAMPLE}", option_list())
}

/// The list of the words of `-o`.
pub fn option_list() -> String {
    format!("Options for -o:\n{}", listed(MOUNT_OPTIONS))
}

/// A table as lines for a terminal.
pub fn listed(entries: &[Entry]) -> String {
    /// Where the second column begins, and where lines end.
    const COLUMN: usize = 24;
    const WIDTH: usize = 80;
    let mut text = String::new();
    for Entry { words, says } in entries {
        let mut line = format!("  {words}");
        if line.chars().count() + 2 > COLUMN {
            line.push('\n');
            text.push_str(&line);
            line.clear();
        }
        for word in says.split_whitespace() {
            let used = line.chars().count();
            if used <= COLUMN {
                line.extend(std::iter::repeat_n(' ', COLUMN - used));
            } else if used + 1 + word.chars().count() > WIDTH {
                text.push_str(&line);
                text.push('\n');
                line = " ".repeat(COLUMN);
            } else {
                line.push(' ');
            }
            line.push_str(word);
        }
        line.push('\n');
        text.push_str(&line);
    }
    text
}

/// Under `acetate layer --help`.
pub const LAYER: &str = "\
Example:
  acetate layer create base /srv/tree
  acetate ws create job -l base
  touch \"$(acetate ws path job)/made-by-the-job\"
  acetate layer commit job result
  acetate layer diff result";

/// Under `acetate ws --help`.
pub const WS: &str = "\
Example:
  acetate ws create job -l base -m /mnt
  acetate ws diff job
  acetate ws unmount job
  acetate ws rm job
Where nothing can be mounted, a plain tree does the same:
  acetate ws create job --copy -l base
  touch \"$(acetate ws path job)/made-by-the-job\"
  acetate layer commit job result";

/// Under `acetate stats --help`.
pub const STATS: &str = "\
Counted since the mount was made. P50 and P99 are the times that half, and 99 of
100 requests, did not exceed (at most a quarter too high); the time of a request is
that in the serving process, its answer included. Only root and the user whose
process serves the mount may ask.

Examples:
  acetate stats merged
  acetate stats merged --watch
  acetate stats merged --format openmetrics >/var/lib/node_exporter/merged.prom";

/// What `acetate run` does, behind its options.
const RUN: &str = "\
The command sees the tree as /, with a /proc, /dev and /tmp of its own and the host's /sys, read only; what it puts
into /tmp is gone afterwards. The network is the host's. It is in a PID namespace: when it ends, or acetate is
killed, everything that it has started ends too. An ordinary user is root in there, over files of one's own;
where layers keep the owners of an archive, subordinate ids (/etc/subuid) are other users.
The mount is seen by nobody else. SIGINT, SIGTERM, SIGHUP and SIGQUIT are passed on.
Where the tree cannot be mounted the command is not run.
";

/// What `acetate try` does, behind its options.
const TRY: &str = "\
The view lies over the directory itself and is seen by the command alone: paths lead where they did. What is
mounted below the directory is not part of the view; for / the host's /dev and /sys are put in, and a /proc
and a /dev/shm of the command's own. The store is an empty directory in there. Files outside of the directory are the real ones, and so
is what the command had open before. The list of changes goes to stderr; stdout is the command's.
Where the view cannot be had the command is not run.
";

/// Under `acetate ws apply --help`.
pub const APPLY: &str = "\
Whatever was changed in the directory since the workspace was made, and is
changed in the workspace too, is a conflict: all are listed, and nothing is done.
A file is written beside its place and renamed into it. If this is cut off, the
next `ws apply` of the workspace goes on where it ended.

Example:
  acetate try --name job -- make install
  acetate ws apply job /bin --dry-run
  acetate ws apply job";

/// Examples of `acetate run`.
pub const RUN_EXAMPLE: &str = "\
  acetate run --chain debian --name build -- make -C /src
  acetate run -w build --bind \"$PWD\":/out -- cp /src/program /out
  acetate run --chain debian --rm --commit with-vim -- apt-get install -y vim
";

/// Examples of `acetate try`.
pub const TRY_EXAMPLE: &str = "\
  acetate try --name upgrade -- ./upgrade.sh
  acetate ws diff upgrade
  acetate ws apply upgrade
";

/// Under `acetate run --help`.
pub fn run() -> String {
    job(RUN, RUN_EXAMPLE)
}

/// Under `acetate try --help`.
pub fn attempt() -> String {
    job(TRY, TRY_EXAMPLE)
}

fn job(what: &str, example: &str) -> String {
    let codes = listed(JOB_CODES);
    format!("{what}\nExit codes:\n{codes}\nExamples:\n{example}")
}

/// The same for the man pages: paragraphs.
pub fn of_job(page: &str) -> Option<(&'static str, &'static str)> {
    match page {
        "acetate-run" => Some((RUN, RUN_EXAMPLE)),
        "acetate-try" => Some((TRY, TRY_EXAMPLE)),
        _ => None,
    }
}

/// Under `acetate doctor --help`.
pub const DOCTOR: &str = "\
Marks: ✓ as it should be, ! works with less, ✗ missing, - does not matter here.
Exit code 0 where a mount is possible, 1 where not. Nothing is left behind.

Example:
  acetate doctor /var/lib/containers";
