//! `acetate run` and `acetate try`. What they say beside the command goes to stderr:
//! stdout is the command's.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::process::ExitCode;

use crate::app::enter::{CANNOT, Ids, Job, NotRun, User};
use crate::app::layer::NewLayer;
use crate::app::run::{self, After, Which};
use crate::app::store_root::{self, Use};
use crate::app::workspace::Mounting;
use crate::app::{Failure, FailureKind, Outcome, WorkspaceKind, attempt};
use crate::cli::args::Global;
use crate::cli::cmd::layer::changes_report;
use crate::cli::cmd::ws::{mount_options, wanted_view};
use crate::cli::job_args::{CommandArgs, RunArgs, TryArgs};
use crate::cli::output::Output;

/// Runs `acetate run`.
pub fn run(global: &Global, output: Output<'_>, args: RunArgs) -> ExitCode {
    let request = match wanted(args) {
        Ok(request) => request,
        Err(usage) => return output.failed(&usage),
    };
    let done = store_root::open(global.root.as_deref(), Use::Change)
        .map_err(NotRun::from)
        .and_then(|store| run::run(&store, request));
    match done {
        Err(why) => not_run(output, &why),
        Ok(done) => {
            done.warnings.iter().for_each(|w| output.warn(w));
            if let Some(made) = &done.layer {
                output.note(&format!("the changes are the layer {}", made.record.name));
            }
            if let Some(name) = &done.kept {
                output.note(&format!("the workspace is {name}"));
            }
            ExitCode::from(done.code)
        }
    }
}

/// Runs `acetate try`.
pub fn attempt(global: &Global, output: Output<'_>, args: TryArgs) -> ExitCode {
    let request = match wanted_try(args) {
        Ok(request) => request,
        Err(usage) => return output.failed(&usage),
    };
    let done = store_root::open(global.root.as_deref(), Use::Change)
        .map_err(NotRun::from)
        .and_then(|store| attempt::attempt(&store, request));
    match done {
        Err(why) => not_run(output, &why),
        Ok(done) => {
            done.warnings.iter().for_each(|w| output.warn(w));
            output.aside(&changes_report(&done.changes));
            match &done.kept {
                Some(name) if done.changes.is_empty() => {
                    output.note(&format!("nothing was changed; the workspace {name} stays"));
                }
                Some(name) => output.note(&format!(
                    "{} is as it was; the changes are in the workspace {name}: `acetate ws apply {name}` brings them back, `acetate ws rm {name}` discards them",
                    done.directory.display()
                )),
                None => output.note("nothing was changed"),
            }
            ExitCode::from(done.code)
        }
    }
}

fn not_run(output: Output<'_>, why: &NotRun) -> ExitCode {
    let _own = output.failed(&why.failure);
    ExitCode::from(why.code)
}

fn usage(what: impl Into<String>, hint: &str) -> Failure {
    Failure::new(FailureKind::Usage, what, hint)
}

fn wanted(args: RunArgs) -> Outcome<run::Request> {
    let user = match &args.user {
        None => User::AsItComes,
        Some(text) => user(text)?,
    };
    let mut job = job(args.job)?;
    job.user = user;
    job.directory = args.workdir;
    let kind = match args.copy {
        true => WorkspaceKind::Copy,
        false => WorkspaceKind::Overlay,
    };
    let which = match args.workspace {
        Some(name) => Which::There(name),
        None => Which::New(wanted_view(
            args.name.unwrap_or_default(),
            kind,
            args.view,
            Mounting::Later,
        )?),
    };
    let binds: Outcome<Vec<_>> = args.bind.iter().map(|word| run::bind_of(word)).collect();
    Ok(run::Request {
        which,
        commit: args.commit.map(|name| NewLayer {
            name,
            source: shown(&job),
            ..NewLayer::default()
        }),
        binds: binds?,
        job,
        after: match args.rm {
            true => After::Remove,
            false => After::Keep,
        },
    })
}

fn wanted_try(args: TryArgs) -> Outcome<attempt::Request> {
    Ok(attempt::Request {
        directory: args.dir,
        name: args.name.unwrap_or_default(),
        options: mount_options(&args.options, &[], &[])?,
        job: job(args.job)?,
    })
}

fn job(args: CommandArgs) -> Outcome<Job> {
    let mut words = args.command.into_iter();
    let program = words
        .next()
        .filter(|w| !w.is_empty())
        .ok_or_else(|| usage("the command is empty", "write it behind `--`"))?;
    let env: Outcome<Vec<_>> = args.env.iter().map(variable).collect();
    Ok(Job {
        program,
        args: words.collect(),
        env: env?,
        user: User::AsItComes,
        directory: "/".into(),
        ids: Ids::CallersOnly,
    })
}

fn variable(word: &OsString) -> Outcome<(OsString, OsString)> {
    let bytes = word.as_bytes();
    let at = bytes.iter().position(|b| *b == b'=').filter(|at| *at > 0);
    let pair = at.and_then(|at| Some((bytes.get(..at)?, bytes.get(at + 1..)?)));
    let owned = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
    pair.map(|(name, value)| (owned(name), owned(value)))
        .ok_or_else(|| {
            let what = format!("--env {}: no name and value", word.display());
            usage(what, "write --env NAME=VALUE")
        })
}

/// `UID[:GID]`; the group has the user's number where it has none of its own.
fn user(text: &str) -> Outcome<User> {
    let (uid, gid) = text.split_once(':').unwrap_or((text, text));
    // The last number is nobody's: (uid_t)-1 says "unchanged".
    let number = |t: &str| t.parse().ok().filter(|n| *n != u32::MAX);
    match (number(uid), number(gid)) {
        (Some(uid), Some(gid)) => Ok(User::Ids(uid, gid)),
        _ => Err(usage(
            format!("--user {text}: not the numbers of a user and a group"),
            "names are not looked up, as the tree has its own: write --user UID[:GID]",
        )),
    }
}

fn shown(job: &Job) -> String {
    let words = std::iter::once(job.program.as_os_str()).chain(job.args.iter().map(OsStr::new));
    let words: Vec<_> = words.map(|w| w.to_string_lossy()).collect();
    format!("run {}", words.join(" "))
}

const _: () = assert!(CANNOT == 125, "the help says so");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_numbers() {
        assert!(matches!(user("7").unwrap(), User::Ids(7, 7)));
        assert!(matches!(user("7:8").unwrap(), User::Ids(7, 8)));
        for wrong in ["", "root", "7:", ":8", "-1", "4294967295", "1:2:3"] {
            assert_eq!(user(wrong).unwrap_err().kind, FailureKind::Usage, "{wrong}");
        }
    }

    #[test]
    fn a_variable_has_a_name_and_may_be_empty() {
        let parsed = |w: &str| variable(&w.into()).map(|(n, v)| format!("{n:?} {v:?}"));
        assert_eq!(parsed("A=b=c").unwrap(), r#""A" "b=c""#);
        assert_eq!(parsed("A=").unwrap(), r#""A" """#);
        assert!(parsed("=b").is_err() && parsed("A").is_err());
    }
}
