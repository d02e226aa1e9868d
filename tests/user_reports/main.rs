//! What users reported about other overlay filesystems, sections A to G, I, J and L of the list in the project's
//! design notes, each a test that tells its story. The id in a doc comment names the report
//! (F = containers/fuse-overlayfs, P = podman, MM = moby, …). Rows that hold by design, or are a wish, are named at
//! the end of their section's file with the reason why no test stands there.

#![allow(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../support/mod.rs"]
mod support;

mod data;
mod data_limits;
mod hangs;
mod lifecycle;
mod links;
mod metadata;
mod metadata_kinds;
mod nested;
mod ownership;
mod rename;
mod rename_listing;
mod unions;
mod whiteouts;
mod whiteouts_matrix;

/// Stories that a user namespace with one id cannot tell, and what it lacks.
const NOT_IN_A_USER_NAMESPACE: [(&str, &[&str]); 5] = [
    (
        "other ids",
        &[
            "f399_",
            "f42_",
            "litebox1195_",
            "wasmer5445_",
            "agentfs203_",
            "f126_",
            "f127_",
            "f304_",
            "f204_",
            "f363_",
            "f384_",
            "f352_",
            "f466_",
            "f135_",
            "f99_",
            "f382_",
            "f299_",
            "f241_",
            "f380_",
            "mf886_",
            "try194_",
            "p22002_",
            "an_acl_sets_the_mode",
            "a_chown_by_an_owner_outside",
            "b2084_a_descriptor_that_the_parent",
            "b867_",
            "f418_",
        ],
    ),
    ("device nodes", &["f22_", "f47_"]),
    (
        "trusted.* xattrs",
        &[
            "a_name_that_cannot_be_looked_up",
            "f136_",
            "f425_",
            "f76_",
            "hard_links_of_a_lower_stay_one_file_in_a_mount",
        ],
    ),
    (
        "kernel overlayfs with redirects and index",
        &["f306_", "libfuse834_"],
    ),
    ("an end", &["in_a_user_namespace"]),
];

/// Set-ups that a mount of ours refuses: whiteouts by hand.
const NOT_IN_A_MOUNT: [&str; 3] = ["f151_", "f93_", "f329_"];

/// The stories of deleted names, renames and links once more, with everything (layers, upper, work) inside a mount of ours, as in
/// a container in a container: no whiteouts by device or name there, no unnamed files, handles that mean nothing.
#[test]
fn in_a_mount_in_a_user_namespace_the_same_stories_hold() {
    if support::mount::is_peer(&support::mount::acetate_bin()) {
        return;
    }
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().display();
    let bin = support::mount::acetate_bin();
    // Unmounted at the end: a namespace does not end while a daemon is in it that serves a mount there.
    let outer_mount = format!(
        "mkdir '{folder}'/l '{folder}'/u '{folder}'/w; '{}' mount -o 'lowerdir={folder}/l,upperdir={folder}/u,workdir={folder}/w' /dev/shm; rc=0; \"$@\" || rc=$?; umount -l /dev/shm; exit $rc",
        bin.display()
    );
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(outer.path(), Some(1000), Some(1000)).unwrap();
    }
    let only = ["links::", "rename::", "whiteouts"];
    again_in_a_user_namespace(
        &["sh", "-euc", &outer_mount, "sh"],
        &only,
        &NOT_IN_A_MOUNT,
        15,
    );
}

/// The other stories again, as root of an ordinary user's namespace (`unshare -Urm`): no trusted xattrs there, so other
/// formats in the upper, no reference by the kernel, no private clones of the layers' mounts.
#[test]
fn in_a_user_namespace_the_same_stories_hold() {
    again_in_a_user_namespace(&[], &[], &[], 45);
}

fn again_in_a_user_namespace(before: &[&str], only: &[&str], without: &[&str], at_least: u32) {
    use support::host::{DevFuseOpen, in_initial_userns, require_program, require_userns};
    let programs = || require_program("setpriv") && require_program("unshare");
    if !(support::story::require_real_root()
        && in_initial_userns()
        && programs()
        && require_userns())
    {
        return;
    }
    let exe = std::env::current_exe().unwrap();
    let bin = support::mount::acetate_bin();
    let reachable = format!("test -x {} && test -x {}", exe.display(), bin.display());
    if !support::as_user(1000, reachable)
        .status()
        .unwrap()
        .success()
    {
        support::skip("an ordinary user cannot reach the program (a checkout below /root?)");
        return;
    }
    let Some(_open) = DevFuseOpen::new() else {
        return;
    };
    let mut command = std::process::Command::new("setpriv");
    command
        .args([
            "--reuid=1000",
            "--regid=1000",
            "--clear-groups",
            "--",
            "unshare",
            "-Urm",
        ])
        .args(before)
        .arg(exe)
        .args(["--test-threads", "2"])
        .args(only);
    for name in NOT_IN_A_USER_NAMESPACE
        .iter()
        .flat_map(|(_, names)| names.iter())
        .chain(without)
    {
        command.args(["--skip", name]);
    }
    let out = command
        .env("ACETATE_TEST_IN_USERNS", "1")
        .env("ACETATE_BIN", bin)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(
        out.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let passed = text.lines().find_map(|l| {
        l.strip_prefix("test result: ok. ")?
            .split(' ')
            .next()?
            .parse::<u32>()
            .ok()
    });
    assert!(
        passed.is_some_and(|n| n >= at_least),
        "too few stories ran: {text}"
    );
}
