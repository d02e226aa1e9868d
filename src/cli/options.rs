//! The words of `-o` and what they mean: one table for every command line.
//!
//! Three kinds of words: ours (they fill `Options`), mount(8)'s (they become
//! mount flags), and those of the kernel's overlayfs, libfuse and fstab that
//! other callers pass and that ask nothing of us: accepted in silence, so that
//! the one line on stderr that matters is not lost among them.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use crate::app::{
    Durability, FollowClient, HiddenFeatures, LowerArg, MountFlags, Options, PollRequests,
    RedirectDir, XattrPermissions, Xino,
};

use super::failure::Usage;
use super::words::{Word, parse_map, parse_u32, path_of, split_lowers, split_words};

/// What the words of one command line add up to.
#[derive(Debug, Clone)]
pub struct Meaning {
    /// For the engine.
    pub options: Options,
    /// For mount(2).
    pub flags: MountFlags,
    /// SELinux contexts (`context=` and its kin), for mount(2) where SELinux runs.
    pub contexts: Vec<(String, OsString)>,
    /// `fsname=`.
    pub source: Option<OsString>,
    /// `fence=`: the daemon gives up what it does not need.
    pub fence: bool,
    /// What the kernel is not asked for.
    pub hidden: HiddenFeatures,
    /// Words that nobody knows, as they were given.
    pub unknown: Vec<OsString>,
}

impl Default for Meaning {
    fn default() -> Self {
        Meaning {
            options: Options::default(),
            flags: MountFlags::empty(),
            contexts: Vec::new(),
            source: None,
            fence: true,
            hidden: HiddenFeatures::default(),
            unknown: Vec::new(),
        }
    }
}

/// Words that ask nothing of us, with or without a value: those of fstab,
/// mount(8) and systemd; of mount propagation; of libfuse; of kernel overlayfs;
/// of fuse-overlayfs.
const SILENT: &[&str] = &[
    "auto noauto defaults user nouser users nousers owner noowner group nogroup _netdev nofail loop",
    "comment helper uhelper remount mand nomand bind rbind move silent loud iversion noiversion",
    "private rprivate slave rslave shared rshared unbindable runbindable",
    "allow_other allow_root default_permissions auto_unmount nonempty subtype max_read max_write",
    "max_readahead max_background congestion_threshold max_idle_threads clone_fd blksize blkdev",
    "big_writes large_read direct_io kernel_cache auto_cache noauto_cache async_read sync_read",
    "atomic_o_trunc splice_read splice_write splice_move no_splice_read no_splice_write",
    "no_splice_move use_ino readdir_ino hard_remove intr intr_signal modules attr_timeout",
    "entry_timeout negative_timeout ac_attr_timeout umask uid gid no_remote_lock no_remote_flock",
    "no_remote_posix_lock remember setuid drop_privileges fd rootmode user_id group_id debug",
    "nfs_export verity uuid override_creds nooverride_creds",
    "fast_ino noxattrs plugins acl idmap",
];

/// Reads one `-o` string after the other; a later word wins over an earlier.
#[derive(Debug, Default)]
pub struct Reader {
    meaning: Meaning,
}

impl Reader {
    /// Takes the words of one `-o`.
    pub fn read(&mut self, text: &[u8]) -> Result<(), Usage> {
        for word in split_words(text) {
            self.take(&word)?;
        }
        Ok(())
    }

    /// Everything read so far.
    pub fn finish(self) -> Meaning {
        self.meaning
    }

    fn take(&mut self, word: &Word<'_>) -> Result<(), Usage> {
        let key = String::from_utf8_lossy(word.key).into_owned();
        let known = self.take_layer(&key, word)?
            || self.take_ids(&key, word)?
            || self.take_choice(&key, word)?
            || self.take_number(&key, word)?
            || self.take_flag(&key)
            || self.take_context(&key, word)
            || is_silent(&key);
        if !known {
            self.meaning
                .unknown
                .push(OsString::from_vec(word.text.to_vec()));
        }
        Ok(())
    }

    fn take_layer(&mut self, key: &str, word: &Word<'_>) -> Result<bool, Usage> {
        let options = &mut self.meaning.options;
        match key {
            "lowerdir" => options.lowers = split_lowers(value(key, word)?)?,
            "lowerdir+" | "datadir+" => options.lowers.push(LowerArg {
                path: path_of(value(key, word)?),
                data_only: key == "datadir+",
                beside: None,
            }),
            "upperdir" => options.upper = given_path(value(key, word)?),
            "workdir" => options.work = given_path(value(key, word)?),
            "fsname" => {
                self.meaning.source = Some(OsString::from_vec(super::words::unescape(value(
                    key, word,
                )?)))
            }
            "kernel_features" => {
                self.meaning.hidden = self.meaning.hidden.and(features(key, value(key, word)?)?)
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn take_ids(&mut self, key: &str, word: &Word<'_>) -> Result<bool, Usage> {
        let options = &mut self.meaning.options;
        match key {
            "uidmapping" => options.uid_map = parse_map(key, value(key, word)?)?,
            "gidmapping" => options.gid_map = parse_map(key, value(key, word)?)?,
            "squash_to_root" => {
                if switch(key, word)? {
                    options.squash_uid = Some(0);
                    options.squash_gid = Some(0);
                }
            }
            "squash_to_uid" => options.squash_uid = Some(number(key, word)?),
            "squash_to_gid" => options.squash_gid = Some(number(key, word)?),
            "xattr_permissions" => {
                options.xattr_permissions = choice(
                    key,
                    word,
                    &[
                        ("0", None),
                        ("1", Some(XattrPermissions::Security)),
                        ("2", Some(XattrPermissions::User)),
                    ],
                )?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn take_choice(&mut self, key: &str, word: &Word<'_>) -> Result<bool, Usage> {
        let options = &mut self.meaning.options;
        match key {
            "fence" => self.meaning.fence = switch(key, word)?,
            "static_nlink" => options.static_nlink = switch(key, word)?,
            "noacl" => options.no_acl = switch(key, word)?,
            "writeback" => options.writeback = switch(key, word)?,
            "ino32_t" => options.ino32 = switch(key, word)?,
            "userxattr" => options.userxattr = switch(key, word)?,
            "metacopy" => options.metacopy = switch(key, word)?,
            "index" => options.index = Some(switch(key, word)?),
            "volatile" => options.durability = durability(!switch(key, word)?),
            "fsync" => options.durability = durability(switch(key, word)?),
            "xino" => {
                options.xino = choice(
                    key,
                    word,
                    &[("off", Xino::Off), ("auto", Xino::Auto), ("on", Xino::On)],
                )?;
            }
            // The kernel's `off` still follows redirects that are there
            // (redirect_always_follow is on by default).
            "redirect_dir" => {
                options.redirect_dir = choice(
                    key,
                    word,
                    &[
                        ("on", RedirectDir::On),
                        ("off", RedirectDir::Follow),
                        ("follow", RedirectDir::Follow),
                        ("nofollow", RedirectDir::NoFollow),
                        ("auto", RedirectDir::Auto),
                    ],
                )?;
            }
            "xattr_search" => {
                options.no_xattr_search = choice(key, word, &[("off", true), ("auto", false)])?;
            }
            "push_ahead" => {
                options.push_ahead = choice(key, word, &[("on", true), ("off", false)])?;
            }
            "passthrough" => {
                options.passthrough = choice(key, word, &[("on", true), ("off", false)])?;
            }
            "follow_client" => {
                options.follow_client = choice(
                    key,
                    word,
                    &[
                        ("auto", FollowClient::Auto),
                        ("on", FollowClient::InBursts),
                        ("always", FollowClient::Always),
                        ("off", FollowClient::Never),
                    ],
                )?;
            }
            "polling" => {
                options.polling = choice(
                    key,
                    word,
                    &[
                        ("auto", PollRequests::Auto),
                        ("on", PollRequests::Always),
                        ("off", PollRequests::Never),
                    ],
                )?;
            }
            "submounts" => {
                options.follow_submounts = choice(key, word, &[("follow", true), ("hide", false)])?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn take_number(&mut self, key: &str, word: &Word<'_>) -> Result<bool, Usage> {
        let options = &mut self.meaning.options;
        match key {
            "timeout" => options.timeout = Some(seconds(key, word)?),
            // `threaded=1` is the default; `threaded=0` asks for one event loop.
            "threaded" => {
                options.threads = if switch(key, word)? { None } else { Some(1) };
            }
            "max_threads" => options.threads = Some(count(key, word)?.max(1)),
            "fd_cache" => options.fd_cache = Some(count(key, word)?),
            "dir_cache" => options.dir_cache = Some(count(key, word)?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn take_flag(&mut self, key: &str) -> bool {
        let (flag, on) = match key {
            "ro" => (MountFlags::RDONLY, true),
            "rw" => (MountFlags::RDONLY, false),
            "nosuid" => (MountFlags::NOSUID, true),
            "suid" => (MountFlags::NOSUID, false),
            "nodev" => (MountFlags::NODEV, true),
            "dev" => (MountFlags::NODEV, false),
            "noexec" => (MountFlags::NOEXEC, true),
            "exec" => (MountFlags::NOEXEC, false),
            "sync" => (MountFlags::SYNCHRONOUS, true),
            "async" => (MountFlags::SYNCHRONOUS, false),
            "dirsync" => (MountFlags::DIRSYNC, true),
            "noatime" => (MountFlags::NOATIME, true),
            "atime" => (MountFlags::NOATIME, false),
            "nodiratime" => (MountFlags::NODIRATIME, true),
            "diratime" => (MountFlags::NODIRATIME, false),
            "relatime" => (MountFlags::RELATIME, true),
            "norelatime" => (MountFlags::RELATIME, false),
            "strictatime" => (MountFlags::STRICTATIME, true),
            "nostrictatime" => (MountFlags::STRICTATIME, false),
            "lazytime" => (MountFlags::LAZYTIME, true),
            "nolazytime" => (MountFlags::LAZYTIME, false),
            "nosymfollow" => (MountFlags::NOSYMFOLLOW, true),
            "symfollow" => (MountFlags::NOSYMFOLLOW, false),
            _ => return false,
        };
        self.meaning.flags.set(flag, on);
        self.meaning.options.read_only = self.meaning.flags.contains(MountFlags::RDONLY);
        true
    }

    fn take_context(&mut self, key: &str, word: &Word<'_>) -> bool {
        if !matches!(key, "context" | "fscontext" | "defcontext" | "rootcontext") {
            return false;
        }
        if let Some(value) = word.value.filter(|v| !v.is_empty()) {
            self.meaning.contexts.retain(|(k, _)| k != key);
            self.meaning
                .contexts
                .push((key.to_owned(), OsString::from_vec(value.to_vec())));
        }
        true
    }
}

fn is_silent(key: &str) -> bool {
    key.starts_with("x-")
        || key.starts_with("X-")
        || SILENT
            .iter()
            .any(|line| line.split(' ').any(|word| word == key))
}

fn value<'a>(key: &str, word: &Word<'a>) -> Result<&'a [u8], Usage> {
    word.value.ok_or_else(|| {
        Usage::new(
            format!("the option {key} needs a value"),
            format!("write {key}=VALUE"),
        )
    })
}

/// The features to hide in a list of them; `from` is where it was given.
pub fn features(from: &str, list: &[u8]) -> Result<HiddenFeatures, Usage> {
    HiddenFeatures::parse(&String::from_utf8_lossy(list)).map_err(|why| {
        Usage::new(
            format!("{from}: {why}"),
            format!("write for example {from}=4.18 or {from}=-openat2:-statx"),
        )
    })
}

/// A path; `upperdir=` with nothing behind it means none.
fn given_path(text: &[u8]) -> Option<std::path::PathBuf> {
    (!text.is_empty()).then(|| path_of(text))
}

fn durability(synced: bool) -> Durability {
    if synced {
        Durability::Full
    } else {
        Durability::Volatile
    }
}

/// `key`, `key=on|1|yes|true` or `key=off|0|no|false`.
fn switch(key: &str, word: &Word<'_>) -> Result<bool, Usage> {
    if word.value.is_none() {
        return Ok(true);
    }
    choice(
        key,
        word,
        &[
            ("on", true),
            ("1", true),
            ("yes", true),
            ("true", true),
            ("off", false),
            ("0", false),
            ("no", false),
            ("false", false),
        ],
    )
}

fn choice<T: Copy>(key: &str, word: &Word<'_>, choices: &[(&str, T)]) -> Result<T, Usage> {
    let given = value(key, word)?;
    choices
        .iter()
        .find(|(name, _)| name.as_bytes() == given)
        .map(|(_, meaning)| *meaning)
        .ok_or_else(|| {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            Usage::new(
                format!("{key}={} is not a choice", String::from_utf8_lossy(given)),
                format!("{key} may be one of {}", names.join(", ")),
            )
        })
}

fn number(key: &str, word: &Word<'_>) -> Result<u32, Usage> {
    let given = value(key, word)?;
    parse_u32(given).ok_or_else(|| {
        Usage::new(
            format!("{key}={} is not a number", String::from_utf8_lossy(given)),
            format!("write {key}=N with N from 0 to {}", u32::MAX),
        )
    })
}

fn count(key: &str, word: &Word<'_>) -> Result<usize, Usage> {
    Ok(usize::try_from(number(key, word)?).unwrap_or(usize::MAX))
}

fn seconds(key: &str, word: &Word<'_>) -> Result<Duration, Usage> {
    let given = value(key, word)?;
    let wrong = || {
        Usage::new(
            format!(
                "{key}={} is not a number of seconds",
                String::from_utf8_lossy(given)
            ),
            format!("write {key}=0 to keep nothing, or for example {key}=1.5"),
        )
    };
    let number: f64 = std::str::from_utf8(given)
        .ok()
        .and_then(|t| t.parse().ok())
        .ok_or_else(wrong)?;
    Duration::try_from_secs_f64(number).map_err(|_| wrong())
}
