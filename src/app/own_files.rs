//! Reaching files of one's own whose mode shuts out even their owner.
//!
//! A mount of an ordinary user is served from a user namespace in which the daemon
//! has every capability over the user's own files (`app::mount`), so an upper may
//! hold files of mode 000. Whoever reads, copies or removes such a tree needs the
//! same. Nothing may be mounted from there: fusermount3 gains no rights in it.

use crate::sys::process;

/// Enters such a namespace where that is of use and possible. For a process with
/// one thread; where it is not possible modes are as they are.
pub fn reach() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(enter);
}

fn enter() {
    let (uid, _) = process::effective_ids();
    if uid == 0 || !process::own_user_namespace_works() {
        return;
    }
    if let Err(why) = process::enter_own_user_namespace() {
        tracing::debug!("no user namespace: {why}");
    }
}
