//! Seccomp filters: what each kind of process never needs, answered with `EPERM`.
//!
//! A list of what is denied, not of what is allowed: the runtime, the resolver and the allocator choose their calls, and a kernel
//! or library update must not stop a plant. What matters is named: programs, processes, other processes' memory, privileges, the
//! kernel's own set-up, and for those who talk to no network, sockets.

use crate::{JailError, Kind};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};
use std::collections::BTreeMap;

/// What no process of the device needs after its start.
const NEVER: &[libc::c_long] = &[
    // other programs
    libc::SYS_execve,
    libc::SYS_execveat,
    // other processes
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_kcmp,
    libc::SYS_move_pages,
    libc::SYS_migrate_pages,
    // the file system's layout
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_mknodat,
    libc::SYS_fanotify_init,
    libc::SYS_quotactl,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    // namespaces and privileges
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
    libc::SYS_capset,
    libc::SYS_personality,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    // the kernel
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_syslog,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_fork,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_vfork,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mknod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
];

/// Making and connecting sockets: only those who talk to a network.
const SOCKETS: &[libc::c_long] = &[
    libc::SYS_socket,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_socketpair,
];

/// Offering a service: nobody but the agent, on its admin socket. Executors are given sockets that listen already.
const LISTEN: &[libc::c_long] = &[libc::SYS_listen];

/// Accepting: executors, and the agent.
const ACCEPT: &[libc::c_long] = &[libc::SYS_accept, libc::SYS_accept4];

/// Which calls are denied whatever their arguments.
fn lists(kind: Kind) -> Vec<&'static [libc::c_long]> {
    match kind {
        Kind::Agent => vec![NEVER],
        Kind::Executor => vec![NEVER, SOCKETS, LISTEN],
        Kind::Broker => vec![NEVER, LISTEN, ACCEPT],
        Kind::Compiler => vec![NEVER, SOCKETS, LISTEN, ACCEPT],
        Kind::Ceremony => vec![SOCKETS, LISTEN, ACCEPT],
    }
}

fn when(argument: u8, operation: SeccompCmpOp, value: u64) -> Result<SeccompCondition, JailError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operation, value).map_err(|_| BROKEN)
}

fn rule(conditions: Vec<SeccompCondition>) -> Result<SeccompRule, JailError> {
    SeccompRule::new(conditions).map_err(|_| BROKEN)
}

/// Which calls are denied for some of their arguments.
fn by_arguments(kind: Kind) -> Result<BTreeMap<libc::c_long, Vec<SeccompRule>>, JailError> {
    use SeccompCmpOp::{Eq, MaskedEq, Ne};
    let number = |value: libc::c_int| u64::from(value.unsigned_abs());
    let mut rules = BTreeMap::new();
    if kind == Kind::Ceremony {
        return Ok(rules);
    }
    // Threads, not processes.
    let thread = number(libc::CLONE_THREAD);
    rules.insert(libc::SYS_clone, vec![rule(vec![when(0, MaskedEq(thread), 0)?])?]);
    // Signals to this process only: abort() sends one.
    let own = u64::from(std::process::id());
    rules.insert(libc::SYS_tgkill, vec![rule(vec![when(0, Ne, own)?])?]);
    // Limits of this process only.
    rules.insert(
        libc::SYS_prlimit64,
        vec![rule(vec![when(0, Ne, 0)?, when(0, Ne, own)?])?],
    );
    // Neither readable by others again, nor outliving the parent.
    let undo = [
        libc::PR_SET_DUMPABLE,
        libc::PR_SET_PDEATHSIG,
        libc::PR_SET_PTRACER,
    ];
    let undo: Result<Vec<_>, _> = undo
        .into_iter()
        .map(|option| rule(vec![when(0, Eq, number(option))?]))
        .collect();
    rules.insert(libc::SYS_prctl, undo?);
    // Typing into somebody's terminal.
    let requests = [0x5412_u64, 0x541c];
    let typing: Result<Vec<_>, _> = requests
        .into_iter()
        .map(|request| rule(vec![when(1, Eq, request)?]))
        .collect();
    rules.insert(libc::SYS_ioctl, typing?);
    if matches!(kind, Kind::Broker | Kind::Agent) {
        // TCP and UDP, and what the resolver uses; no packets, no virtual machines, no kernel cryptography. No raw sockets.
        let families = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
        let others: Result<Vec<_>, _> = families
            .into_iter()
            .map(|family| when(0, Ne, number(family)))
            .collect();
        // Netlink sockets are of the raw type by convention.
        let raw = vec![
            when(1, MaskedEq(0xf), number(libc::SOCK_RAW))?,
            when(0, Ne, number(libc::AF_NETLINK))?,
        ];
        rules.insert(libc::SYS_socket, vec![rule(others?)?, rule(raw)?]);
    }
    Ok(rules)
}

const BROKEN: JailError = JailError::System {
    what: "building a seccomp filter",
    errno: libc::EINVAL,
};

/// Installs the filter for this thread and all it will start. Says whether the kernel took it.
pub(crate) fn install(kind: Kind) -> Result<bool, JailError> {
    let mut rules = by_arguments(kind)?;
    for call in lists(kind).into_iter().flatten() {
        rules.insert(*call, Vec::new());
    }
    deny_x32(&mut rules);
    let denied = apply(rules, libc::EPERM)?;
    if kind == Kind::Ceremony {
        return Ok(denied);
    }
    // Its flags are behind a pointer no filter can follow. "No such call" makes the C library use `clone`.
    let newer = apply(BTreeMap::from([(libc::SYS_clone3, Vec::new())]), libc::ENOSYS)?;
    Ok(denied && newer)
}

/// The same calls by the numbers of the x32 way of calling, which some kernels offer to 64-bit programs, and that way's own numbers.
#[cfg(target_arch = "x86_64")]
fn deny_x32(rules: &mut BTreeMap<libc::c_long, Vec<SeccompRule>>) {
    const X32: libc::c_long = 0x4000_0000;
    let denied: Vec<_> = rules
        .keys()
        .copied()
        .chain([libc::SYS_clone3])
        .chain(512..=547)
        .collect();
    rules.extend(denied.into_iter().map(|call| (call | X32, Vec::new())));
}

#[cfg(not(target_arch = "x86_64"))]
fn deny_x32(_: &mut BTreeMap<libc::c_long, Vec<SeccompRule>>) {}

fn apply(rules: BTreeMap<libc::c_long, Vec<SeccompRule>>, errno: libc::c_int) -> Result<bool, JailError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|_| BROKEN)?;
    let action = SeccompAction::Errno(errno.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, action, arch).map_err(|_| BROKEN)?;
    let program: BpfProgram = filter.try_into().map_err(|_| BROKEN)?;
    Ok(seccompiler::apply_filter(&program).is_ok())
}
