//! Which layers make up the object that a name stands for.
//!
//! Fed with what each layer has, top first; says where to look next. See
//! ovl_lookup() and ovl_lookup_single() in fs/overlayfs/namei.c.

use crate::layer::mark::{Marks, Opaque, Redirect};
use crate::sys::Kind;

/// Whether the next layer is to be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Ask the next layer down.
    Ask,
    /// The answer is complete.
    Done,
}

/// What one layer contributed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The object is part of the answer.
    Take,
    /// It is not: hidden by what lies above.
    Leave,
}

/// Where the layers below are asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Where {
    /// Under this name in the parent's own directories.
    Name(Vec<u8>),
    /// At this path from the layers' roots.
    Path(Vec<Vec<u8>>),
}

/// Why a redirect that would lead on cannot be gone after. Merging by the plain name
/// would show another directory's content, and merging nothing half a tree for the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It says nothing that could be a place: ovl_check_redirect(), EINVAL.
    Malformed,
    /// `redirect_dir=nofollow`: "refusing to follow redirect" in ovl_lookup(), EPERM.
    NotFollowed,
}

/// The decision in progress.
#[derive(Debug)]
pub struct Resolver {
    kind: Option<Kind>,
    seeks_data: bool,
    /// Where the next layer is asked.
    pub at: Where,
    follow: bool,
    /// Set once; there is no answer then.
    pub refusal: Option<Refusal>,
}

impl Resolver {
    /// A resolver for `name`; `follow`: redirects are followed.
    pub fn new(name: &[u8], follow: bool) -> Self {
        Resolver {
            kind: None,
            seeks_data: false,
            at: Where::Name(name.to_vec()),
            follow,
            refusal: None,
        }
    }

    /// Whether a metacopy file still lacks its data.
    pub fn lacks_data(&self) -> bool {
        self.seeks_data
    }

    /// A layer has a whiteout.
    pub fn whiteout(&mut self) -> Step {
        Step::Done
    }

    /// A layer has an object of this type with these marks. `leads_on`: a layer lies
    /// below in which a directory could go on.
    pub fn object(&mut self, kind: Kind, marks: &Marks, leads_on: bool) -> (Verdict, Step) {
        match self.kind {
            None => {
                self.kind = Some(kind);
                self.seeks_data = kind == Kind::File && marks.metacopy;
            }
            Some(Kind::Dir) if kind == Kind::Dir => {}
            Some(Kind::File) if kind == Kind::File && self.seeks_data => {
                self.seeks_data = marks.metacopy;
            }
            Some(_) => return (Verdict::Leave, Step::Done),
        }
        let more = match kind {
            Kind::Dir => marks.opaque != Opaque::Yes && leads_on,
            _ => self.seeks_data,
        };
        if !more || self.refuses(marks) {
            return (Verdict::Take, Step::Done);
        }
        match &marks.redirect {
            None => {}
            Some(Redirect::Path(p)) => self.at = Where::Path(p.clone()),
            Some(Redirect::Name(n)) => match &mut self.at {
                Where::Name(at) => *at = n.clone(),
                Where::Path(p) => {
                    p.pop();
                    p.push(n.clone());
                }
            },
        }
        (Verdict::Take, Step::Ask)
    }

    /// The directory at `path[depth]`, on the way to the place that is asked for, has
    /// these marks: if it is itself redirected for the layers below, the rest of the path
    /// goes with it (ovl_check_redirect()).
    pub fn ancestor(&mut self, marks: &Marks, path: &[Vec<u8>], depth: usize) {
        if marks.opaque == Opaque::Yes || self.refuses(marks) {
            return;
        }
        let rest = path.get(depth + 1..).unwrap_or_default();
        let mut new = match &marks.redirect {
            None => return,
            Some(Redirect::Path(p)) => p.clone(),
            Some(Redirect::Name(n)) => {
                let mut p = path.get(..depth).unwrap_or_default().to_vec();
                p.push(n.clone());
                p
            }
        };
        new.extend_from_slice(rest);
        self.at = Where::Path(new);
    }

    fn refuses(&mut self, marks: &Marks) -> bool {
        self.refusal = self.refusal.or(match (&marks.redirect, self.follow) {
            _ if marks.bad_redirect => Some(Refusal::Malformed),
            (Some(_), false) => Some(Refusal::NotFollowed),
            _ => None,
        });
        self.refusal.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir(opaque: bool, redirect: Option<&[u8]>) -> Marks {
        Marks {
            opaque: if opaque { Opaque::Yes } else { Opaque::No },
            redirect: redirect.and_then(Redirect::parse),
            ..Marks::default()
        }
    }

    #[test]
    fn directories_merge_until_opaque() {
        let mut r = Resolver::new(b"d", true);
        assert_eq!(
            r.object(Kind::Dir, &dir(false, None), true),
            (Verdict::Take, Step::Ask)
        );
        assert_eq!(
            r.object(Kind::Dir, &dir(true, None), true),
            (Verdict::Take, Step::Done)
        );
    }

    #[test]
    fn a_file_below_a_directory_ends_the_merge() {
        let mut r = Resolver::new(b"d", true);
        r.object(Kind::Dir, &dir(false, None), true);
        assert_eq!(
            r.object(Kind::File, &Marks::default(), true),
            (Verdict::Leave, Step::Done)
        );
    }

    #[test]
    fn redirects_change_where_the_layers_below_are_asked() {
        let mut r = Resolver::new(b"d", true);
        r.object(Kind::Dir, &dir(false, Some(b"/a/b")), true);
        assert_eq!(r.at, Where::Path(vec![b"a".to_vec(), b"b".to_vec()]));
        r.object(Kind::Dir, &dir(false, Some(b"c")), true);
        assert_eq!(r.at, Where::Path(vec![b"a".to_vec(), b"c".to_vec()]));
        let mut r = Resolver::new(b"d", false);
        r.object(Kind::Dir, &dir(false, Some(b"x")), true);
        assert_eq!(r.refusal, Some(Refusal::NotFollowed));
    }

    #[test]
    fn a_redirect_matters_where_it_leads_on() {
        let bad = Marks {
            bad_redirect: true,
            ..Marks::default()
        };
        for (marks, leads_on, refusal) in [
            (&bad, true, Some(Refusal::Malformed)),
            (&bad, false, None),
            (&dir(true, Some(b"x")), true, None),
            (&dir(false, Some(b"x")), false, None),
        ] {
            let mut r = Resolver::new(b"d", false);
            r.object(Kind::Dir, marks, leads_on);
            assert_eq!(r.refusal, refusal, "{marks:?}, {leads_on}");
        }
        let mut r = Resolver::new(b"d", true);
        r.ancestor(&bad, &[b"a".to_vec(), b"d".to_vec()], 0);
        assert_eq!(r.refusal, Some(Refusal::Malformed));
    }

    #[test]
    fn a_metacopy_file_is_followed_to_its_data() {
        let meta = Marks {
            metacopy: true,
            ..Marks::default()
        };
        let mut r = Resolver::new(b"f", true);
        assert_eq!(
            r.object(Kind::File, &meta, true),
            (Verdict::Take, Step::Ask)
        );
        assert!(r.lacks_data());
        assert_eq!(
            r.object(Kind::File, &Marks::default(), true),
            (Verdict::Take, Step::Done)
        );
        assert!(!r.lacks_data());
    }
}
