//! The man pages, set from the same definitions as the command line: clap's for
//! our own commands, the tables of [`super::help`] for everything else.

use std::io;

use clap::CommandFactory;
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, roman};

use super::args::Acetate;
use super::help::{self, Entry};

/// A page.
#[derive(Debug)]
pub struct Page {
    /// Its name, as in `man NAME`.
    pub name: String,
    /// Its section.
    pub section: &'static str,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// A command of ours.
    Own(Box<clap::Command>),
    /// Another program's words.
    Compat(&'static Compat),
    /// Another name of a page.
    Alias(String),
}

/// A page of another program's words.
#[derive(Debug)]
struct Compat {
    name: &'static str,
    section: &'static str,
    about: &'static str,
    synopsis: &'static [&'static str],
    description: &'static [&'static str],
    flags: &'static [Entry],
    example: &'static str,
    see_also: &'static str,
}

/// Names of pages that are other pages.
const ALIASES: &[(&str, &str)] = &[("acetate-umount", "acetate-unmount")];

const COMPAT: &[Compat] = &[
    Compat {
        name: "acetate-fuse-overlayfs",
        section: "1",
        about: "acetate as a drop-in for fuse-overlayfs",
        synopsis: &[
            "fuse-overlayfs [-f] [-d] [-s] -o OPTIONS [SOURCE] MOUNTPOINT",
            "acetate fuse-overlayfs [-f] [-d] [-s] -o OPTIONS [SOURCE] MOUNTPOINT",
        ],
        description: &[
            "Called by the name fuse-overlayfs, acetate takes the arguments of that program, writes and reads the \
             layers that it does, and answers with the exit codes of mount(8). It is what podman, buildah and docker \
             call as their mount program.",
            "Options that nobody knows are named once on stderr and ignored.",
        ],
        flags: help::OVERLAY_FLAGS,
        example: "  fuse-overlayfs -o lowerdir=app:base,upperdir=changes,workdir=work merged\n  fusermount3 -u merged\n",
        see_also: "acetate(1), acetate-mount(1), mount.acetate(8), fusermount3(1), update-alternatives(1)",
    },
    Compat {
        name: "mount.acetate",
        section: "8",
        about: "mount an acetate overlay from mount(8) or /etc/fstab",
        synopsis: &[
            "mount -t acetate -o OPTIONS none MOUNTPOINT",
            "mount.acetate SOURCE MOUNTPOINT [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE]",
        ],
        description: &[
            "mount(8) calls this program for file systems of the type acetate. The source is any word; it is \
             what the first column of /proc/mounts shows. The process that serves the mount goes to the background; \
             it ends with umount(8).",
            "The type fuse.acetate does the same through mount.fuse3(8) of the package fuse3. In /proc/mounts it is \
             always fuse.acetate.",
        ],
        flags: help::HELPER_FLAGS,
        example: "  # /etc/fstab\n  none /srv/merged acetate lowerdir=/srv/app:/srv/base,upperdir=/srv/changes,workdir=/srv/work,nofail 0 0\n",
        see_also: "acetate(1), acetate-mount(1), mount(8), fstab(5), systemd.mount(5)",
    },
];

/// Every page there is.
pub fn pages() -> Vec<Page> {
    let mut program = Acetate::command();
    program.build();
    let own = |command: &clap::Command| Page {
        name: command
            .get_display_name()
            .unwrap_or_else(|| command.get_name())
            .to_owned(),
        section: "1",
        kind: Kind::Own(Box::new(command.clone())),
    };
    let is_compat = |page: &Page| COMPAT.iter().any(|c| c.name == page.name);
    let mut pages = vec![own(&program)];
    let shown = |of: &clap::Command| -> Vec<clap::Command> {
        of.get_subcommands()
            .filter(|c| !c.is_hide_set())
            .cloned()
            .collect()
    };
    for command in shown(&program) {
        pages.push(own(&command));
        pages.extend(shown(&command).iter().map(own));
    }
    pages.retain(|page| !is_compat(page));
    pages.extend(COMPAT.iter().map(|compat| Page {
        name: compat.name.to_owned(),
        section: compat.section,
        kind: Kind::Compat(compat),
    }));
    pages.extend(ALIASES.iter().map(|(name, of)| Page {
        name: (*name).to_owned(),
        section: "1",
        kind: Kind::Alias((*of).to_owned()),
    }));
    pages
}

impl Page {
    /// The page, for man(1) to read.
    pub fn text(&self) -> io::Result<Vec<u8>> {
        match &self.kind {
            Kind::Own(command) => self.own(command),
            Kind::Compat(compat) => Ok(self.compat(compat).into_bytes()),
            Kind::Alias(of) => Ok(format!(".so man1/{of}.1\n").into_bytes()),
        }
    }

    fn title(&self, roff: &mut Roff) {
        roff.control(
            "TH",
            [
                self.name.as_str(),
                self.section,
                "",
                concat!("acetate ", env!("CARGO_PKG_VERSION")),
                "acetate manual",
            ],
        );
    }

    fn own(&self, command: &clap::Command) -> io::Result<Vec<u8>> {
        let mut head = Roff::new();
        self.title(&mut head);
        let mut text = head.to_roff().into_bytes();
        let man = Man::new(command.clone());
        man.render_name_section(&mut text)?;
        man.render_synopsis_section(&mut text)?;
        man.render_description_section(&mut text)?;
        man.render_options_section(&mut text)?;
        let mut tail = Roff::new();
        if command.has_subcommands() {
            subcommands(&mut tail, command);
        }
        let (of_program, of_mount) = (self.name == "acetate", self.name == "acetate-mount");
        if of_mount {
            section(&mut tail, "MOUNT OPTIONS", help::MOUNT_OPTIONS);
        }
        let of_job = help::of_job(&self.name);
        if let Some((notes, _)) = of_job {
            tail.control("SH", ["NOTES"]);
            tail.text([roman(notes.replace('\n', " ").trim_end().to_owned())]);
        }
        let codes = match of_job {
            Some(_) => help::JOB_CODES,
            None => help::OWN_CODES,
        };
        section(&mut tail, "EXIT STATUS", codes);
        if of_program || of_mount {
            section(&mut tail, "ENVIRONMENT", help::ENVIRONMENT);
            section(&mut tail, "FILES", help::FILES);
        }
        if of_program {
            example(&mut tail, help::EXAMPLES);
        } else if of_mount {
            example(&mut tail, help::MOUNT_EXAMPLE);
        } else if let Some((_, text)) = of_job {
            example(&mut tail, text);
        }
        let others = "acetate(1), acetate-mount(1), acetate-unmount(1), acetate-fuse-overlayfs(1), mount.acetate(8), fusermount3(1)";
        see_also(&mut tail, &self.name, others);
        text.extend_from_slice(tail.to_roff().as_bytes());
        Ok(text)
    }

    fn compat(&self, compat: &Compat) -> String {
        let mut roff = Roff::new();
        self.title(&mut roff);
        roff.control("SH", ["NAME"]);
        roff.text([roman(format!("{} - {}", compat.name, compat.about))]);
        roff.control("SH", ["SYNOPSIS"]);
        for (at, line) in compat.synopsis.iter().enumerate() {
            if at > 0 {
                roff.control("br", []);
            }
            roff.text([roman(*line)]);
        }
        roff.control("SH", ["DESCRIPTION"]);
        for paragraph in compat.description {
            roff.control("PP", []);
            roff.text([roman(*paragraph)]);
        }
        section(&mut roff, "OPTIONS", compat.flags);
        section(&mut roff, "MOUNT OPTIONS", help::MOUNT_OPTIONS);
        section(&mut roff, "EXIT STATUS", help::MOUNT_CODES);
        section(&mut roff, "ENVIRONMENT", help::ENVIRONMENT);
        section(&mut roff, "FILES", help::FILES);
        example(&mut roff, compat.example);
        see_also(&mut roff, &self.name, compat.see_also);
        roff.to_roff()
    }
}

fn section(roff: &mut Roff, title: &str, entries: &[Entry]) {
    roff.control("SH", [title]);
    for entry in entries {
        tagged(roff, vec![bold(entry.words)], entry.says);
    }
}

fn tagged(roff: &mut Roff, tag: Vec<Inline>, text: &str) {
    roff.control("TP", []);
    roff.text(tag);
    roff.text([roman(text)]);
}

fn subcommands(roff: &mut Roff, command: &clap::Command) {
    roff.control("SH", ["COMMANDS"]);
    for sub in command.get_subcommands().filter(|s| !s.is_hide_set()) {
        let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
        let page = sub.get_display_name().unwrap_or_else(|| sub.get_name());
        tagged(
            roff,
            vec![bold(sub.get_name())],
            &format!("{about}; see {page}(1)"),
        );
    }
}

/// Lines as they stand, two columns less indented.
fn example(roff: &mut Roff, text: &str) {
    roff.control("SH", ["EXAMPLES"]);
    roff.control("nf", []);
    for line in text.lines() {
        roff.text([roman(line.strip_prefix("  ").unwrap_or(line))]);
    }
    roff.control("fi", []);
}

fn see_also(roff: &mut Roff, own_name: &str, pages: &str) {
    let others: Vec<&str> = pages
        .split(", ")
        .filter(|page| page.split('(').next() != Some(own_name))
        .collect();
    roff.control("SH", ["SEE ALSO"]);
    roff.text([roman(others.join(", "))]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_with_its_exit_codes() {
        let pages = pages();
        let names: Vec<&str> = pages.iter().map(|p| p.name.as_str()).collect();
        for wanted in [
            "acetate",
            "acetate-mount",
            "acetate-unmount",
            "acetate-umount",
            "acetate-completions",
            "acetate-layer",
            "acetate-layer-commit",
            "acetate-ws-create",
            "acetate-run",
            "acetate-try",
            "acetate-ws-apply",
            "acetate-fuse-overlayfs",
            "mount.acetate",
        ] {
            assert_eq!(
                names.iter().filter(|n| **n == wanted).count(),
                1,
                "{wanted} in {names:?}"
            );
        }
        assert!(!names.contains(&"acetate-man"), "it is not for users");
        for page in pages {
            let text = String::from_utf8(page.text().unwrap()).unwrap();
            if matches!(page.kind, Kind::Alias(_)) {
                assert!(text.starts_with(".so man1/"), "{text}");
                continue;
            }
            for part in [".TH ", ".SH NAME", ".SH SYNOPSIS", ".SH \"EXIT STATUS\""] {
                assert!(text.contains(part), "{} has no {part}: {text}", page.name);
            }
        }
    }

    #[test]
    fn the_aliases_are_those_of_the_command_line() {
        let program = Acetate::command();
        for (alias, of) in ALIASES {
            let find = |name: &str| {
                name.strip_prefix("acetate-")
                    .and_then(|n| program.find_subcommand(n))
                    .map(|c| c.get_name().to_owned())
            };
            assert!(find(alias).is_some() && find(alias) == find(of), "{alias}");
        }
    }
}
