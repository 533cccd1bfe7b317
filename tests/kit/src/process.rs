//! A child process that says when it is ready and never outlives its owner.

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// How long a program may take to say that it is ready. Generous: a debug build on a busy machine.
const READY_WITHIN: Duration = Duration::from_mins(1);
/// How long an orderly stop may take before the process is killed.
const STOP_WITHIN: Duration = Duration::from_secs(20);

/// A running child. Dropping it stops it, in order if it lets itself be stopped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    lines: Receiver<String>,
    log: PathBuf,
}

impl Process {
    /// Starts a program; its standard error goes to `log`.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let stderr = File::options().create(true).append(true).open(log);
        let stderr = stderr.with_context(|| format!("cannot write {}", log.display()))?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let stdout = child.stdout.take().context("standard output is piped")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Self {
            name: name.to_owned(),
            child,
            lines,
            log: log.to_owned(),
        })
    }

    /// Waits for the line that begins so, and returns the rest of it.
    pub fn ready(&mut self, prefix: &str) -> Result<String> {
        let deadline = std::time::Instant::now() + READY_WITHIN;
        loop {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    if let Some(rest) = line.strip_prefix(prefix) {
                        return Ok(rest.trim().to_owned());
                    }
                }
                Err(RecvTimeoutError::Timeout) => bail!("{} is not ready; {}", self.name, self.tail()),
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("{} ended before it was ready; {}", self.name, self.tail())
                }
            }
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id())
            .ok()
            .and_then(Pid::from_raw)
            .context("a process id")?;
        rustix::process::kill_process(pid, signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// Stops it in order (SIGTERM) and says how it ended; kills it if it does not end.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        self.signal(Signal::TERM)?;
        self.wait(STOP_WITHIN)
    }

    /// Kills it, as a power cut would.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits for its end; kills it when that does not come.
    pub fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        let deadline = std::time::Instant::now() + within;
        // The reader thread ends with the process: its channel closing is the event waited for.
        loop {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(self.child.wait()?),
                Err(RecvTimeoutError::Timeout) => {
                    self.kill()?;
                    bail!(
                        "{} did not stop within {within:?} and was killed; {}",
                        self.name,
                        self.tail()
                    );
                }
            }
        }
    }

    /// The last lines of its log, for error messages.
    pub fn tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(12).collect();
        let lines: Vec<&str> = lines.into_iter().rev().collect();
        format!(
            "the end of its log ({}):\n{}",
            self.log.display(),
            lines.join("\n")
        )
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.stop().is_err() {
            // Nothing more can be done in a destructor; the error was about a process that is gone or killed.
            drop(self.child.kill());
        }
    }
}
