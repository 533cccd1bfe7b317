//! Sequenced-packet channels (`SOCK_SEQPACKET`) between the device's processes, with descriptors beside a message.
//!
//! What it is: one message in, one message out, at most [`MESSAGE_LEN_MAX`] bytes of postcard and [`DESCRIPTORS_MAX`]
//! descriptors, all `CLOEXEC`. Both ends are made by the supervisor with [`pair`] and inherited over `exec`.
//!
//! Whom it believes: the kernel, which keeps message borders and says when the other end is gone. What the message says
//! is the receiver's to judge.
//!
//! Invariant: a message that is truncated, does not decode, or carries more descriptors than allowed is an error and
//! its descriptors are closed; it is never half delivered.
//!
//! Absent on purpose: names, addresses, retries.
#![forbid(unsafe_code)]

use redan_protocol::ipc::{DESCRIPTORS_MAX, MESSAGE_LEN_MAX};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use tokio::io::Interest;

/// Why a message did not pass.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ChannelError {
    /// The other process is gone.
    #[error("the other process closed the channel")]
    Closed,
    /// Longer than the limit, or more descriptors than allowed.
    #[error("the message is over the limit of the channel")]
    TooLarge,
    /// Not a message of this channel.
    #[error("the message does not decode")]
    Malformed,
    /// The kernel said no.
    #[error("the channel failed: {0}")]
    Os(#[source] Errno),
}

/// A received message and the descriptors that came with it.
#[derive(Debug)]
pub struct Received<T> {
    /// The message.
    pub message: T,
    /// Its descriptors, in order.
    pub descriptors: Vec<OwnedFd>,
}

/// A connected pair, both ends `CLOEXEC` and blocking.
pub fn pair() -> Result<(OwnedFd, OwnedFd), ChannelError> {
    rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(ChannelError::Os)
}

/// Sends one message. Blocks when the descriptor does.
pub fn send<T: Serialize>(
    channel: impl AsFd,
    message: &T,
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), ChannelError> {
    let bytes = postcard::to_allocvec(message).map_err(|_| ChannelError::Malformed)?;
    if bytes.len() > limit() || descriptors.len() > DESCRIPTORS_MAX {
        return Err(ChannelError::TooLarge);
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(ChannelError::TooLarge);
    }
    loop {
        match rustix::net::sendmsg(
            &channel,
            &[IoSlice::new(&bytes)],
            &mut ancillary,
            SendFlags::NOSIGNAL,
        ) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(Errno::PIPE | Errno::CONNRESET) => return Err(ChannelError::Closed),
            Err(errno) => return Err(ChannelError::Os(errno)),
        }
    }
}

/// Receives one message. Blocks when the descriptor does.
pub fn recv<T: DeserializeOwned>(channel: impl AsFd) -> Result<Received<T>, ChannelError> {
    // One byte more than allowed, so that a message over the limit is seen as such.
    let mut buffer = vec![0; limit().saturating_add(1)];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let answer = loop {
        match rustix::net::recvmsg(
            &channel,
            &mut [IoSliceMut::new(&mut buffer)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        ) {
            Ok(answer) => break answer,
            Err(Errno::INTR) => {}
            Err(Errno::CONNRESET) => return Err(ChannelError::Closed),
            Err(errno) => return Err(ChannelError::Os(errno)),
        }
    };
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    if answer.bytes == 0 && descriptors.is_empty() {
        return Err(ChannelError::Closed);
    }
    if answer.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) || answer.bytes > limit() {
        return Err(ChannelError::TooLarge);
    }
    let bytes = buffer.get(..answer.bytes).ok_or(ChannelError::Malformed)?;
    let (message, rest) = postcard::take_from_bytes(bytes).map_err(|_| ChannelError::Malformed)?;
    if !rest.is_empty() {
        return Err(ChannelError::Malformed);
    }
    Ok(Received { message, descriptors })
}

fn limit() -> usize {
    usize::try_from(MESSAGE_LEN_MAX.get()).unwrap_or(usize::MAX)
}

/// The same channel inside a tokio runtime. Sending and receiving take `&self`, so one task may wait while another sends.
///
/// A `UnixStream` only as the registration with the reactor: every byte goes through [`send`] and [`recv`].
#[derive(Debug)]
pub struct AsyncChannel(tokio::net::UnixStream);

impl AsyncChannel {
    /// Puts the descriptor into non-blocking mode and registers it. Call inside a runtime.
    pub fn new(channel: OwnedFd) -> Result<Self, ChannelError> {
        let socket = std::os::unix::net::UnixStream::from(channel);
        socket.set_nonblocking(true).map_err(|error| os(&error))?;
        tokio::net::UnixStream::from_std(socket)
            .map(Self)
            .map_err(|error| os(&error))
    }

    /// Sends one message, waiting while the kernel's buffer is full.
    pub async fn send<T: Serialize>(
        &self,
        message: &T,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), ChannelError> {
        self.when(Interest::WRITABLE, || send(&self.0, message, descriptors))
            .await
    }

    /// Receives one message, waiting for it. Cancel-safe: a message is taken whole or not at all.
    pub async fn recv<T: DeserializeOwned>(&self) -> Result<Received<T>, ChannelError> {
        self.when(Interest::READABLE, || recv(&self.0)).await
    }

    async fn when<T>(
        &self,
        interest: Interest,
        mut attempt: impl FnMut() -> Result<T, ChannelError>,
    ) -> Result<T, ChannelError> {
        let outcome = self.0.async_io(interest, || match attempt() {
            Err(ChannelError::Os(Errno::AGAIN)) => Err(Errno::AGAIN.into()),
            other => Ok(other),
        });
        outcome.await.map_err(|error| os(&error))?
    }
}

fn os(error: &std::io::Error) -> ChannelError {
    ChannelError::Os(Errno::from_io_error(error).unwrap_or(Errno::IO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_arrives_whole_with_its_descriptor() {
        let (near, far) = pair().unwrap();
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        send(&near, &(7_u32, "seven".to_owned()), &[writer.as_fd()]).unwrap();
        drop(writer);
        let received: Received<(u32, String)> = recv(&far).unwrap();
        assert_eq!(received.message, (7, "seven".to_owned()));
        let [descriptor] = received.descriptors.try_into().unwrap();
        rustix::io::write(&descriptor, b"x").unwrap();
        let mut byte = [0; 1];
        assert_eq!(rustix::io::read(&reader, &mut byte).unwrap(), 1);
    }

    #[test]
    fn a_closed_channel_says_so() {
        let (near, far) = pair().unwrap();
        drop(far);
        assert_eq!(send(&near, &1_u8, &[]), Err(ChannelError::Closed));
        assert_eq!(recv::<u8>(&near).map(|r| r.message), Err(ChannelError::Closed));
    }

    #[test]
    fn a_message_one_byte_over_the_limit_is_refused() {
        let (near, far) = pair().unwrap();
        assert_eq!(
            send(&near, &vec![0_u8; limit()], &[]),
            Err(ChannelError::TooLarge)
        );
        rustix::net::send(&near, &vec![1_u8; limit() + 1], SendFlags::empty()).unwrap();
        assert_eq!(
            recv::<Vec<u8>>(&far).map(|r| r.message),
            Err(ChannelError::TooLarge)
        );
    }

    #[test]
    fn bytes_after_the_message_make_it_malformed() {
        let (near, far) = pair().unwrap();
        rustix::net::send(&near, &[1, 2, 3], SendFlags::empty()).unwrap();
        assert_eq!(recv::<u8>(&far).map(|r| r.message), Err(ChannelError::Malformed));
    }

    #[tokio::test]
    async fn an_asynchronous_receiver_waits_for_the_message() {
        let (near, far) = pair().unwrap();
        let far = AsyncChannel::new(far).unwrap();
        let waiting = tokio::spawn(async move { far.recv::<u64>().await.map(|r| r.message) });
        tokio::task::yield_now().await;
        let near = AsyncChannel::new(near).unwrap();
        near.send(&42_u64, &[]).await.unwrap();
        assert_eq!(waiting.await.unwrap(), Ok(42));
    }
}
