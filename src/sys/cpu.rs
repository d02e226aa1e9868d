//! Which CPU a thread runs on, and may run on.

use std::fs::File;
use std::os::unix::fs::FileExt;

use rustix::process::Resource;
use rustix::thread::{CapabilitySet, CpuSet, Pid};

use super::{Errno, Result};

/// CPUs that a thread may run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cpus(CpuSet);

impl Cpus {
    /// Those of the calling thread.
    ///
    /// # Errors
    /// EINVAL where the kernel knows more CPUs than fit (1,024).
    pub fn of_this_thread() -> Result<Cpus> {
        Ok(Cpus(rustix::thread::sched_getaffinity(None)?))
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.0.count() as usize
    }

    /// Whether this one is among them.
    pub fn has(&self, cpu: usize) -> bool {
        cpu < CpuSet::MAX_CPU && self.0.is_set(cpu)
    }

    /// This one alone.
    pub fn only(cpu: usize) -> Option<Cpus> {
        let mut set = CpuSet::new();
        (cpu < CpuSet::MAX_CPU).then(|| {
            set.set(cpu);
            Cpus(set)
        })
    }

    /// Makes a thread of this process run on these alone; `None`: the caller.
    ///
    /// # Errors
    /// EINVAL where none of them is left in its cpuset, EPERM behind a seccomp filter.
    pub fn confine(&self, thread: Option<Thread>) -> Result<()> {
        let pid = thread.map(|t| t.0);
        Ok(rustix::thread::sched_setaffinity(pid, &self.0)?)
    }
}

/// A thread, as the kernel numbers them.
#[derive(Debug, Clone, Copy)]
pub struct Thread(Pid);

impl Thread {
    /// The calling one.
    pub fn current() -> Thread {
        Thread(rustix::thread::gettid())
    }
}

/// How a thread shares its CPU with others (sched(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// SCHED_OTHER.
    Ordinary,
    /// SCHED_IDLE: it runs only when nobody else wants its CPU.
    Idle,
}

impl Thread {
    /// Puts it into a class.
    ///
    /// # Errors
    /// EPERM for the way out of the idle class, without CAP_SYS_NICE in the first user
    /// namespace and below an RLIMIT_NICE of 20; and behind a seccomp filter. ESRCH
    /// where it is gone.
    pub fn put_in(self, class: Class) -> Result<()> {
        let policy = match class {
            Class::Ordinary => libc::SCHED_OTHER,
            Class::Idle => libc::SCHED_IDLE,
        };
        // SAFETY: all zeroes is a value of the type; both classes take priority 0.
        let param: libc::sched_param = unsafe { std::mem::zeroed() };
        let thread = self.0.as_raw_nonzero().get();
        // SAFETY: the pointer is to a live sched_param, which the kernel only reads. By
        // number and not by the C library's function: musl's answers ENOSYS.
        let done = unsafe {
            libc::syscall(
                libc::SYS_sched_setscheduler,
                thread,
                policy,
                &raw const param,
            )
        };
        match done {
            0 => Ok(()),
            _ => Err(Errno::last()),
        }
    }
}

/// Whether the calling thread is of the ordinary class.
pub fn is_ordinary() -> bool {
    // SAFETY: takes a number, 0 for the caller, and returns one.
    let policy = unsafe { libc::syscall(libc::SYS_sched_getscheduler, 0) };
    policy == libc::c_long::from(libc::SCHED_OTHER)
}

/// Whether a thread of this process may leave the idle class again
/// (user_check_sched_setscheduler(), kernel/sched/syscalls.c). Not tried: on a busy
/// machine one that may not, and one on its way back, would hold us up for seconds.
pub fn may_leave_idle_class() -> bool {
    let has_right = || {
        let own = rustix::thread::capabilities(None);
        own.is_ok_and(|own| own.effective.contains(CapabilitySet::SYS_NICE))
    };
    let nice = rustix::process::getrlimit(Resource::Nice).current;
    nice.is_none_or(|most| most >= NICE_OF_ZERO)
        || (has_right() && super::process::in_first_user_namespace())
}

/// RLIMIT_NICE that lets a thread have a nice value of 0 (getrlimit(2)).
const NICE_OF_ZERO: u64 = 20;

/// A thread of anybody's, watched by way of /proc.
#[derive(Debug)]
pub struct Watched(File);

impl Watched {
    /// This one, by its number in our /proc.
    ///
    /// # Errors
    /// ENOENT where it is gone or hidden (hidepid=).
    pub fn new(thread: u32) -> Result<Watched> {
        let file = File::open(format!("/proc/{thread}/stat"));
        file.map(Watched).map_err(|e| Errno::from_io(&e))
    }

    /// Where it is now; `None` where it is gone.
    pub fn look(&self) -> Option<Look> {
        let mut line = [0; 1024];
        let n = self.0.read_at(&mut line, 0).ok()?;
        look_in(line.get(..n)?)
    }
}

/// What a thread is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Whether it runs or wants to.
    pub runs: bool,
    /// The CPU it runs on or ran on last.
    pub cpu: usize,
}

/// Fields 3 and 39 of /proc/PID/stat (proc_pid_stat(5)). The second one, a name in
/// parentheses, may hold anything.
fn look_in(line: &[u8]) -> Option<Look> {
    let behind_name = line.iter().rposition(|b| *b == b')')?;
    let fields = std::str::from_utf8(line.get(behind_name + 1..)?).ok()?;
    let mut fields = fields.split_ascii_whitespace();
    let runs = fields.next()? == "R";
    let cpu = fields.nth(35)?.parse().ok()?;
    Some(Look { runs, cpu })
}

/// How many threads of the whole machine run or want to, at this moment: the
/// fourth field of /proc/loadavg.
pub fn running() -> Option<usize> {
    let line = std::fs::read_to_string("/proc/loadavg").ok()?;
    let field = line.split_ascii_whitespace().nth(3)?;
    field.split_once('/')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_is_found_behind_any_name() {
        let rest = "S 1 2 3 0 -1 4 5 6 7 8 9 10 11 12 20 0 1 0 99 100 200 300 1 1 0 0 0 0 0 1 0 1 0 0 17 5 0 0 0";
        for name in ["sh", "a) R 1 2 (b", "((", "\u{fc}"] {
            let seen = look_in(format!("12 ({name}) {rest}").as_bytes()).unwrap();
            assert_eq!((seen.runs, seen.cpu), (false, 5));
        }
        for bad in ["", "12", "12 (sh", "12 (sh)", "12 (sh) S 1 2"] {
            assert_eq!(look_in(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn a_confined_thread_is_seen_where_it_is() {
        let all = Cpus::of_this_thread().unwrap();
        for cpu in (0..64).filter(|c| all.has(*c)) {
            let only = Cpus::only(cpu).unwrap();
            let seen = std::thread::spawn(move || {
                only.confine(None).unwrap();
                let me = u32::try_from(Thread::current().0.as_raw_nonzero().get()).unwrap();
                (
                    Watched::new(me).unwrap().look().unwrap(),
                    Cpus::of_this_thread().unwrap().count(),
                )
            });
            assert_eq!(seen.join().unwrap(), (Look { runs: true, cpu }, 1));
        }
        assert!(running().is_some_and(|n| n >= 1));
        assert!(is_ordinary());
    }

    #[test]
    fn whoever_may_leave_the_idle_class_leaves_it() {
        let there_and_back = std::thread::spawn(|| {
            Thread::current().put_in(Class::Idle).unwrap();
            let was_idle = !is_ordinary();
            let left = Thread::current().put_in(Class::Ordinary).is_ok();
            (was_idle, left, is_ordinary())
        });
        let may = may_leave_idle_class();
        assert_eq!(there_and_back.join().unwrap(), (true, may, may));
    }
}
