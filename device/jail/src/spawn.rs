//! Starting children: this very program again, with a clean environment and exactly the descriptors it is given.

use crate::{JailError, last};
use std::ffi::OsString;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::Mutex;

/// First inherited descriptor.
pub const FIRST: RawFd = 3;
/// Most descriptors a child is given.
pub const DESCRIPTORS_MAX: usize = 4;
/// Where copies are put before they go into place.
const ABOVE: RawFd = 64;
/// Environment variables that pass: logging, and the resolver's own.
const ENVIRONMENT: &[&str] = &["REDAN_LOG", "RUST_BACKTRACE"];

/// What to start.
#[derive(Debug)]
pub struct Spec {
    /// Arguments after the program's name.
    pub arguments: Vec<OsString>,
    /// Descriptors, placed at 3, 4, ….
    pub descriptors: Vec<OwnedFd>,
    /// Names of environment variables it gets beside those that every child gets.
    pub environment: Vec<String>,
    /// The signal it gets when its parent dies.
    pub with_parent: libc::c_int,
}

/// A started child.
pub type Child = std::process::Child;

/// Starts `/proc/self/exe`. Call from the main thread: the parent-death signal is tied to the thread that starts a child.
pub fn spawn(spec: Spec) -> Result<Child, JailError> {
    let mut command = Command::new("/proc/self/exe");
    command
        .args(&spec.arguments)
        .env_clear()
        .stdin(std::process::Stdio::null());
    let more = spec.environment.iter().map(String::as_str);
    for name in ENVIRONMENT.iter().copied().chain(more) {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    if spec.descriptors.len() > DESCRIPTORS_MAX {
        return Err(JailError::System {
            what: "starting a process",
            errno: libc::EINVAL,
        });
    }
    let numbers: Vec<RawFd> = spec
        .descriptors
        .iter()
        .map(std::os::fd::AsRawFd::as_raw_fd)
        .collect();
    let parent = std::process::id();
    let signal = spec.with_parent;
    // SAFETY: between fork and exec only async-signal-safe system calls are made: no allocation (`numbers` was made before and is
    // only read), no locks. The descriptors stay open in the parent until `spec` is dropped after `spawn` has returned.
    unsafe {
        command.pre_exec(move || prepare(&numbers, parent, signal));
    }
    let child = command.spawn().map_err(|error| JailError::System {
        what: "starting a process",
        errno: error.raw_os_error().unwrap_or(0),
    });
    drop(spec.descriptors);
    child
}

/// Occupies the numbers children's descriptors are placed at, so that nothing of this process (the standard library's own pipe to
/// a child among them) ever sits there. Call once, first thing.
pub fn reserve() -> Result<(), JailError> {
    for _ in 0..DESCRIPTORS_MAX.saturating_mul(2) {
        // SAFETY: a constant path, and a descriptor that is deliberately never closed.
        let number = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
        if number < 0 {
            return Err(last("opening /dev/null"));
        }
        if number > FIRST.saturating_add(4) {
            break;
        }
    }
    Ok(())
}

/// In the child, before exec.
fn prepare(numbers: &[RawFd], parent: u32, signal: libc::c_int) -> std::io::Result<()> {
    let fail = || Err(std::io::Error::last_os_error());
    // SAFETY: plain system calls on numbers; see `spawn`.
    unsafe {
        if libc::setpgid(0, 0) != 0 || libc::prctl(libc::PR_SET_PDEATHSIG, signal) != 0 {
            return fail();
        }
        // The parent may have died before prctl: then nobody would ever send the signal.
        if u32::try_from(libc::getppid()) != Ok(parent) {
            return Err(std::io::Error::from_raw_os_error(libc::ESRCH));
        }
        // First out of the way, then into place: a source may sit where a target belongs.
        let mut copies = [-1; DESCRIPTORS_MAX];
        for (copy, source) in copies.iter_mut().zip(numbers) {
            *copy = libc::fcntl(*source, libc::F_DUPFD_CLOEXEC, ABOVE);
            if *copy < 0 {
                return fail();
            }
        }
        for (target, copy) in (FIRST..).zip(copies.iter().take(numbers.len())) {
            if libc::dup2(*copy, target) < 0 {
                return fail();
            }
        }
    }
    Ok(())
}

/// Takes a descriptor this process inherited: at most once for each number.
pub fn inherited(number: RawFd) -> Result<OwnedFd, JailError> {
    static TAKEN: Mutex<Vec<RawFd>> = Mutex::new(Vec::new());
    let mut taken = TAKEN.lock().map_err(|_| JailError::Descriptor(number))?;
    if number < FIRST || taken.contains(&number) {
        return Err(JailError::Descriptor(number));
    }
    // SAFETY: fcntl on a number; it says whether it is open.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return Err(JailError::Descriptor(number));
    }
    taken.push(number);
    // SAFETY: the number is open, was placed by the parent before exec for this purpose, and is given away once.
    let owned = unsafe { OwnedFd::from_raw_fd(number) };
    // It must not reach grandchildren.
    // SAFETY: fcntl on a descriptor we own.
    if unsafe { libc::fcntl(owned.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(last("fcntl"));
    }
    Ok(owned)
}
