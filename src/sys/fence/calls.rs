//! System calls that a serving daemon never makes: a seccomp filter.
//!
//! A list of what is refused, and not of what is allowed. The C library and
//! std change the calls they make from one version to the next, and a daemon
//! that meets an EPERM it never saw in a test, in the middle of a copy-up, is
//! worse than one that could have called `mincore`. For the same reason the
//! answer is EPERM and never the end of the process. A call that runs a
//! program, makes a process, a mount or a namespace, opens a socket, looks
//! into other processes, opens files by handle, loads code into the kernel or
//! becomes another user has no place in a request, whatever the library.
//!
//! What it costs: since Linux 5.11 the kernel looks a call up in a bitmap where
//! the filter does not ask for its arguments, which is so for every call that
//! requests make but ioctl(2) and clone(2).

use libc::{BPF_ABS, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET, BPF_W};
use libc::{c_long, sock_filter};

use super::Outcome;
use crate::sys::{Errno, Result};

/// Refused whatever their arguments are.
const REFUSED: &[c_long] = &[
    // Programs and processes.
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    // Who we are.
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
    // Mounts and namespaces; umount2 is a choice of the caller's.
    libc::SYS_mount,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    // Files past every directory.
    libc::SYS_open_by_handle_at,
    // The network, and other processes' sockets.
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    // The kernel itself.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_syslog,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_vhangup,
    libc::SYS_personality,
    libc::SYS_fanotify_init,
];

/// The same, of calls that only some machines have.
#[cfg(target_arch = "x86_64")]
const REFUSED_HERE: &[c_long] = &[
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
    libc::SYS_uselib,
];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_HERE: &[c_long] = &[];

/// `AUDIT_ARCH_…` of this machine; elsewhere there is no such fence.
#[cfg(target_arch = "x86_64")]
const MACHINE: Option<u32> = Some(0xc000_003e);
#[cfg(target_arch = "aarch64")]
const MACHINE: Option<u32> = Some(0xc000_00b7);
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const MACHINE: Option<u32> = None;

/// Numbers from here on are another machine's (x32).
const FOREIGN: u32 = 0x4000_0000;

/// Offsets in `struct seccomp_data`; of a 64-bit argument the lower half.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const fn argument(n: u32) -> u32 {
    16 + 8 * n
}

const NEW_NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u32;

/// TIOCSTI and TIOCLINUX: typing on somebody's terminal.
const TYPING: [u32; 2] = [0x5412, 0x541c];

/// Puts the filter up for every thread of this process, and sets
/// no_new_privs for them, without which nobody but root may.
///
/// `umount`: whether umount2(2) stays allowed.
pub fn refuse(umount: bool) -> Outcome {
    Outcome::of(MACHINE.ok_or(Errno::ENOSYS).and_then(|machine| {
        let me = std::process::id();
        install(&program(machine, umount, me))
    }))
}

fn program(machine: u32, umount: bool, me: u32) -> Vec<sock_filter> {
    let mut p = vec![
        load(ARCH),
        jump(BPF_JEQ, machine, 1, 0),
        refuse_with(libc::EPERM),
        load(NUMBER),
        jump(BPF_JGE, FOREIGN, 0, 1),
        refuse_with(libc::EPERM),
    ];
    let mount_calls = if umount {
        None
    } else {
        Some(libc::SYS_umount2)
    };
    for call in REFUSED.iter().chain(REFUSED_HERE).chain(&mount_calls) {
        p.extend(when(*call, &[refuse_with(libc::EPERM)]));
    }
    // Its flags lie in memory, where no filter can look. The C libraries then
    // use clone(2), as they do on old kernels and under docker's filter.
    p.extend(when(libc::SYS_clone3, &[refuse_with(libc::ENOSYS)]));
    // Threads only, and no new namespaces.
    let threads = [
        load(argument(0)),
        jump(BPF_JSET, NEW_NAMESPACES, 1, 0),
        jump(BPF_JSET, libc::CLONE_THREAD as u32, 1, 0),
        refuse_with(libc::EPERM),
        allow(),
    ];
    p.extend(when(libc::SYS_clone, &threads));
    // A thread's own umask (sys/cred.rs) and its own descriptors (sys/apart.rs) are
    // all that is ever unshared.
    let a_thread_s_own = [
        load(argument(0)),
        jump(BPF_JEQ, libc::CLONE_FS as u32, 2, 0),
        jump(BPF_JEQ, libc::CLONE_FILES as u32, 1, 0),
        refuse_with(libc::EPERM),
        allow(),
    ];
    p.extend(when(libc::SYS_unshare, &a_thread_s_own));
    // abort(3) and the second signal's end are signals to oneself.
    let to_oneself = [
        load(argument(0)),
        jump(BPF_JEQ, me, 1, 0),
        refuse_with(libc::EPERM),
        allow(),
    ];
    p.extend(when(libc::SYS_tgkill, &to_oneself));
    let no_typing = [
        load(argument(1)),
        jump(BPF_JEQ, TYPING[0], 1, 0),
        jump(BPF_JEQ, TYPING[1], 0, 1),
        refuse_with(libc::EPERM),
        allow(),
    ];
    p.extend(when(libc::SYS_ioctl, &no_typing));
    p.push(allow());
    p
}

/// What is done with one call; it must not fall through to what follows it,
/// for the number may not be loaded any more.
fn when(call: c_long, block: &[sock_filter]) -> Vec<sock_filter> {
    // No call has a number that does not fit; were there one, nothing matches.
    let number = u32::try_from(call).unwrap_or(u32::MAX);
    let past = u8::try_from(block.len()).unwrap_or(u8::MAX);
    let mut all = vec![jump(BPF_JEQ, number, 0, past)];
    all.extend_from_slice(block);
    all
}

fn load(offset: u32) -> sock_filter {
    statement(BPF_LD | BPF_W | BPF_ABS, offset)
}

fn allow() -> sock_filter {
    statement(BPF_RET | BPF_K, libc::SECCOMP_RET_ALLOW)
}

fn refuse_with(errno: i32) -> sock_filter {
    let errno = u32::from(u16::try_from(errno).unwrap_or(1));
    statement(BPF_RET | BPF_K, libc::SECCOMP_RET_ERRNO | errno)
}

fn statement(code: u32, k: u32) -> sock_filter {
    let code = code as u16;
    sock_filter {
        code,
        jt: 0,
        jf: 0,
        k,
    }
}

fn jump(test: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    let code = (BPF_JMP | test | BPF_K) as u16;
    sock_filter { code, jt, jf, k }
}

fn install(filter: &[sock_filter]) -> Result<()> {
    rustix::thread::set_no_new_privs(true)?;
    // Without SPEC_ALLOW, kernels before 5.16 slow the whole process down
    // (spec_store_bypass_disable); 4.16 and older do not know the word.
    let all_threads = libc::SECCOMP_FILTER_FLAG_TSYNC;
    let full_speed = all_threads | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    match set_filter(filter, full_speed) {
        Err(Errno::EINVAL) => set_filter(filter, all_threads),
        result => result,
    }
}

fn set_filter(filter: &[sock_filter], flags: libc::c_ulong) -> Result<()> {
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).map_err(|_| Errno::EINVAL)?,
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: the program points to `len` instructions that outlive the call;
    // the kernel copies them and writes nothing.
    let r = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &program,
        )
    };
    match r {
        0 => Ok(()),
        -1 => Err(Errno::last()),
        // A thread that has a filter of its own: its number.
        _ => Err(Errno::EBUSY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the filter answers, worked out as the kernel does.
    fn answer(program: &[sock_filter], arch: u32, call: c_long, args: [u64; 6]) -> u32 {
        let mut data = [0_u8; 64];
        data[0..4].copy_from_slice(&u32::try_from(call).unwrap().to_le_bytes());
        data[4..8].copy_from_slice(&arch.to_le_bytes());
        for (i, a) in args.iter().enumerate() {
            data[16 + 8 * i..24 + 8 * i].copy_from_slice(&a.to_le_bytes());
        }
        let (mut at, mut a) = (0, 0_u32);
        loop {
            let i = program[at];
            at += 1;
            let code = u32::from(i.code);
            if code == BPF_LD | BPF_W | BPF_ABS {
                let k = i.k as usize;
                a = u32::from_le_bytes(data[k..k + 4].try_into().unwrap());
            } else if code == BPF_RET | BPF_K {
                return i.k;
            } else {
                let holds = match code & 0xf0 {
                    BPF_JEQ => a == i.k,
                    BPF_JGE => a >= i.k,
                    BPF_JSET => a & i.k != 0,
                    other => panic!("instruction {other}"),
                };
                at += usize::from(if holds { i.jt } else { i.jf });
            }
        }
    }

    const EPERM: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;

    #[test]
    fn what_is_on_the_list_is_refused_and_what_requests_need_is_not() {
        let machine = MACHINE.unwrap_or(7);
        for umount in [true, false] {
            let p = program(machine, umount, 4242);
            assert!(p.len() < 4096, "the kernel's limit");
            let ask = |call, args| answer(&p, machine, call, args);
            for call in REFUSED.iter().chain(REFUSED_HERE) {
                assert_eq!(ask(*call, [0; 6]), EPERM, "{call}");
                assert_eq!(ask(*call, [u64::MAX; 6]), EPERM, "{call}");
            }
            let expected = if umount { ALLOW } else { EPERM };
            assert_eq!(ask(libc::SYS_umount2, [0; 6]), expected);
            for call in [
                libc::SYS_read,
                libc::SYS_openat,
                libc::SYS_statx,
                libc::SYS_copy_file_range,
                libc::SYS_setfsuid,
                libc::SYS_capset,
                libc::SYS_mknodat,
                libc::SYS_name_to_handle_at,
                libc::SYS_prctl,
                libc::SYS_fsetxattr,
                libc::SYS_membarrier,
                libc::SYS_sendto,
                libc::SYS_exit_group,
            ] {
                assert_eq!(ask(call, [0; 6]), ALLOW, "{call}");
            }
        }
    }

    #[test]
    fn calls_are_told_apart_by_their_arguments() {
        let machine = MACHINE.unwrap_or(7);
        let p = program(machine, true, 4242);
        let ask =
            |call, first: u64, second: u64| answer(&p, machine, call, [first, second, 0, 0, 0, 0]);
        let thread = (libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_THREAD) as u64;
        assert_eq!(ask(libc::SYS_clone, thread, 0), ALLOW);
        assert_eq!(ask(libc::SYS_clone, libc::SIGCHLD as u64, 0), EPERM);
        let with_user = thread | libc::CLONE_NEWUSER as u64;
        assert_eq!(ask(libc::SYS_clone, with_user, 0), EPERM);
        assert_eq!(ask(libc::SYS_clone3, 0, 0), ENOSYS);
        assert_eq!(ask(libc::SYS_unshare, libc::CLONE_FS as u64, 0), ALLOW);
        assert_eq!(ask(libc::SYS_unshare, libc::CLONE_FILES as u64, 0), ALLOW);
        assert_eq!(ask(libc::SYS_unshare, libc::CLONE_NEWNS as u64, 0), EPERM);
        assert_eq!(ask(libc::SYS_unshare, libc::CLONE_NEWUSER as u64, 0), EPERM);
        assert_eq!(ask(libc::SYS_tgkill, 4242, 4243), ALLOW);
        assert_eq!(ask(libc::SYS_tgkill, 1, 1), EPERM);
        assert_eq!(ask(libc::SYS_ioctl, 3, 0x4004_9409), ALLOW);
        for typing in TYPING {
            assert_eq!(ask(libc::SYS_ioctl, 3, typing.into()), EPERM);
        }
    }

    #[test]
    fn another_machines_numbers_are_refused() {
        let machine = MACHINE.unwrap_or(7);
        let p = program(machine, true, 1);
        assert_eq!(answer(&p, 0x4000_0003, libc::SYS_read, [0; 6]), EPERM);
        let x32 = libc::SYS_read + c_long::from(FOREIGN);
        assert_eq!(answer(&p, machine, x32, [0; 6]), EPERM);
    }
}
