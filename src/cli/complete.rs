//! Completion of names: what layers and workspaces there are, where a command line
//! wants one. The scripts of `acetate completions` call `acetate __complete WORD…`.
//!
//! clap_complete has an engine for this, but not a stable one (its feature
//! `unstable-dynamic`; script and program must be of one version). Here the program
//! is told the words and answers with names, one a line: any script goes with any
//! version.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::{Arg, Command, CommandFactory};
use clap_complete::Shell;

use super::args::Acetate;

/// What an argument is to name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// A layer that is there.
    Layer,
    /// A workspace that is there.
    Workspace,
}

/// What the last word is to be, and where the store is.
#[derive(Debug, PartialEq, Eq)]
pub struct Place {
    /// The names that fit; `None` where it is none of ours.
    pub wanted: Option<Wanted>,
    /// `--root`, where it was given.
    pub root: Option<PathBuf>,
}

/// Finds out what the last of these words, behind the program's name, is to be.
pub fn place(words: &[OsString]) -> Place {
    let mut command = Acetate::command();
    command.build();
    let mut at = &command;
    let mut path: Vec<&str> = Vec::new();
    let (mut root, mut pending, mut given) = (None, None::<&Arg>, 0usize);
    let (last, before) = match words.split_last() {
        Some((last, before)) => (last.as_os_str(), before),
        None => (OsStr::new(""), words),
    };
    for word in before {
        if let Some(arg) = pending.take() {
            root = value_of(arg, word).or(root);
            continue;
        }
        let text = word.to_string_lossy();
        if let Some(option) = text.strip_prefix('-').filter(|o| !o.is_empty()) {
            let (arg, value) = option_of(at, option);
            match (arg, value) {
                (Some(arg), Some(value)) => root = value_of(arg, OsStr::new(value)).or(root),
                (arg, _) => pending = arg.filter(|a| a.get_action().takes_values()),
            }
        } else if let Some(sub) = at.find_subcommand(&*text).filter(|_| given == 0) {
            at = sub;
            path.push(sub.get_name());
        } else {
            given += 1;
        }
    }
    let arg = match pending {
        Some(arg) => Some(arg),
        None if last.to_string_lossy().starts_with('-') => None,
        None => positional(at, given),
    };
    let wanted = arg.and_then(|arg| wanted(arg, &path));
    Place { wanted, root }
}

fn value_of(arg: &Arg, word: &OsStr) -> Option<PathBuf> {
    (arg.get_id() == "root").then(|| PathBuf::from(word))
}

/// The option that a word (without its first dash) is, and the value in the same word.
fn option_of<'c, 'w>(of: &'c Command, word: &'w str) -> (Option<&'c Arg>, Option<&'w str>) {
    let find = |fits: &dyn Fn(&Arg) -> bool| of.get_arguments().find(|a| fits(a));
    match word.strip_prefix('-') {
        Some(long) => {
            let (name, value) = match long.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (long, None),
            };
            (find(&|a| a.get_long() == Some(name)), value)
        }
        None => {
            let mut letters = word.chars();
            let (first, rest) = (letters.next(), letters.as_str());
            let value = (!rest.is_empty()).then_some(rest);
            (find(&|a| a.get_short() == first), value)
        }
    }
}

/// The positional argument with this number; the last one where it takes many.
fn positional(of: &Command, number: usize) -> Option<&Arg> {
    let all: Vec<&Arg> = of.get_positionals().collect();
    let many = |a: &&&Arg| a.get_num_args().is_some_and(|n| n.max_values() > 1);
    all.get(number).or_else(|| all.last().filter(many)).copied()
}

/// What an argument names: its value's name says so, or the command it belongs to.
fn wanted(arg: &Arg, path: &[&str]) -> Option<Wanted> {
    /// Commands whose NAME is a new one.
    const MAKING: [&str; 4] = ["create", "import", "commit", "clone"];
    let value = arg.get_value_names().and_then(<[_]>::first)?.as_str();
    let (family, command) = match path {
        [family, command, ..] => (*family, *command),
        _ => ("", ""),
    };
    match value {
        "LAYER" => Some(Wanted::Layer),
        "WORKSPACE" => Some(Wanted::Workspace),
        "A" | "B" if family == "layer" => Some(Wanted::Layer),
        "FROM" if family == "ws" => Some(Wanted::Workspace),
        "NAME" if MAKING.contains(&command) => None,
        "NAME" if family == "layer" => Some(Wanted::Layer),
        "NAME" if family == "ws" => Some(Wanted::Workspace),
        _ => None,
    }
}

/// What a shell's script says beside what clap_complete has it say.
pub fn script(shell: Shell, generated: String) -> String {
    match shell {
        Shell::Bash => generated + BASH,
        // Every argument without a better hint asks for names first.
        Shell::Zsh => generated
            .replace(":_default'", ":_acetate_names'")
            .replacen("\n_acetate() {", &format!("{ZSH}\n_acetate() {{"), 1),
        Shell::Fish => generated + FISH,
        _ => generated,
    }
}

const BASH: &str = r#"
# Names of layers and workspaces, where one is wanted; else what stands above.
_acetate_or_names() {
    local names
    names=$("$1" __complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
    if [[ -n "${names}" ]]; then
        COMPREPLY=( $(compgen -W "${names}" -- "$2") )
    else
        _acetate "$@"
    fi
}
if [[ "${BASH_VERSINFO[0]}" -eq 4 && "${BASH_VERSINFO[1]}" -ge 4 || "${BASH_VERSINFO[0]}" -gt 4 ]]; then
    complete -F _acetate_or_names -o nosort -o bashdefault -o default acetate
else
    complete -F _acetate_or_names -o bashdefault -o default acetate
fi
"#;

const ZSH: &str = r#"
# Names of layers and workspaces, where one is wanted; else files.
_acetate_names() {
    local -a typed names
    typed=(${(z)LBUFFER})
    [[ ${LBUFFER} == *' ' ]] && typed+=('')
    names=(${(f)"$(${typed[1]} __complete -- "${(@)typed[2,-1]}" 2>/dev/null)"})
    if (( ${#names} )); then
        compadd -a names
    else
        _default
    fi
}
"#;

const FISH: &str = r#"
# Names of layers and workspaces, where one is wanted.
function __fish_acetate_names
    set -l typed (commandline -opc) (commandline -ct)
    $typed[1] __complete -- $typed[2..-1] 2>/dev/null
end
complete -c acetate -n 'test (count (__fish_acetate_names)) -gt 0' -f -a '(__fish_acetate_names)'
"#;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(line: &str) -> Place {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        place(&words)
    }

    #[test]
    fn every_place_for_a_name_is_known() {
        for line in [
            "layer rm ",
            "layer rm one tw",
            "layer path b",
            "layer export ",
            "layer diff a ",
            "layer import x y --parent ",
            "ws create job -l ",
            "ws create job -l a --chain ",
            "workspace create job --layer b",
            "--root /x -q layer info ",
        ] {
            assert_eq!(at(line).wanted, Some(Wanted::Layer), "{line:?}");
        }
        for line in [
            "ws rm -f a ",
            "ws path ",
            "layer commit ",
            "ws clone ",
            "ws umount j",
        ] {
            assert_eq!(at(line).wanted, Some(Wanted::Workspace), "{line:?}");
        }
        for line in [
            "",
            "lay",
            "ws create ",
            "layer import x ",
            "layer commit job ",
            "ws clone a ",
            "layer rm -",
            "ws path a b",
            "ws create j -m ",
            "--root ",
        ] {
            assert_eq!(at(line).wanted, None, "{line:?}");
        }
        assert_eq!(at("--root /x ws rm ").root, Some(PathBuf::from("/x")));
        assert_eq!(at("ws rm --root=/y a").root, Some(PathBuf::from("/y")));
    }
}
