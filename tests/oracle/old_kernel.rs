//! The same comparison where everything is hidden from acetate that an old kernel lacks (`-o kernel_features=`): all at
//! once, and one feature after the other.

use super::judge::Setup;
use super::{METACOPY, REDIRECT, ROOT, USERXATTR, hunt, inside_userns};
use crate::support::{Kind, require_fuse, require_kernel_overlay, require_root};

fn able() -> bool {
    require_root() && require_fuse() && require_kernel_overlay()
}

/// `words` and the mask, for as long as the program runs.
fn hiding(words: &str, hidden: &str) -> (Kind, &'static str) {
    let words = format!("{words},kernel_features={hidden}");
    (Kind::Acetate, words.leak())
}

/// With the UUIDs, which the kernel of this machine asks for when it mounts our upper.
#[test]
fn acetate_on_4_18_does_what_the_kernel_does() {
    if !able() {
        return;
    }
    hunt::run(
        Setup {
            name: "4.18",
            subject: hiding(REDIRECT, "4.18:+fs-uuid"),
            ..ROOT
        },
        0.4,
    );
    hunt::run(
        Setup {
            name: "4.18-metacopy",
            reference: (Kind::Kernel, METACOPY),
            subject: hiding(METACOPY, "4.18:+fs-uuid"),
            file_times: false,
            ..ROOT
        },
        0.2,
    );
    hunt::run(
        Setup {
            name: "4.18-no-uuid",
            subject: hiding(REDIRECT, "4.18"),
            cross: false,
            ..ROOT
        },
        0.1,
    );
}

#[test]
fn acetate_without_any_one_feature_does_what_the_kernel_does() {
    if !able() {
        return;
    }
    for hidden in [
        "-zero-open",
        "-zero-opendir:-cache-dir",
        "-killpriv-v2",
        "-zero-open:-killpriv-v2",
        "-cache-symlinks",
        "-max-pages:-parallel-dirops",
        "-fuse-copy-range",
        "-readdirplus",
        "-openat2:-open-tree",
        "-statx",
        "-statx-mount-id:-open-tree",
        "-fchmodat2",
        "-xattrat",
        "-copy-range:-reflink",
        "-utimensat-empty",
        "-rename-whiteout",
        "-unnamed-file:-link-own-file",
    ] {
        hunt::run(
            Setup {
                name: hidden,
                subject: hiding(REDIRECT, hidden),
                ..ROOT
            },
            0.05,
        );
    }
}

/// Root of a user namespace before 5.8: whiteouts are `.wh.` files. (Cases with a name too long for that prefix are left
/// out: it cannot be deleted there.)
#[test]
fn acetate_in_a_user_namespace_on_4_18_does_what_a_plain_directory_does() {
    if inside_userns(
        "old_kernel::acetate_in_a_user_namespace_on_4_18_does_what_a_plain_directory_does",
    ) && require_fuse()
        && require_kernel_overlay()
    {
        hunt::run(
            Setup {
                name: "userns-plain-4.18",
                reference: (Kind::Plain, "userxattr"),
                subject: hiding("userxattr", "4.18:-user-whiteout"),
                cross: false,
                links: true,
                lowers: (1, 7),
                ..USERXATTR
            },
            0.3,
        );
    }
}
