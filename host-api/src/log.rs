//! The owner's log on the device: guest text goes here and nowhere else.
//!
//! Lines are escaped so that no guest can forge a line, move a cursor or colour a terminal; a budget a span and a size
//! a file bound what a flood can cost.

use crate::Payload;
use crate::tokens::Tokens;
use redan_policy::grant::Log;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Longest line kept, bytes of guest text; the rest of it is dropped and counted.
pub const LINE_LEN_MAX: usize = 4096;
/// Size at which the file becomes the old one and a new one begins, bytes. Two files: at most twice this.
pub const FILE_LEN_MAX: u64 = 1024 * 1024;

/// The log of one workload, shared by all its versions and calls.
#[derive(Debug)]
pub struct Sink {
    path: PathBuf,
    state: Mutex<State>,
    spent: Tokens,
    dropped: AtomicU64,
}

#[derive(Debug)]
struct State {
    file: Option<File>,
    length: u64,
}

impl Sink {
    /// Opens `<folder>/<name>.log`, keeping what is there.
    pub fn open(folder: &Path, name: &str) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let path = folder.join(name).with_extension("log");
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let length = file.metadata()?.len();
        Ok(Self {
            path,
            state: Mutex::new(State {
                file: Some(file),
                length,
            }),
            spent: Tokens::default(),
            dropped: AtomicU64::new(0),
        })
    }

    /// Writes one line of guest text. `false` when the budget is used up and the line was dropped.
    pub fn line(&self, budget: &Log, from: Source, text: &Payload<&[u8]>) -> bool {
        let millis = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |span| span.as_millis());
        let mut line = format!("{millis} {} ", from.name());
        escape(text.expose(), &mut line);
        line.push('\n');
        let cost = u64::try_from(line.len()).unwrap_or(u64::MAX);
        let Ok(mut state) = self.state.lock() else {
            return false;
        };
        if !self.spent.take(budget.budget, Instant::now(), cost) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        if state.length.saturating_add(cost) > FILE_LEN_MAX {
            state.file = self.rotate().ok();
            state.length = 0;
        }
        let length = state.length.saturating_add(cost);
        if let Some(file) = state.file.as_mut() {
            // A full disk must not stop the workload: its log is the least of it.
            if file.write_all(line.as_bytes()).is_ok() {
                state.length = length;
                return true;
            }
        }
        self.dropped.fetch_add(1, Ordering::Relaxed);
        false
    }

    /// Lines dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn rotate(&self) -> io::Result<File> {
        std::fs::rename(&self.path, self.path.with_extension("log.1"))?;
        OpenOptions::new().create(true).append(true).open(&self.path)
    }
}

/// Where in the guest a line came from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Source {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
    /// `wasi:logging`.
    Log,
}

impl Source {
    const fn name(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::Err => "err",
            Self::Log => "log",
        }
    }
}

/// Printable text stays; control characters, bidirectional overrides and what is not UTF-8 become visible escapes.
fn escape(text: &[u8], line: &mut String) {
    let (kept, cut) = match text.get(..LINE_LEN_MAX) {
        Some(kept) if text.len() > LINE_LEN_MAX => (kept, true),
        _ => (text, false),
    };
    for chunk in kept.utf8_chunks() {
        for character in chunk.valid().chars() {
            let hidden = matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
            if character.is_control() || hidden || character == '\\' {
                line.extend(character.escape_default());
            } else {
                line.push(character);
            }
        }
        for byte in chunk.invalid() {
            // Writing to a String cannot fail.
            let _ = write!(line, "\\x{byte:02x}");
        }
    }
    if cut {
        line.push('…');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use redan_policy::grant::Rate;
    use redan_protocol::Millis;

    fn budget(amount: u64) -> Log {
        Log {
            budget: Rate {
                amount,
                per: Millis::seconds(3600),
            },
        }
    }

    #[test]
    fn a_guest_cannot_forge_a_line_or_reach_the_terminal() {
        let mut line = String::new();
        escape(b"a\n1 out b\x1b[31m\xff\\\xe2\x80\xaex", &mut line);
        assert_eq!(line, "a\\n1 out b\\u{1b}[31m\\xff\\\\\\u{202e}x");
    }

    #[test]
    fn a_line_over_the_length_limit_is_cut() {
        let mut line = String::new();
        escape(&vec![b'x'; LINE_LEN_MAX + 1], &mut line);
        assert_eq!(line.chars().count(), LINE_LEN_MAX + 1);
        assert!(line.ends_with('…'));
    }

    #[test]
    fn lines_over_the_budget_are_dropped_and_counted() {
        let folder = tempfile::tempdir().unwrap();
        let sink = Sink::open(folder.path(), "w").unwrap();
        let text = Payload::new([b'x'; 30].as_slice());
        assert!(sink.line(&budget(60), Source::Out, &text));
        assert!(!sink.line(&budget(60), Source::Out, &text));
        assert_eq!(sink.dropped(), 1);
        assert_eq!(
            std::fs::read_to_string(folder.path().join("w.log"))
                .unwrap()
                .lines()
                .count(),
            1
        );
    }

    #[test]
    fn the_log_never_takes_more_than_two_files() {
        let folder = tempfile::tempdir().unwrap();
        let sink = Sink::open(folder.path(), "w").unwrap();
        let text = Payload::new([b'x'; LINE_LEN_MAX].as_slice());
        for _ in 0..(3 * FILE_LEN_MAX / 4096) {
            sink.line(&budget(u64::MAX), Source::Err, &text);
        }
        let mut names: Vec<_> = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap())
            .collect();
        names.sort_by_key(std::fs::DirEntry::file_name);
        let sizes: Vec<bool> = names
            .iter()
            .map(|entry| entry.metadata().unwrap().len() <= FILE_LEN_MAX)
            .collect();
        assert_eq!(sizes, [true, true]);
    }
}
