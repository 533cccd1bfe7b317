//! Seccomp filters: a list of calls each kind of process never needs, answered with `EPERM`.

use crate::JailError;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};
use std::collections::BTreeMap;

/// What no process of the device needs after its start: other programs, other processes, the kernel's own set-up.
const NEVER: &[libc::c_long] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_sethostname,
    libc::SYS_acct,
];

/// Making or connecting sockets: only those who talk to a network.
const SOCKETS: &[libc::c_long] = &[
    libc::SYS_socket,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_socketpair,
];

/// Accepting: only executors.
const ACCEPT: &[libc::c_long] = &[libc::SYS_accept, libc::SYS_accept4];

/// Which lists apply.
pub(crate) struct Lists {
    pub(crate) sockets: bool,
    pub(crate) accept: bool,
    pub(crate) never: bool,
}

/// Installs the filter for this thread and all it will start. Says whether the kernel took it.
pub(crate) fn install(lists: &Lists) -> Result<bool, JailError> {
    let mut rules = BTreeMap::new();
    let wanted = [
        (lists.never, NEVER),
        (lists.sockets, SOCKETS),
        (lists.accept, ACCEPT),
    ];
    for call in wanted
        .iter()
        .filter(|(on, _)| *on)
        .flat_map(|(_, calls)| calls.iter())
    {
        rules.insert(*call, Vec::new());
    }
    let broken = JailError::System {
        what: "building a seccomp filter",
        errno: libc::EINVAL,
    };
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|_| broken)?;
    let denied = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, denied, arch).map_err(|_| broken)?;
    let program: BpfProgram = filter.try_into().map_err(|_| broken)?;
    Ok(seccompiler::apply_filter(&program).is_ok())
}
