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

/// The decision in progress.
#[derive(Debug)]
pub struct Resolver {
    kind: Option<Kind>,
    seeks_data: bool,
    /// Where the next layer is asked.
    pub at: Where,
    follow: bool,
}

impl Resolver {
    /// A resolver for `name`; `follow`: redirects are followed.
    pub fn new(name: &[u8], follow: bool) -> Self {
        Resolver {
            kind: None,
            seeks_data: false,
            at: Where::Name(name.to_vec()),
            follow,
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

    /// A layer has an object of this type with these marks.
    pub fn object(&mut self, kind: Kind, marks: &Marks) -> (Verdict, Step) {
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
            Kind::Dir => marks.opaque != Opaque::Yes,
            _ => self.seeks_data,
        };
        if !more {
            return (Verdict::Take, Step::Done);
        }
        if marks.bad_redirect || (marks.redirect.is_some() && kind == Kind::Dir && !self.follow) {
            // Merging by the plain name would show another directory's content.
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
            r.object(Kind::Dir, &dir(false, None)),
            (Verdict::Take, Step::Ask)
        );
        assert_eq!(
            r.object(Kind::Dir, &dir(true, None)),
            (Verdict::Take, Step::Done)
        );
    }

    #[test]
    fn a_file_below_a_directory_ends_the_merge() {
        let mut r = Resolver::new(b"d", true);
        r.object(Kind::Dir, &dir(false, None));
        assert_eq!(
            r.object(Kind::File, &Marks::default()),
            (Verdict::Leave, Step::Done)
        );
    }

    #[test]
    fn redirects_change_where_the_layers_below_are_asked() {
        let mut r = Resolver::new(b"d", true);
        r.object(Kind::Dir, &dir(false, Some(b"/a/b")));
        assert_eq!(r.at, Where::Path(vec![b"a".to_vec(), b"b".to_vec()]));
        r.object(Kind::Dir, &dir(false, Some(b"c")));
        assert_eq!(r.at, Where::Path(vec![b"a".to_vec(), b"c".to_vec()]));
        let mut r = Resolver::new(b"d", false);
        assert_eq!(r.object(Kind::Dir, &dir(false, Some(b"x"))).1, Step::Done);
    }

    #[test]
    fn a_metacopy_file_is_followed_to_its_data() {
        let meta = Marks {
            metacopy: true,
            ..Marks::default()
        };
        let mut r = Resolver::new(b"f", true);
        assert_eq!(r.object(Kind::File, &meta), (Verdict::Take, Step::Ask));
        assert!(r.lacks_data());
        assert_eq!(
            r.object(Kind::File, &Marks::default()),
            (Verdict::Take, Step::Done)
        );
        assert!(!r.lacks_data());
    }
}
