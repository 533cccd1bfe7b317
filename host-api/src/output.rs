//! Standard output and error of a guest: lines for the owner's log.

use crate::Payload;
use crate::bench::{Bench, Told};
use crate::limits::Verdict;
use crate::log::{LINE_LEN_MAX, Sink, Source};
use bytes::Bytes;
use redan_policy::grant::Log;
use redan_protocol::Code;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

/// Where guest text of one call goes; without a grant it goes nowhere.
#[derive(Clone)]
pub(crate) struct Lines {
    pub(crate) sink: Option<(Arc<Sink>, Log)>,
    pub(crate) bench: Option<Arc<Bench>>,
    /// Whether the grant has a log.
    pub(crate) logged: bool,
    pub(crate) verdict: Verdict,
}

impl Lines {
    pub(crate) fn write(&self, source: Source, text: &[u8]) {
        if let Some(bench) = &self.bench {
            // Its streams come here only where no log was granted.
            match source {
                Source::Log if self.logged => (bench.hear)(Told::Logged(text)),
                _ => bench.dropped.store(true, std::sync::atomic::Ordering::Relaxed),
            }
            bench.note(|seen| seen.log = true);
        }
        if let Some((sink, budget)) = &self.sink
            && !sink.line(budget, source, &Payload::new(text))
        {
            self.verdict.note(Code::LogLimit);
        }
    }

    pub(crate) fn stream(&self, source: Source) -> Output {
        Output {
            lines: self.clone(),
            source,
            buffer: Vec::new(),
        }
    }
}

/// One stream, cut into lines.
pub(crate) struct Output {
    lines: Lines,
    source: Source,
    buffer: Vec<u8>,
}

impl Output {
    fn take(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, whole) = match part.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (part, false),
            };
            // One byte beyond the limit is kept, so that the sink sees that something was cut.
            let room = LINE_LEN_MAX.saturating_add(1).saturating_sub(self.buffer.len());
            self.buffer.extend(text.iter().take(room));
            if whole {
                self.lines.write(self.source, &self.buffer);
                self.buffer.clear();
            }
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if !self.buffer.is_empty() {
            self.lines.write(self.source, &self.buffer);
        }
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {}
}

impl OutputStream for Output {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.take(&bytes);
        Ok(())
    }
    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }
    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(LINE_LEN_MAX)
    }
}

impl AsyncWrite for Output {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        // A write of WASI 0.3 may be all of the guest's memory, each byte a line. It goes on with the rest itself, where its CPU time
        // is looked at.
        let taken = bytes.get(..LINE_LEN_MAX).unwrap_or(bytes);
        self.take(taken);
        Poll::Ready(Ok(taken.len()))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What `wasi:cli` is given: never a terminal.
pub(crate) struct Standard {
    pub(crate) lines: Lines,
    pub(crate) source: Source,
}

impl IsTerminal for Standard {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Standard {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.lines.stream(self.source))
    }
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.lines.stream(self.source))
    }
}
