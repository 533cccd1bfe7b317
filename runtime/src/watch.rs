//! A compilation under watch: what takes too long, or too much memory, is a refusal and no dead process.
//!
//! Compiling is the one thing done with bytes before anybody's limits hold them: a few kilobytes of component may ask for
//! gigabytes of native code. The kernel's own limits on the compiler's process lie above these, for what grows faster
//! than it is looked at.

use crate::compiler::{self, CompilerError};
use redan_protocol::ipc::Compiled;
use redan_protocol::{ByteCount, Code, Millis};
use rustix::time::{ClockId, clock_gettime};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What one compilation may take.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Budget {
    /// CPU time of all its threads.
    pub cpu: Millis,
    /// Resident memory at its highest, the process itself included.
    pub memory: ByteCount,
}

impl Default for Budget {
    /// The largest guests that people have, Python's 18 MB, take 4 to 8 s and 350 MiB.
    fn default() -> Self {
        Self {
            cpu: Millis::seconds(60),
            memory: ByteCount::mib(768),
        }
    }
}

/// Who looks at this process.
#[derive(Debug)]
pub struct Watch {
    budget: Budget,
    status: Option<File>,
}

impl Watch {
    /// A watch over this process. Call before confinement: `/proc` is out of reach after it. Without `/proc`, memory is left to
    /// the kernel's limit.
    pub fn new(budget: Budget) -> Self {
        Self {
            budget,
            status: File::open("/proc/self/status").ok(),
        }
    }

    fn is_over(&self) -> bool {
        cpu() > self.budget.cpu || self.memory().is_some_and(|memory| memory > self.budget.memory)
    }

    /// The process's resident memory at its highest (`proc_pid_status(5)`, `VmHWM`).
    fn memory(&self) -> Option<ByteCount> {
        let mut text = [0; 8192];
        let length = self.status.as_ref()?.read_at(&mut text, 0).ok()?;
        peak(std::str::from_utf8(text.get(..length)?).ok()?)
    }
}

fn peak(status: &str) -> Option<ByteCount> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok().map(ByteCount::kib)
}

/// CPU time of all threads of this process.
fn cpu() -> Millis {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let millis = |n, factor: u64| u64::try_from(n).unwrap_or(0).saturating_mul(factor);
    Millis::new(
        millis(time.tv_sec, 1000).saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000),
    )
}

/// [`compiler::run`] for a process of its own, which must end when this returns: a compilation over its budget is not waited for.
pub fn run(agent: &OwnedFd, watch: &Watch) -> Result<(), CompilerError> {
    let own = agent.try_clone().map_err(CompilerError::Start)?;
    let (ended, end) = channel();
    let thread = std::thread::Builder::new().name("compile".to_owned());
    let work = move || {
        let outcome = compiler::run(&own);
        // Nobody waits any more for one that was over its budget.
        let _ = ended.send(());
        outcome
    };
    let work = thread.spawn(work).map_err(CompilerError::Start)?;
    loop {
        match end.recv_timeout(LOOK_EVERY) {
            Err(RecvTimeoutError::Timeout) if watch.is_over() => {
                let code = Code::CompileBudget;
                redan_channel::send(agent, &Compiled::Refused { code }, &[])?;
                return Ok(());
            }
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => {
                return work.join().unwrap_or(Err(CompilerError::Died));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_memory_is_read_from_what_the_kernel_says() {
        let status = "Name:\tx\nVmPeak:\t  999 kB\nVmHWM:\t    2048 kB\nVmRSS:\t 1024 kB\n";
        assert_eq!(peak(status), Some(ByteCount::mib(2)));
        assert_eq!(peak("Name:\tzombie\n"), None);
        assert!(Watch::new(Budget::default()).memory() > Some(ByteCount::kib(100)));
    }

    #[test]
    fn a_watch_sees_both_budgets() {
        let over = |cpu, memory| Watch::new(Budget { cpu, memory }).is_over();
        let (long, much) = (Millis::seconds(1 << 30), ByteCount::mib(1 << 20));
        assert!(!over(long, much));
        assert!(over(long, ByteCount::new(1)));
        let start = cpu();
        while cpu() == start {}
        assert!(over(Millis::new(0), much));
    }
}
