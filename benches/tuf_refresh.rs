//! What does reading a repository cost, beside two other implementations? A first refresh from a pinned root, and a poll that finds
//! nothing new. All take the same files from the same disk and keep their copies on it, unsynced.

use redan_benches::fleet::{self, Files, Keys};
use redan_benches::{Asking, compare, each};
use redan_publish::metadata::target;
use redan_trust::{Answer, Repository, Step, Trusted};
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tough::{FilesystemTransport, RepositoryLoader};

pub(crate) fn bench(asking: &mut Asking) {
    for (size, name) in [(1_000, "1,000 targets"), (10_000, "10,000 targets")] {
        let served = Served::make(size);
        let tough = Tough::new(&served);
        beside(
            asking,
            &served,
            name,
            ("tough", &mut |what, times| tough.read(what, times)),
        );
        let build = Path::new(env!("CARGO_TARGET_TMPDIR"));
        match redan_kit::python::tuf(build).unwrap() {
            Some(python) => {
                let mut reader = Python::start(&python, &served);
                let name = format!("{name}, python");
                beside(
                    asking,
                    &served,
                    &name,
                    ("python-tuf", &mut |what, times| reader.read(what, times)),
                );
            }
            None => println!("left out: python-tuf (it needs python3 with venv and pip)"),
        }
    }
}

/// What a reader does.
#[derive(Clone, Copy, Eq, PartialEq)]
enum What {
    /// From the pinned root, with an empty store.
    Refresh,
    /// With a store that has everything.
    Poll,
}

/// Another reader, timed: what it does, and how often.
type Reader<'a> = &'a mut dyn FnMut(What, u64) -> Duration;

fn beside(asking: &mut Asking, served: &Served, size: &str, (name, reader): (&str, Reader<'_>)) {
    let store = TempDir::new().unwrap();
    let store = store.path();
    compare(
        asking,
        &format!("tuf refresh, {size}"),
        &mut |times| {
            after(
                times,
                || clear(store),
                || drop(served.read(store, served.pinned.clone())),
            )
        },
        (name, &mut |times| reader(What::Refresh, times)),
    );
    // A filter may have left the refresh out.
    drop(served.read(store, served.pinned.clone()));
    reader(What::Refresh, 1);
    compare(
        asking,
        &format!("tuf unchanged poll, {size}"),
        &mut |times| {
            each(times, || {
                drop(served.read(store, stored(store, &served.pinned.root)));
            })
        },
        (name, &mut |times| reader(What::Poll, times)),
    );
}

/// A repository on a disk.
struct Served {
    folder: TempDir,
    pinned: Trusted,
    size: usize,
}

impl Served {
    fn make(size: usize) -> Self {
        let folder = TempDir::new().unwrap();
        let files = files(size);
        for (path, bytes) in &files {
            std::fs::write(folder.path().join(path), bytes).unwrap();
        }
        let pinned = fleet::pinned(&files).unwrap();
        Self { folder, pinned, size }
    }

    /// Ours.
    fn read(&self, store: &Path, trusted: Trusted) -> Repository {
        let repository = fleet::refresh(trusted, |step| {
            Ok(match step {
                Step::Fetch { path, .. } => match std::fs::read(self.folder.path().join(path)) {
                    Ok(bytes) => Answer::Bytes(bytes),
                    Err(error) if error.kind() == ErrorKind::NotFound => Answer::Absent,
                    Err(error) => return Err(error.into()),
                },
                Step::Store { role, bytes } => {
                    std::fs::write(store.join(role), bytes)?;
                    Answer::Stored
                }
                Step::Remove { role } => {
                    std::fs::remove_file(store.join(role))?;
                    Answer::Stored
                }
                Step::Done => Answer::Failed,
            })
        })
        .unwrap();
        assert_eq!(repository.targets().targets.len(), self.size);
        repository
    }
}

fn files(size: usize) -> Files {
    let targets: BTreeMap<_, _> = (0..size)
        .map(|n| {
            let entry = target(&n.to_le_bytes(), None::<&()>).unwrap();
            (
                format!("components/acme/thermo-{n}/1.0.{n}/component.wasm"),
                entry,
            )
        })
        .collect();
    fleet::repository(&Keys::generate().unwrap(), &targets, Vec::new()).unwrap()
}

/// What a device reads back from its own store.
fn stored(store: &Path, root: &[u8]) -> Trusted {
    let read = |role: &str| std::fs::read(store.join(role)).unwrap();
    Trusted {
        root: root.to_vec(),
        timestamp: Some(read("timestamp")),
        snapshot: Some(read("snapshot")),
        targets: BTreeMap::from([("targets".to_owned(), read("targets"))]),
        versions: None,
    }
}

/// AWS's reader.
struct Tough<'a> {
    served: &'a Served,
    store: TempDir,
    runtime: tokio::runtime::Runtime,
}

impl<'a> Tough<'a> {
    fn new(served: &'a Served) -> Self {
        Self {
            served,
            store: TempDir::new().unwrap(),
            runtime: tokio::runtime::Builder::new_current_thread().build().unwrap(),
        }
    }

    fn read(&self, what: What, times: u64) -> Duration {
        let once = || {
            let base = format!("file://{}/", self.served.folder.path().display());
            let root = &self.served.pinned.root;
            let loader = RepositoryLoader::new(root, base.parse().unwrap(), base.parse().unwrap())
                .transport(FilesystemTransport)
                .datastore(self.store.path());
            let repository = self.runtime.block_on(loader.load()).unwrap();
            assert_eq!(repository.targets().signed.targets.len(), self.served.size);
        };
        let empty = || {
            if what == What::Refresh {
                clear(self.store.path());
            }
        };
        after(times, empty, once)
    }
}

/// The reference implementation: one process, which times itself, so that its start is not in the figure.
struct Python {
    process: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
    _store: TempDir,
}

impl Python {
    fn start(python: &Path, served: &Served) -> Self {
        let store = TempDir::new().unwrap();
        let mut process = Command::new(python)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/reader.py"))
            .arg(served.folder.path())
            .arg(store.path().join("store"))
            .arg(served.size.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            ask: process.stdin.take().unwrap(),
            answers: BufReader::new(process.stdout.take().unwrap()),
            process,
            _store: store,
        }
    }

    fn read(&mut self, what: What, times: u64) -> Duration {
        let command = match what {
            What::Refresh => "refresh",
            What::Poll => "poll",
        };
        writeln!(self.ask, "{command} {times}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        Duration::from_nanos(answer.trim().parse().unwrap())
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        // It waits for a line at most.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// The time of `work` alone, `before` done each time.
fn after(times: u64, before: impl Fn(), work: impl Fn()) -> Duration {
    let mut took = Duration::ZERO;
    for _ in 0..times {
        before();
        let start = Instant::now();
        work();
        took += start.elapsed();
    }
    took
}

fn clear(store: &Path) {
    for file in std::fs::read_dir(store).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
}
