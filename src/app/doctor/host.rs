//! The device, the programs, the sysctls, the files in /etc, the limits.

use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::{Check, trial};
use crate::sys::fence::paths::{Paths, Programs};
use crate::sys::fence::{self, Outcome, calls};
use crate::sys::mount::reason;
use crate::sys::{fusermount, mount, probe, process};

/// Everything that explains how the trial mounts will go.
pub(super) fn before_trials() -> Vec<Check> {
    let mut checks = vec![kernel(), device(), program(), allow_other(), namespaces()];
    checks.push(subordinate_ids());
    checks.push(mapper());
    checks
}

fn first_line(path: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    text.lines().next().map(|l| l.trim().to_owned())
}

fn kernel() -> Check {
    const NAME: &str = "kernel";
    const OLDEST: (u32, u32) = (4, 18);
    let release = process::kernel_release();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    let version = match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
        _ => return Check::ok(NAME, format!("Linux {release}")),
    };
    if version < OLDEST {
        return Check::limited(
            NAME,
            format!("Linux {release}"),
            "nothing before Linux 4.18 is tried out: use a newer kernel",
        );
    }
    Check::ok(NAME, format!("Linux {release}"))
}

const PASS_DEVICE: &str =
    "load the module with `modprobe fuse`; in a container, pass the device: --device /dev/fuse";

fn device() -> Check {
    const NAME: &str = "dev_fuse";
    let path = Path::new("/dev/fuse");
    let meta = match path.metadata() {
        Ok(meta) => meta,
        Err(e) if e.kind() == ErrorKind::NotFound => {
            return Check::missing(NAME, "there is no /dev/fuse", PASS_DEVICE);
        }
        Err(e) => return Check::missing(NAME, format!("/dev/fuse: {e}"), PASS_DEVICE),
    };
    let mode = meta.permissions().mode() & 0o7777;
    let shown = format!("mode {mode:04o}, group {}", meta.gid());
    if !meta.file_type().is_char_device()
        || mount::numbers_of_device(meta.rdev()) != mount::FUSE_DEVICE
    {
        return Check::missing(
            NAME,
            "/dev/fuse is there, but is not the FUSE device",
            "make it anew: rm /dev/fuse && mknod -m 0666 /dev/fuse c 10 229",
        );
    }
    match trial::open_device() {
        Ok(()) => Check::ok(NAME, format!("{shown}, opens")),
        Err(mount::Errno::EACCES | mount::Errno::EPERM) => Check::missing(
            NAME,
            format!("{shown}: you may not open it"),
            "as root: chmod 0666 /dev/fuse, or put the user into its group; in a container, allow the device: \
             --device /dev/fuse",
        ),
        Err(e) => Check::missing(NAME, format!("{shown}: {}", reason(e)), PASS_DEVICE),
    }
}

/// Whether a program gains rights when an ordinary user runs it.
fn gains_rights(program: &Path) -> bool {
    let setuid = program
        .metadata()
        .is_ok_and(|m| m.uid() == 0 && m.permissions().mode() & 0o4000 != 0);
    setuid || probe::has_capabilities(program)
}

fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

fn program() -> Check {
    const NAME: &str = "fusermount3";
    let found = match fusermount::find() {
        Some(found) => found,
        None if process::may_mount() => {
            return Check::unneeded(NAME, "not found; only ordinary users need it");
        }
        None => return Check::missing(NAME, "not found", "install the package fuse3"),
    };
    let shown = found.display().to_string();
    if gains_rights(&found) {
        Check::ok(NAME, format!("{shown}, setuid root"))
    } else if process::may_mount() {
        Check::unneeded(
            NAME,
            format!("{shown}, not setuid; only ordinary users need it"),
        )
    } else {
        let remedy = format!("as root: chown root {shown} && chmod u+s {shown}");
        Check::missing(NAME, format!("{shown} is not setuid root"), remedy)
    }
}

fn allow_other() -> Check {
    const NAME: &str = "user_allow_other";
    if fusermount::others_are_allowed() {
        Check::ok(NAME, "/etc/fuse.conf says so: others may look into mounts")
    } else if process::may_mount() {
        Check::unneeded(NAME, "not in /etc/fuse.conf; only ordinary users need it")
    } else {
        Check::limited(
            NAME,
            "not in /etc/fuse.conf: what fusermount3 mounts for you only you can see, not even root",
            "if others are to see it, as root: echo user_allow_other >>/etc/fuse.conf",
        )
    }
}

fn namespaces() -> Check {
    const NAME: &str = "user_namespaces";
    let tried = process::in_child(|| {
        process::enter_own_user_namespace()?;
        match process::may_mount() {
            true => Ok(Vec::new()),
            false => Err("it gives no rights inside".to_owned()),
        }
    });
    let why = match tried {
        Ok(_) => return Check::ok(NAME, "one can be made"),
        Err(why) => why,
    };
    let is = |file: &str, value: &str| first_line(file).is_some_and(|v| v == value);
    let remedy = if is("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        "as root: sysctl -w kernel.unprivileged_userns_clone=1"
    } else if is("/proc/sys/user/max_user_namespaces", "0") {
        "as root: sysctl -w user.max_user_namespaces=10000"
    } else if is(
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
    ) {
        "as root: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile for acetate with `userns,`"
    } else {
        "a container or its seccomp profile forbids unshare(2): --security-opt seccomp=unconfined, or fusermount3 instead"
    };
    Check::missing(NAME, format!("none can be made: {why}"), remedy)
}

/// The ranges of one of /etc/subuid and /etc/subgid for this user.
fn ranges(text: &str, name: Option<&str>, uid: u32) -> Vec<(u32, u32)> {
    let number = uid.to_string();
    let mine = |owner: &str| owner == number || Some(owner) == name;
    text.lines()
        .filter_map(|line| {
            let mut fields = line.trim().split(':');
            let owner = fields.next()?;
            let range = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
            mine(owner).then_some(range)
        })
        .collect()
}

fn name_of(uid: u32) -> Option<String> {
    let text = std::fs::read_to_string("/etc/passwd").ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

fn subordinate_ids() -> Check {
    const NAME: &str = "subordinate_ids";
    let (uid, _) = process::effective_ids();
    if uid == 0 {
        return Check::unneeded(NAME, "only ordinary users need them");
    }
    let name = name_of(uid);
    let user = name.clone().unwrap_or_else(|| uid.to_string());
    let count = |file: &str| -> u64 {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let all = ranges(&text, name.as_deref(), uid);
        all.iter().map(|(_, count)| u64::from(*count)).sum()
    };
    let (users, groups) = (count("/etc/subuid"), count("/etc/subgid"));
    if users == 0 || groups == 0 {
        return Check::missing(
            NAME,
            format!(
                "{user} has {users} in /etc/subuid and {groups} in /etc/subgid: podman without root needs them"
            ),
            format!(
                "as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}"
            ),
        );
    }
    let found = format!("{user} has {users} users and {groups} groups");
    if users.min(groups) < 65536 {
        return Check::limited(
            NAME,
            format!("{found}; images may have files of more"),
            "65536 of each are usual: see usermod --add-subuids",
        );
    }
    Check::ok(NAME, found)
}

fn mapper() -> Check {
    const NAME: &str = "newuidmap";
    if process::effective_ids().0 == 0 {
        return Check::unneeded(NAME, "only ordinary users need it");
    }
    for program in ["newuidmap", "newgidmap"] {
        let Some(path) = find_program(program) else {
            let found = format!("no {program} in $PATH: podman without root needs it");
            return Check::missing(NAME, found, "install the package uidmap (shadow-utils)");
        };
        if !gains_rights(&path) {
            let path = path.display();
            return Check::missing(
                NAME,
                format!("{path} is neither setuid root nor has it capabilities"),
                format!("as root: chown root {path} && chmod u+s {path}"),
            );
        }
    }
    Check::ok(
        NAME,
        "newuidmap and newgidmap are there and gain their rights",
    )
}

/// The fences of sys/fence, each put up in a child that then ends.
pub(super) fn fences() -> Vec<Check> {
    let up = |outcome: Outcome| match outcome {
        Outcome::Up => Ok(Vec::new()),
        Outcome::Unavailable(e) => Err(reason(e)),
    };
    let seccomp = process::in_child(|| up(calls::refuse(false)));
    let landlock = process::in_child(|| {
        let paths = Paths::new(Programs::Shut).map_err(reason)?;
        // Without it, only root may enter.
        up(fence::no_new_privileges())?;
        up(paths.enter())
    });
    let check = |name, tried: Result<Vec<u8>, String>, remedy: &str| match tried {
        Ok(_) => Check::ok(name, "the serving process is fenced in by it"),
        Err(why) => Check::limited(name, format!("no fence of it: {why}"), remedy),
    };
    vec![
        check(
            "seccomp",
            seccomp,
            "nothing needs it; a kernel with CONFIG_SECCOMP_FILTER has it",
        ),
        check(
            "landlock",
            landlock,
            "nothing needs it; Linux 5.19 or newer has it, with landlock in the boot parameter lsm=",
        ),
    ]
}

/// Limits that a mount may reach.
pub(super) fn limits() -> Vec<Check> {
    let limits = process::hard_limits();
    let check = |name, limit: Option<u64>, least: u64, what: &str, word: &str| match limit {
        None => Check::ok(name, "unlimited"),
        Some(limit) if limit >= least => Check::ok(name, limit.to_string()),
        Some(limit) => Check::limited(
            name,
            format!("{limit}: {what}"),
            format!(
                "raise `{word}` in /etc/security/limits.conf, or Limit{}= of the systemd unit",
                word.to_uppercase()
            ),
        ),
    };
    vec![
        check(
            "limit_open_files",
            limits.open_files,
            4096,
            "files that are open or deleted while open are held with descriptors",
            "nofile",
        ),
        check(
            "limit_processes",
            limits.processes,
            512,
            "up to 256 threads copy large files",
            "nproc",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_belong_to_a_name_or_a_number() {
        let text = "root:1:2\nann:100000:65536\n1001:300000:10\nbob:5:5\nbroken:x:1\nann:7\n";
        assert_eq!(
            ranges(text, Some("ann"), 1001),
            [(100_000, 65536), (300_000, 10)]
        );
        assert_eq!(ranges(text, None, 5), []);
    }
}
