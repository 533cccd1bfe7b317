//! Giving up what a kind of process does not need.

use crate::filter::install;
use crate::privileges;
use crate::{Isolation, JailError, last};
use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, PathBeneath, PathFd,
    RestrictionStatus, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus,
};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

/// Kinds of process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Keys and network, no other programs.
    Agent,
    /// Guests: accepts on inherited sockets, makes and connects none, sees its data folder only.
    Executor,
    /// Dials, and reads what its resolver needs.
    Broker,
    /// One component in, native code out: no network, no files.
    Compiler,
    /// Not of a device: the key tool, which denies itself sockets and nothing else.
    Ceremony,
}

/// What a resolver reads (glibc loads its modules while it runs).
const RESOLVER: &[&str] = &[
    "/etc",
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/run/systemd/resolve",
];
/// Compiler: address space, bytes. A large guest takes 350 MB to compile.
const COMPILER_MEMORY: u64 = 4 << 30;
/// Executor: descriptors. Its 64 slots may listen to 512 clients each.
const FILES_MAX: u64 = 65_536;
/// Compiler: CPU time, seconds.
const COMPILER_CPU: u64 = 120;

/// What an executor reaches of the file system; nothing of anybody else's.
#[derive(Clone, Copy, Debug, Default)]
pub struct Folders<'a> {
    /// Its own, which becomes its working directory.
    pub data: Option<BorrowedFd<'a>>,
    /// What the device ceiling maps volumes to.
    pub lent: &'a [Lent],
}

/// A folder of the device's own.
#[derive(Debug)]
pub struct Lent {
    /// Opened with `O_PATH`.
    pub folder: OwnedFd,
    /// Whether more than reading is possible there.
    pub writable: bool,
}

/// Confines this process for good. Call with one thread, before anything from a peer was read. The executor's own folder is opened (`O_PATH`) by the caller, for neither the user before nor the one after could walk there:
/// the folders above belong to the one, the folder itself to the other. `user`: the user and group to become, if this process may.
pub fn confine(kind: Kind, folders: Folders<'_>, user: Option<u32>) -> Result<Isolation, JailError> {
    let mut isolation = Isolation {
        processes: true,
        ..Isolation::default()
    };
    limits(kind)?;
    // SAFETY: prctl with constant arguments.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } == 0 {
        isolation.no_new_privs = true;
    }
    if kind != Kind::Agent {
        isolation.landlock = landlock(kind, folders);
    }
    if matches!(kind, Kind::Executor | Kind::Compiler) {
        leave_the_network();
    }
    if let Some(user) = user {
        become_user(user)?;
        isolation.users = true;
    }
    privileges::give_up(kind)?;
    if let Some(data) = folders.data {
        // SAFETY: fchdir on a descriptor that is borrowed for this call.
        if unsafe { libc::fchdir(data.as_raw_fd()) } != 0 {
            return Err(last("entering the data folder"));
        }
    }
    // After the last change of user, which would set it again.
    // SAFETY: prctl with constant arguments.
    if unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) } != 0 {
        return Err(last("prctl"));
    }
    isolation.seccomp = install(kind)?;
    Ok(isolation)
}

/// Keeps this process' memory out of swap from here on, each page from when it is first touched (mlockall(2), `MCL_ONFAULT`): the device's
/// keys are somewhere in it. Whether that was possible. Only without any limit: under one, memory would run out in the middle of work.
/// Call before [`confine()`]; for a process that starts no other.
pub fn keep_out_of_swap() -> bool {
    let unlimited = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: setrlimit reads the struct it is given.
    let raised = unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const unlimited) } == 0;
    if !raised && !privileges::may_lock() {
        return false;
    }
    // SAFETY: constant flags; it changes where pages may be, not what is in them.
    unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT) == 0 }
}

/// Denies this process sockets for good: the ceremony tool's first act.
pub fn deny_sockets() -> Result<bool, JailError> {
    // Without it, a filter needs privileges this tool may lack.
    // SAFETY: prctl with constant arguments.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(last("prctl"));
    }
    install(Kind::Ceremony)
}

fn limits(kind: Kind) -> Result<(), JailError> {
    limit(libc::RLIMIT_CORE, 0)?;
    if kind != Kind::Agent {
        limit(libc::RLIMIT_MEMLOCK, 0)?;
    }
    if kind == Kind::Executor {
        // Clients and guests' files: the 1024 that most systems begin with are few for both.
        raise_files()?;
    }
    if kind == Kind::Compiler {
        limit(libc::RLIMIT_AS, COMPILER_MEMORY)?;
        limit(libc::RLIMIT_CPU, COMPILER_CPU)?;
        limit(libc::RLIMIT_FSIZE, 1 << 30)?;
    }
    Ok(())
}

/// As many descriptors as this process may have, up to [`FILES_MAX`].
fn raise_files() -> Result<(), JailError> {
    let mut value = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: getrlimit writes the struct it is given.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut value) } != 0 {
        return Err(last("getrlimit"));
    }
    limit(libc::RLIMIT_NOFILE, value.rlim_max.min(FILES_MAX))
}

fn limit(what: libc::__rlimit_resource_t, most: u64) -> Result<(), JailError> {
    let value = libc::rlimit {
        rlim_cur: most,
        rlim_max: most,
    };
    // SAFETY: setrlimit reads the struct it is given.
    if unsafe { libc::setrlimit(what, &raw const value) } != 0 {
        return Err(last("setrlimit"));
    }
    Ok(())
}

/// Files beneath the given folders, no TCP for those who make no connections. Best effort: older kernels know less, and say so.
fn landlock(kind: Kind, folders: Folders<'_>) -> bool {
    let abi = ABI::V5;
    let all = AccessFs::from_all(abi) & !AccessFs::Execute & !AccessFs::MakeChar & !AccessFs::MakeBlock;
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let restricted = || -> Result<RestrictionStatus, landlock::RulesetError> {
        let mut ruleset = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(abi))?;
        ruleset = if kind == Kind::Broker {
            ruleset.handle_access(AccessNet::BindTcp)?
        } else {
            ruleset.handle_access(AccessNet::BindTcp | AccessNet::ConnectTcp)?
        };
        let mut ruleset = ruleset.create()?;
        if let Some(folder) = folders.data {
            ruleset = ruleset.add_rule(PathBeneath::new(folder, all))?;
        }
        for Lent { folder, writable } in folders.lent {
            let access = if *writable { all } else { read };
            ruleset = ruleset.add_rule(PathBeneath::new(folder.as_fd(), access))?;
        }
        if kind == Kind::Broker {
            for folder in RESOLVER.iter().filter_map(|path| PathFd::new(path).ok()) {
                ruleset = ruleset.add_rule(PathBeneath::new(folder, AccessFs::from_read(abi)))?;
            }
        }
        ruleset.restrict_self()
    };
    restricted().is_ok_and(|status| status.ruleset != RulesetStatus::NotEnforced)
}

/// A network of its own, with nothing in it: one more wall for those who make no connections, where the process may build it (root,
/// outside of a service manager that forbids it). Sockets that were handed over stay where they are, and work.
fn leave_the_network() {
    // SAFETY: unshare with a constant flag. Without the privilege it fails and changes nothing: Landlock and seccomp hold anyway.
    let _ = unsafe { libc::unshare(libc::CLONE_NEWNET) };
}

fn become_user(user: u32) -> Result<(), JailError> {
    // SAFETY: plain system calls on numbers; groups first, while we still may.
    unsafe {
        if libc::setgroups(0, std::ptr::null()) != 0
            || libc::setresgid(user, user, user) != 0
            || libc::setresuid(user, user, user) != 0
        {
            return Err(last("changing the user"));
        }
    }
    Ok(())
}
