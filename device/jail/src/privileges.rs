//! Capabilities (capabilities(7)): what the supervisor needs to give its children users of their own, and how each child gives
//! them up. Changing from one ordinary user to another keeps them, so it is never left to the change of user.

use crate::confine::Kind;
use crate::{JailError, last};

const CHOWN: u32 = 0;
const DAC_OVERRIDE: u32 = 1;
const KILL: u32 = 5;
const SETGID: u32 = 6;
const SETUID: u32 = 7;
const NET_BIND_SERVICE: u32 = 10;
const IPC_LOCK: u32 = 14;

/// `_LINUX_CAPABILITY_VERSION_3`
const VERSION: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

/// One half of the 64 capabilities.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Half {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Whether this process can give children users of their own: change user and group, hand folders over, stop whoever it started.
pub fn may_give_users() -> bool {
    let needed = of(&[CHOWN, KILL, SETGID, SETUID]);
    held().is_ok_and(|[low, _]| low.effective & needed == needed)
}

/// Whether this process may lock as much memory as it likes, now and once it is confined as the agent is.
pub(crate) fn may_lock() -> bool {
    held().is_ok_and(|[low, _]| low.effective & of(&[IPC_LOCK]) != 0)
}

/// Gives up what this kind of process never needs. The agent keeps, if it has them, ports below 1024, memory out of swap and, as root, the
/// files of whoever set the device up; everybody else keeps nothing.
pub(crate) fn give_up(kind: Kind) -> Result<(), JailError> {
    let keep = if kind == Kind::Agent {
        of(&[DAC_OVERRIDE, NET_BIND_SERVICE, IPC_LOCK])
    } else {
        0
    };
    let [low, _] = held()?;
    let left = Half {
        effective: low.effective & keep,
        permitted: low.permitted & keep,
        inheritable: 0,
    };
    let header = Header {
        version: VERSION,
        pid: 0,
    };
    let sets = [left, Half::default()];
    // SAFETY: both structs have the kernel's layout (linux/capability.h) and outlive the call, which only reads them. What is neither
    // permitted nor inheritable leaves the ambient set by itself.
    if unsafe { libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()) } != 0 {
        return Err(last("giving capabilities up"));
    }
    Ok(())
}

fn held() -> Result<[Half; 2], JailError> {
    let mut header = Header {
        version: VERSION,
        pid: 0,
    };
    let mut sets = [Half::default(); 2];
    // SAFETY: both structs have the kernel's layout; version 3 writes two halves, which is what there is room for.
    if unsafe { libc::syscall(libc::SYS_capget, &raw mut header, sets.as_mut_ptr()) } != 0 {
        return Err(last("reading capabilities"));
    }
    Ok(sets)
}

fn of(numbers: &[u32]) -> u32 {
    numbers.iter().fold(0, |set, number| set | (1 << number))
}
