//! A system call made by somebody else's thread: by ptrace(2), as a debugger would, so that it goes through that
//! thread's own filters, domain and credentials.

use std::path::Path;

/// A thread of another process, held still.
pub struct Held {
    tid: i32,
    saved: libc::user_regs_struct,
}

/// The threads of a process whose name begins so.
pub fn threads(pid: u32, name: &str) -> Vec<i32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    tasks
        .flatten()
        .filter(|t| {
            std::fs::read_to_string(t.path().join("comm")).is_ok_and(|c| c.starts_with(name))
        })
        .map(|t| t.file_name().to_str().unwrap().parse().unwrap())
        .collect()
}

fn trace(request: u32, tid: i32, address: usize, data: usize) -> i64 {
    // SAFETY: every pointer given in `data` below is to a live value of the type that the request wants.
    let answer = unsafe { libc::ptrace(request, tid, address, data) };
    assert!(
        answer != -1,
        "ptrace {request}: {}",
        std::io::Error::last_os_error()
    );
    answer
}

fn wait_for_stop(tid: i32) {
    let mut status = 0;
    // SAFETY: one int, which lives.
    let who = unsafe { libc::waitpid(tid, &mut status, libc::__WALL) };
    assert!(who == tid && libc::WIFSTOPPED(status), "{tid}: {status:x}");
}

impl Held {
    /// Holds a thread that sleeps in a system call (an event loop waits in read(2)).
    pub fn take(tid: i32) -> Self {
        trace(libc::PTRACE_SEIZE, tid, 0, 0);
        trace(libc::PTRACE_INTERRUPT, tid, 0, 0);
        wait_for_stop(tid);
        Self {
            tid,
            saved: registers(tid),
        }
    }

    /// Has it make a system call: what the kernel answers, an errno as a negative number.
    pub fn call(&self, number: i64, arguments: [u64; 6]) -> i64 {
        let mut regs = self.saved;
        // It sleeps right behind a `syscall` instruction: that one is used.
        regs.rip -= 2;
        let word = trace(libc::PTRACE_PEEKTEXT, self.tid, regs.rip as usize, 0);
        assert_eq!(word & 0xffff, 0x050f, "no syscall instruction there");
        regs.rax = number as u64;
        regs.orig_rax = u64::MAX;
        [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9] = arguments;
        self.set(&regs);
        trace(libc::PTRACE_SINGLESTEP, self.tid, 0, 0);
        wait_for_stop(self.tid);
        registers(self.tid).rax as i64
    }

    /// Puts a path where the thread can read it: below its stack. Its address.
    pub fn place(&self, path: &Path) -> u64 {
        let at = (self.saved.rsp - 4096) & !7;
        let mut bytes = path.to_str().unwrap().as_bytes().to_vec();
        bytes.resize((bytes.len() / 8 + 1) * 8, 0);
        for (i, word) in bytes.chunks(8).enumerate() {
            let word = u64::from_ne_bytes(word.try_into().unwrap());
            trace(
                libc::PTRACE_POKEDATA,
                self.tid,
                at as usize + 8 * i,
                word as usize,
            );
        }
        at
    }

    fn set(&self, regs: &libc::user_regs_struct) {
        trace(
            libc::PTRACE_SETREGS,
            self.tid,
            0,
            std::ptr::from_ref(regs) as usize,
        );
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Back into the call that it slept in.
        let mut regs = self.saved;
        regs.rip -= 2;
        regs.rax = regs.orig_rax;
        regs.orig_rax = u64::MAX;
        self.set(&regs);
        trace(libc::PTRACE_DETACH, self.tid, 0, 0);
    }
}

fn registers(tid: i32) -> libc::user_regs_struct {
    // SAFETY: plain numbers, all of them valid as zero.
    let mut regs: libc::user_regs_struct = unsafe { std::mem::zeroed() };
    trace(
        libc::PTRACE_GETREGS,
        tid,
        0,
        std::ptr::from_mut(&mut regs) as usize,
    );
    regs
}
