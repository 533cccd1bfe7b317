//! What does reading a repository of 1,000 targets cost, beside `tough`? A first refresh from a pinned root, and a poll
//! that finds nothing new. Both readers take the same files from the same disk and keep their copies on it, unsynced.

use redan_benches::fleet::{self, Files, Keys};
use redan_benches::{Asking, compare, each};
use redan_publish::metadata::target;
use redan_trust::{Answer, Repository, Step, Trusted};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tough::{FilesystemTransport, RepositoryLoader};

const TARGETS: u32 = 1000;

pub(crate) fn bench(asking: &mut Asking) {
    let served = TempDir::new().unwrap();
    let files = files();
    for (path, bytes) in &files {
        std::fs::write(served.path().join(path), bytes).unwrap();
    }
    let pinned = fleet::pinned(&files).unwrap();
    let (our_store, their_store) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let theirs = || {
        let base = format!("file://{}/", served.path().display());
        let loader = RepositoryLoader::new(&pinned.root, base.parse().unwrap(), base.parse().unwrap())
            .transport(FilesystemTransport)
            .datastore(their_store.path());
        let repository = runtime.block_on(loader.load()).unwrap();
        assert_eq!(repository.targets().signed.targets.len(), 1000);
    };

    compare(
        asking,
        "tuf refresh, 1,000 targets",
        &mut |times| {
            after(
                times,
                || clear(our_store.path()),
                || {
                    ours(served.path(), our_store.path(), pinned.clone());
                },
            )
        },
        ("tough", &mut |times| {
            after(times, || clear(their_store.path()), theirs)
        }),
    );

    ours(served.path(), our_store.path(), pinned.clone());
    theirs();
    compare(
        asking,
        "tuf unchanged poll, 1,000 targets",
        &mut |times| {
            each(times, || {
                ours(
                    served.path(),
                    our_store.path(),
                    stored(our_store.path(), &pinned.root),
                );
            })
        },
        ("tough", &mut |times| each(times, theirs)),
    );
}

fn files() -> Files {
    let targets: BTreeMap<_, _> = (0..TARGETS)
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

fn ours(served: &Path, store: &Path, trusted: Trusted) -> Repository {
    let repository = fleet::refresh(trusted, |step| {
        Ok(match step {
            Step::Fetch { path, .. } => match std::fs::read(served.join(path)) {
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
    assert_eq!(repository.targets().targets.len(), 1000);
    repository
}

/// What a device reads back from its own store.
fn stored(store: &Path, root: &[u8]) -> Trusted {
    let read = |role: &str| std::fs::read(store.join(role)).unwrap();
    Trusted {
        root: root.to_vec(),
        timestamp: Some(read("timestamp")),
        snapshot: Some(read("snapshot")),
        targets: BTreeMap::from([("targets".to_owned(), read("targets"))]),
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
