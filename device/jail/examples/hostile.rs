//! A hostile program that already runs native code inside a jail: it tries everything and prints what it got.
//!
//! Not shipped: `device/jail/tests/jail.rs` runs it in each kind of jail, and outside of any to see that its actions can succeed.
#![allow(
    unsafe_code,
    reason = "an attacker does not ask; every call is a plain system call on values of its own"
)]
#![allow(clippy::as_conversions, reason = "a system call takes addresses as numbers")]
#![allow(clippy::print_stdout, reason = "its findings are its output")]

use redan_jail::{Folders, Kind, Lent, confine};
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Command;

/// What the attacker aims at.
struct Targets {
    /// Its own folder.
    data: PathBuf,
    /// A file of somebody else, such as the device key.
    secret: PathBuf,
    /// A folder of somebody else.
    elsewhere: PathBuf,
    /// A folder that is lent.
    lent: PathBuf,
    /// One that is lent to read.
    lent_to_read: PathBuf,
    /// A listening server.
    server: SocketAddr,
    /// A listening local socket, such as the agent's admin socket.
    admin: PathBuf,
    /// Another process of the same user, such as the agent.
    victim: i32,
}

type Action = fn(&Targets) -> io::Result<()>;

fn call(number: libc::c_long, arguments: [libc::c_long; 6]) -> io::Result<()> {
    let [one, two, three, four, five, six] = arguments;
    // SAFETY: numbers, null pointers and pointers to texts that outlive the call; the kernel checks them.
    if unsafe { libc::syscall(number, one, two, three, four, five, six) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn socket(family: libc::c_int, kind: libc::c_int) -> io::Result<()> {
    call(libc::SYS_socket, [family.into(), kind.into(), 0, 0, 0, 0])
}

const ACTIONS: &[(&str, Action)] = &[
    ("write-own-folder", |t| fs::write(t.data.join("note"), "mine")),
    ("read-own-folder", |t| fs::read(t.data.join("note")).map(drop)),
    ("read-secret", |t| fs::read(&t.secret).map(drop)),
    ("read-secret-by-link", |t| {
        let link = t.data.join("link");
        drop(fs::remove_file(&link));
        std::os::unix::fs::symlink(&t.secret, &link)?;
        fs::read(&link).map(drop)
    }),
    ("read-secret-by-dots", |t| {
        fs::read(t.data.join("../secret/key")).map(drop)
    }),
    ("read-lent", |t| fs::read(t.lent.join("note")).map(drop)),
    ("write-lent", |t| fs::write(t.lent.join("more"), "mine")),
    ("read-lent-to-read", |t| {
        fs::read(t.lent_to_read.join("note")).map(drop)
    }),
    ("list-lent-to-read", |t| fs::read_dir(&t.lent_to_read).map(drop)),
    ("write-lent-to-read", |t| {
        fs::write(t.lent_to_read.join("more"), "mine")
    }),
    ("overwrite-lent-to-read", |t| {
        fs::write(t.lent_to_read.join("note"), "mine")
    }),
    ("remove-lent-to-read", |t| {
        fs::remove_file(t.lent_to_read.join("removable"))
    }),
    ("leave-lent-by-dots", |t| {
        fs::read(t.lent.join("../secret/key")).map(drop)
    }),
    ("write-elsewhere", |t| fs::write(t.elsewhere.join("planted"), "x")),
    ("make-folder-elsewhere", |t| {
        fs::create_dir(t.elsewhere.join("folder"))
    }),
    ("remove-elsewhere", |t| {
        fs::remove_file(t.elsewhere.join("removable"))
    }),
    ("rename-out", |t| {
        fs::rename(t.data.join("note"), t.elsewhere.join("moved"))
    }),
    ("link-secret-in", |t| {
        fs::hard_link(&t.secret, t.data.join("hard"))
    }),
    ("list-root", |_| fs::read_dir("/").map(drop)),
    ("read-victims-environment", |t| {
        fs::read(format!("/proc/{}/environ", t.victim)).map(drop)
    }),
    ("read-victims-memory", |t| {
        fs::File::open(format!("/proc/{}/mem", t.victim)).map(drop)
    }),
    ("read-own-memory-file", |_| {
        fs::File::open("/proc/self/mem").map(drop)
    }),
    ("execute", |_| Command::new("/bin/true").status().map(drop)),
    ("execute-own-file", |t| {
        let file = t.data.join("program");
        fs::copy("/bin/true", &file).or_else(|_| fs::write(&file, "#!/bin/sh").map(|()| 0))?;
        Command::new(&file).status().map(drop)
    }),
    ("fork", |_| {
        // SAFETY: the child does nothing but end.
        match unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) } {
            -1 => Err(io::Error::last_os_error()),
            // SAFETY: as above.
            0 => unsafe { libc::_exit(0) },
            _ => Ok(()),
        }
    }),
    ("start-thread", |_| {
        let thread = std::thread::Builder::new().spawn(|| ())?;
        thread.join().map_err(|_| io::Error::other("the thread failed"))
    }),
    ("tcp-connect", |t| TcpStream::connect(t.server).map(drop)),
    ("tcp-listen", |_| TcpListener::bind("127.0.0.1:0").map(drop)),
    ("udp-send", |t| {
        UdpSocket::bind("127.0.0.1:0")?.send_to(b"x", t.server).map(drop)
    }),
    ("unix-connect", |t| UnixStream::connect(&t.admin).map(drop)),
    ("unix-listen", |t| {
        UnixListener::bind(t.data.join("own.sock")).map(drop)
    }),
    ("unix-pair", |_| UnixStream::pair().map(drop)),
    ("raw-socket", |_| socket(libc::AF_INET, libc::SOCK_RAW)),
    ("packet-socket", |_| socket(libc::AF_PACKET, libc::SOCK_DGRAM)),
    ("vsock", |_| socket(libc::AF_VSOCK, libc::SOCK_STREAM)),
    ("netlink-socket", |_| socket(libc::AF_NETLINK, libc::SOCK_RAW)),
    ("signal-victim", |t| {
        call(libc::SYS_kill, [t.victim.into(), 0, 0, 0, 0, 0])
    }),
    ("signal-victims-thread", |t| {
        call(libc::SYS_tgkill, [t.victim.into(), t.victim.into(), 0, 0, 0, 0])
    }),
    ("trace-victim", |t| {
        call(libc::SYS_ptrace, [16, t.victim.into(), 0, 0, 0, 0])
    }),
    ("read-victim-by-call", |t| {
        call(libc::SYS_process_vm_readv, [t.victim.into(), 0, 0, 0, 0, 0])
    }),
    ("limit-victim", |t| {
        call(libc::SYS_prlimit64, [t.victim.into(), 7, 0, 0, 0, 0])
    }),
    ("become-root", |_| call(libc::SYS_setresuid, [0, 0, 0, 0, 0, 0])),
    ("drop-to-nobody", |_| {
        call(libc::SYS_setresuid, [65534, 65534, 65534, 0, 0, 0])
    }),
    ("new-user-namespace", |_| {
        call(libc::SYS_unshare, [libc::CLONE_NEWUSER.into(), 0, 0, 0, 0, 0])
    }),
    ("new-mount-namespace", |_| {
        call(libc::SYS_unshare, [libc::CLONE_NEWNS.into(), 0, 0, 0, 0, 0])
    }),
    ("mount", |_| call(libc::SYS_mount, [0, 0, 0, 0, 0, 0])),
    ("change-root", |_| {
        call(libc::SYS_chroot, [c".".as_ptr() as libc::c_long, 0, 0, 0, 0, 0])
    }),
    ("make-device", |t| {
        let path = std::ffi::CString::new(t.data.join("null").to_string_lossy().as_bytes())?;
        let mode = libc::c_long::from(libc::S_IFCHR | 0o600);
        call(
            libc::SYS_mknodat,
            [
                libc::AT_FDCWD.into(),
                path.as_ptr() as libc::c_long,
                mode,
                0x103,
                0,
                0,
            ],
        )
    }),
    ("bpf", |_| call(libc::SYS_bpf, [0, 0, 0, 0, 0, 0])),
    ("io-uring", |_| call(libc::SYS_io_uring_setup, [0, 0, 0, 0, 0, 0])),
    ("userfaultfd", |_| call(libc::SYS_userfaultfd, [0, 0, 0, 0, 0, 0])),
    ("perf", |_| call(libc::SYS_perf_event_open, [0, 0, 0, 0, 0, 0])),
    ("keyring", |_| call(libc::SYS_keyctl, [0, -3, 0, 0, 0, 0])),
    ("load-module", |_| {
        call(libc::SYS_finit_module, [-1, 0, 0, 0, 0, 0])
    }),
    ("set-clock", |_| call(libc::SYS_clock_settime, [0, 0, 0, 0, 0, 0])),
    ("reboot", |_| call(libc::SYS_reboot, [0, 0, 0, 0, 0, 0])),
    ("be-dumpable-again", |_| {
        call(libc::SYS_prctl, [libc::PR_SET_DUMPABLE.into(), 1, 0, 0, 0, 0])
    }),
    ("outlive-parent", |_| {
        call(libc::SYS_prctl, [libc::PR_SET_PDEATHSIG.into(), 0, 0, 0, 0, 0])
    }),
    ("hold-capabilities", |_| {
        let mut sets = [0_u32; 6];
        let header = [0x2008_0522_u32, 0];
        let addresses = [header.as_ptr() as libc::c_long, sets.as_mut_ptr() as libc::c_long];
        call(libc::SYS_capget, [addresses[0], addresses[1], 0, 0, 0, 0])?;
        // An agent started as root keeps files, low ports and its memory out of swap, and nothing that changes users or owners.
        let files_ports_memory = 1 << 1 | 1 << 10 | 1 << 14;
        let held = sets.iter().any(|set| set & !files_ports_memory != 0);
        held.then_some(())
            .ok_or_else(|| io::Error::from_raw_os_error(libc::EPERM))
    }),
    ("type-into-terminal", |_| {
        call(libc::SYS_ioctl, [0, 0x5412, 0, 0, 0, 0])
    }),
];

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, kind, data, secret, elsewhere, server, admin, victim] = arguments.as_slice() else {
        return Err(io::Error::other("seven arguments: the test knows them"));
    };
    let invalid = |_| io::Error::other("an argument does not read");
    let targets = Targets {
        data: data.into(),
        secret: secret.into(),
        elsewhere: elsewhere.into(),
        lent: PathBuf::from(elsewhere).with_file_name("lent"),
        lent_to_read: PathBuf::from(elsewhere).with_file_name("lent-to-read"),
        server: server.parse().map_err(|_| io::Error::other("an address"))?,
        admin: admin.into(),
        victim: victim.parse().map_err(invalid)?,
    };
    let jail = match kind.as_str() {
        "agent" => Some(Kind::Agent),
        "executor" => Some(Kind::Executor),
        "broker" => Some(Kind::Broker),
        "compiler" => Some(Kind::Compiler),
        "none" | "ceremony" => None,
        _ => return Err(io::Error::other("no such kind")),
    };
    if kind == "ceremony" {
        let denied = redan_jail::deny_sockets().map_err(|error| io::Error::other(error.to_string()))?;
        println!("landlock false\nseccomp {denied}");
    }
    if let Some(kind) = jail {
        let folder = fs::File::open(&targets.data)?;
        let lent = [(&targets.lent, true), (&targets.lent_to_read, false)];
        let lent = lent.map(|(path, writable)| {
            fs::File::open(path).map(|folder| Lent {
                folder: folder.into(),
                writable,
            })
        });
        let lent = lent.into_iter().collect::<io::Result<Vec<_>>>()?;
        let folders = Folders {
            data: Some(folder.as_fd()),
            lent: &lent,
        };
        let folders = if kind == Kind::Executor {
            folders
        } else {
            Folders::default()
        };
        let isolation = confine(kind, folders, None).map_err(|error| io::Error::other(error.to_string()))?;
        println!("landlock {}", isolation.landlock);
        println!("seccomp {}", isolation.seccomp);
    }
    for (name, action) in ACTIONS {
        match action(&targets) {
            Ok(()) => println!("{name} done"),
            Err(error) => println!("{name} {}", error.raw_os_error().unwrap_or(-1)),
        }
    }
    Ok(())
}
