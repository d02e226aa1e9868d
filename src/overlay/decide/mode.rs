//! What a mode becomes.

/// The mode after chown(2) of a non-directory: suid goes, sgid goes where the
/// group may execute. See chown_common() and setattr_should_drop_sgid().
pub fn after_chown(mode: u32) -> u32 {
    if mode & libc::S_IFMT == libc::S_IFDIR {
        mode
    } else {
        without_privilege(mode)
    }
}

/// The mode without suid and, where the group may execute, without sgid.
pub fn without_privilege(mode: u32) -> u32 {
    let mut m = mode & !libc::S_ISUID;
    if m & libc::S_IXGRP != 0 {
        m &= !libc::S_ISGID;
    }
    m
}

/// The mode after a write or truncate by somebody without CAP_FSETID: sgid goes
/// too where the writer is not in the group. See setattr_should_drop_sgid().
pub fn after_write(mode: u32, in_group: bool) -> u32 {
    let m = without_privilege(mode);
    if in_group { m } else { m & !libc::S_ISGID }
}

/// Whether a write or truncate by somebody without CAP_FSETID may change the mode.
pub fn has_privilege(mode: u32) -> bool {
    mode & libc::S_IFMT != libc::S_IFDIR && mode & (libc::S_ISUID | libc::S_ISGID) != 0
}

/// Group and mode of a new object in a directory: set-gid directories hand
/// their group on, and to subdirectories the bit too. See inode_init_owner().
pub fn inherit_group(dir_mode: u32, dir_gid: u32, gid: u32, mode: u32) -> (u32, u32) {
    if dir_mode & libc::S_ISGID == 0 {
        return (gid, mode);
    }
    let is_dir = mode & libc::S_IFMT == libc::S_IFDIR;
    (dir_gid, if is_dir { mode | libc::S_ISGID } else { mode })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suid_goes_and_sgid_only_with_group_execution() {
        assert_eq!(without_privilege(0o106755), 0o100755);
        assert_eq!(without_privilege(0o102644), 0o102644);
        assert!(has_privilege(0o104755) && !has_privilege(0o100644));
        assert_eq!(
            (after_write(0o102644, true), after_write(0o102644, false)),
            (0o102644, 0o100644)
        );
        assert_eq!(after_chown(0o042755), 0o042755);
    }

    #[test]
    fn set_gid_directories_hand_their_group_on() {
        assert_eq!(inherit_group(0o42775, 5, 9, 0o040700), (5, 0o042700));
        assert_eq!(inherit_group(0o42775, 5, 9, 0o100600), (5, 0o100600));
        assert_eq!(inherit_group(0o40775, 5, 9, 0o100600), (9, 0o100600));
    }
}
