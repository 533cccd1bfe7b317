//! How bytes get to a TPM and back: the kernel's character device, one write and one read a command; or the stream socket of a software
//! TPM, where the answer's own header says how long it is.

use crate::error::TpmError;
use crate::name::Address;
use crate::wire::{HEADER_LEN, MESSAGE_LEN_MAX, Reader};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// Longest wait for one answer of a socket: slow chips take a second for a primary key. The kernel bounds its devices itself (a TPM's
/// longest duration is two to five minutes). Tripped by `a_tpm_that_never_answers_is_given_up`, with less.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// An open way to a TPM.
pub(crate) struct Connection {
    path: String,
    stream: Stream,
    within: Duration,
}

enum Stream {
    Device(File),
    Socket(UnixStream),
}

impl Connection {
    pub(crate) fn open(address: &Address, within: Duration) -> Result<Self, TpmError> {
        let path = address.path().display().to_string();
        let failed = |error: io::Error| missing(&path, &error);
        let kind = std::fs::metadata(address.path()).map_err(failed)?.file_type();
        let stream = if kind.is_char_device() {
            let mut options = File::options();
            options.read(true).write(true);
            let flags = rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
            options.custom_flags(i32::try_from(flags.bits()).unwrap_or(0));
            Stream::Device(options.open(address.path()).map_err(failed)?)
        } else if kind.is_socket() {
            Stream::Socket(dial(address, within).map_err(failed)?)
        } else {
            return Err(TpmError::NoDevice { path });
        };
        Ok(Self { path, stream, within })
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Sends one command and reads what comes back, at most what an answer may have.
    pub(crate) fn exchange(
        &mut self,
        name: &'static str,
        command: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, TpmError> {
        let done = match &mut self.stream {
            Stream::Device(file) => through_device(file, command),
            Stream::Socket(socket) => through_socket(socket, command, self.within),
        };
        done.map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => TpmError::Silent {
                path: self.path.clone(),
                command: name,
            },
            io::ErrorKind::InvalidData => TpmError::Nonsense {
                path: self.path.clone(),
                command: name,
                what: "its length is not what it says",
            },
            _ => missing(&self.path, &error),
        })
    }
}

fn missing(path: &str, error: &io::Error) -> TpmError {
    TpmError::Missing {
        path: path.to_owned(),
        what: error.to_string(),
    }
}

/// A socket that connects, sends and receives within its time: one that nobody accepts on is not waited for.
fn dial(address: &Address, within: Duration) -> io::Result<UnixStream> {
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    set_socket_timeout(&socket, Timeout::Send, Some(within))?;
    connect(&socket, &SocketAddrUnix::new(address.path())?)?;
    Ok(UnixStream::from(socket))
}

/// The driver takes a command whole, and gives its answer in one read.
fn through_device(file: &mut File, command: &[u8]) -> io::Result<Zeroizing<Vec<u8>>> {
    if file.write(command)? != command.len() {
        return Err(io::ErrorKind::WriteZero.into());
    }
    let mut answer = Zeroizing::new(vec![0; MESSAGE_LEN_MAX]);
    let read = file.read(&mut answer)?;
    answer.truncate(read);
    Ok(answer)
}

fn through_socket(
    socket: &mut UnixStream,
    command: &[u8],
    within: Duration,
) -> io::Result<Zeroizing<Vec<u8>>> {
    socket.write_all(command)?;
    let until = Instant::now().checked_add(within);
    let until = until.ok_or(io::ErrorKind::TimedOut)?;
    let mut answer = Zeroizing::new(vec![0; MESSAGE_LEN_MAX]);
    let header = answer.get_mut(..HEADER_LEN).ok_or(io::ErrorKind::InvalidData)?;
    fill(socket, header, until)?;
    let mut reader = Reader(header);
    let size = reader.take(2).and_then(|_| reader.u32()).ok();
    let size = size.and_then(|size| usize::try_from(size).ok());
    let size = size.ok_or(io::ErrorKind::InvalidData)?;
    // Also one that says it is shorter than its own header.
    let body = answer
        .get_mut(HEADER_LEN..size)
        .ok_or(io::ErrorKind::InvalidData)?;
    fill(socket, body, until)?;
    answer.truncate(size);
    Ok(answer)
}

/// Reads so many bytes, or fails when the time is over: one byte now and then does not make it longer.
fn fill(socket: &mut UnixStream, mut into: &mut [u8], until: Instant) -> io::Result<()> {
    while !into.is_empty() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        match socket.read(into) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => into = into.get_mut(read..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
