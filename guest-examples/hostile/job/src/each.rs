//! Attacks that come in tables: each kind of resource, each operation of the file system with each kind of path.

use crate::{bucket, variable};
use std::mem::forget;
use wasip2::filesystem::preopens::get_directories;
use wasip2::filesystem::types::{
    Datetime, Descriptor, DescriptorFlags, ErrorCode, NewTimestamp, OpenFlags, PathFlags,
};
use wasip2::http::types::{Fields, OutgoingRequest, OutgoingResponse, RequestOptions};

/// One resource of the kind `TARGET` names a round, never dropped.
pub fn leak() -> bool {
    let state = state();
    let one: Box<dyn Fn()> = match variable("TARGET").as_str() {
        "fields" => Box::new(|| forget(Fields::new())),
        "outgoing-request" => Box::new(|| forget(OutgoingRequest::new(Fields::new()))),
        "outgoing-response" => Box::new(|| forget(OutgoingResponse::new(Fields::new()))),
        "outgoing-body" => Box::new(|| {
            let request = OutgoingRequest::new(Fields::new());
            forget(request.body().expect("once"));
            forget(request);
        }),
        "request-options" => Box::new(|| forget(RequestOptions::new())),
        "stdin" => Box::new(|| forget(wasip2::cli::stdin::get_stdin())),
        "stdout" => Box::new(|| forget(wasip2::cli::stdout::get_stdout())),
        "stderr" => Box::new(|| forget(wasip2::cli::stderr::get_stderr())),
        "pollable-of-input" => Box::new(|| {
            let input = wasip2::cli::stdin::get_stdin();
            forget(input.subscribe());
            forget(input);
        }),
        "pollable-of-output" => Box::new(|| {
            let output = wasip2::cli::stdout::get_stdout();
            forget(output.subscribe());
            forget(output);
        }),
        "instant" => Box::new(|| forget(wasip2::clocks::monotonic_clock::subscribe_instant(1 << 62))),
        "preopen" => Box::new(|| forget(get_directories())),
        "descriptor" => Box::new(|| {
            forget(open(state.as_ref().expect("granted"), ".", OpenFlags::DIRECTORY, DescriptorFlags::READ));
        }),
        "directory-entry-stream" => Box::new(|| {
            forget(state.as_ref().expect("granted").read_directory().expect("a folder"));
        }),
        "bucket" => Box::new(|| forget(bucket())),
        other => panic!("{other} is no kind of resource"),
    };
    loop {
        one();
    }
}

fn state() -> Option<Descriptor> {
    let mut directories = get_directories().into_iter();
    directories.find_map(|(folder, path)| (path == "/state").then_some(folder))
}

type Outcome<T> = Result<T, ErrorCode>;

fn open(folder: &Descriptor, path: &str, how: OpenFlags, flags: DescriptorFlags) -> Outcome<Descriptor> {
    folder.open_at(PathFlags::SYMLINK_FOLLOW, path, how, flags)
}

/// Every operation by its name: what it reaches at a path, in bytes if it can be read.
pub const OPERATIONS: &[&str] = &[
    "open", "create", "truncate", "create-new", "open-folder", "open-folder-to-write", "stat", "hash", "readlink",
    "make-folder", "remove-folder", "unlink", "symlink", "link-from", "link-to", "rename-from", "rename-to", "set-times",
];

fn act(operation: &str, at: &Descriptor, path: &str) -> Outcome<Vec<u8>> {
    let (follow, read) = (PathFlags::SYMLINK_FOLLOW, DescriptorFlags::READ);
    let write = read | DescriptorFlags::WRITE;
    let content = |file: Descriptor| file.read(100, 0).map(|(bytes, _)| bytes);
    let nothing = |()| Vec::new();
    let taken = |outcome: Outcome<()>| {
        outcome?;
        let taken = open(at, "taken", OpenFlags::empty(), read).and_then(content);
        let _ = at.unlink_file_at("taken");
        Ok(taken.unwrap_or_default())
    };
    match operation {
        "open" => open(at, path, OpenFlags::empty(), read).and_then(content),
        "create" => open(at, path, OpenFlags::CREATE, write)?.write(b"x", 0).map(|_| Vec::new()),
        "truncate" => open(at, path, OpenFlags::TRUNCATE, write).map(|_| Vec::new()),
        "create-new" => open(at, path, OpenFlags::CREATE | OpenFlags::EXCLUSIVE, write).map(|_| Vec::new()),
        "open-folder" => {
            let entries = open(at, path, OpenFlags::DIRECTORY, read)?.read_directory()?;
            let names = std::iter::from_fn(|| entries.read_directory_entry().ok().flatten());
            Ok(names.map(|entry| entry.name).collect::<String>().into_bytes())
        }
        "open-folder-to-write" => {
            let flags = read | DescriptorFlags::MUTATE_DIRECTORY;
            open(at, path, OpenFlags::DIRECTORY, flags)?.create_directory_at("made").map(nothing)
        }
        "stat" => at.stat_at(follow, path).map(|stat| stat.size.to_string().into_bytes()),
        "hash" => at.metadata_hash_at(follow, path).map(|_| Vec::new()),
        "readlink" => at.readlink_at(path).map(String::into_bytes),
        "make-folder" => at.create_directory_at(path).map(nothing),
        "remove-folder" => at.remove_directory_at(path).map(nothing),
        "unlink" => at.unlink_file_at(path).map(nothing),
        "symlink" => at.symlink_at("kept", path).map(nothing),
        "link-from" => taken(at.link_at(PathFlags::empty(), path, at, "taken").or_else(|_| at.link_at(follow, path, at, "taken"))),
        "link-to" => at.link_at(PathFlags::empty(), "kept", at, path).map(nothing),
        "rename-from" => taken(at.rename_at(path, at, "taken")),
        "rename-to" => at.rename_at("spare", at, path).map(nothing),
        "set-times" => {
            let then = NewTimestamp::Timestamp(Datetime { seconds: 1, nanoseconds: 0 });
            at.set_times_at(follow, path, then, then).map(nothing)
        }
        other => panic!("{other} is no operation"),
    }
}

/// Does what `OPERATION` says to every kind of path that leads out; `TARGET` is a file outside. Nothing may give its content, its
/// name or its size, which are all `4321` and `secret`. What may be done inside is done too, so that the attack is none in vain.
pub fn operation() -> bool {
    let (operation, outside) = (variable("OPERATION"), variable("TARGET"));
    assert!(OPERATIONS.contains(&operation.as_str()));
    let state = state().expect("granted");
    let long = "x".repeat(5_000);
    let deep = "../".repeat(60);
    let paths = [
        outside.clone(),
        format!("/{outside}"),
        format!("{deep}{outside}"),
        "..".to_owned(),
        "../".to_owned(),
        "../secret".to_owned(),
        "./../secret".to_owned(),
        "folder/../../secret".to_owned(),
        "folder/..//../secret".to_owned(),
        "planted-relative".to_owned(),
        "planted-relative/".to_owned(),
        "planted-absolute".to_owned(),
        "planted-folder/secret".to_owned(),
        "planted-folder/secret/".to_owned(),
        "planted-folder/../secret".to_owned(),
        "planted-root/etc/passwd".to_owned(),
        "planted-chain/secret".to_owned(),
        "folder/planted-up/secret".to_owned(),
        "kept/../../secret".to_owned(),
        "../state/../secret".to_owned(),
        String::new(),
        "secret\0".to_owned(),
        long,
    ];
    let reached = |path: &String| {
        let found = act(&operation, &state, path).unwrap_or_default();
        let text = String::from_utf8_lossy(&found).into_owned();
        // What a link says of itself is no secret: somebody put it into the volume.
        operation != "readlink" && (text.contains("secret") || text.contains("4321") || text.contains("root:"))
    };
    let inside = match operation.as_str() {
        "create" | "create-new" | "make-folder" | "symlink" | "link-to" | "rename-to" => "new",
        "open-folder" | "open-folder-to-write" => "folder",
        "remove-folder" => "empty",
        "readlink" => "planted-inside",
        _ => "kept",
    };
    let works = act(&operation, &state, inside).is_ok();
    let wanted = variable("READ_ONLY").is_empty()
        || ["open", "open-folder", "stat", "hash", "readlink"].contains(&operation.as_str());
    !paths.iter().any(reached) && works == wanted
}

/// Times before 1970, and times nobody has a number for.
pub fn odd_times() -> bool {
    let state = state().expect("granted");
    let read = state.stat_at(PathFlags::empty(), "old").is_ok() && std::fs::metadata("/state/old").is_ok();
    let odd = [(u64::MAX, u32::MAX), (u64::MAX, 0), (1 << 63, 999_999_999), (1 << 40, u32::MAX), (0, 1_000_000_000)];
    for (seconds, nanoseconds) in odd {
        let time = NewTimestamp::Timestamp(Datetime { seconds, nanoseconds });
        let _ = state.set_times_at(PathFlags::empty(), "old", time, time);
        let _ = state.stat_at(PathFlags::empty(), "old");
        let _ = open(&state, "old", OpenFlags::empty(), DescriptorFlags::WRITE).map(|file| file.set_times(time, time));
    }
    let still = state.stat_at(PathFlags::empty(), "old").is_ok();
    read && still
}

/// Leaves a mark of its own in everything it has, and finds nothing else there.
pub fn mark() -> bool {
    let mark = variable("TARGET");
    // A name of its own, too: one that others have would hide theirs.
    let name = mark.replace('/', "-");
    let path = format!("/state/{name}");
    bucket().set(&name, mark.as_bytes()).expect("within the quota");
    std::fs::write(&path, &mark).expect("within the quota");
    println!("{mark}");
    let found = bucket().list_keys(None).expect("a list");
    let values: Vec<_> = found.keys.iter().map(|key| bucket().get(key).expect("readable")).collect();
    let names: Vec<_> = std::fs::read_dir("/state").expect("a folder").map(|entry| entry.expect("an entry").file_name()).collect();
    found.keys == [name.clone()]
        && values == [Some(mark.clone().into_bytes())]
        && names == [name.as_str()]
        && std::fs::read_to_string(path).is_ok_and(|text| text == mark)
}

/// Waits for as many things as it may have, none of which ever comes.
pub fn poll_many() -> bool {
    let timers: Vec<_> =
        (0..200).map(|_| wasip2::clocks::monotonic_clock::subscribe_duration(u64::MAX)).collect();
    wasip2::io::poll::poll(&timers.iter().collect::<Vec<_>>());
    false
}

/// Standard input has ended, however it is asked.
pub fn read_input() -> bool {
    use wasip2::io::streams::StreamError;
    let input = wasip2::cli::stdin::get_stdin();
    input.subscribe().block();
    let ended = |outcome| matches!(outcome, Err(StreamError::Closed));
    ended(input.blocking_read(1 << 40)) && ended(input.read(1)) && ended(input.blocking_skip(u64::MAX).map(|_| Vec::new()))
}

/// A bit of everything that makes the host wait: buckets, files, streams, time, output.
pub fn use_everything() -> bool {
    use std::io::{Read, Write};
    let bucket = bucket();
    for n in 0..3 {
        bucket.set(&format!("key-{n}"), &[n; 100]).expect("within the quota");
        println!("round {n}");
        std::fs::create_dir_all("/state/folder").expect("a folder");
        let mut file = std::fs::File::create("/state/folder/file").expect("a file");
        file.write_all(&[n; 3_000]).expect("within the quota");
        file.sync_all().expect("written");
        drop(file);
        let mut text = Vec::new();
        std::fs::File::open("/state/folder/file").expect("a file").read_to_end(&mut text).expect("read");
        assert_eq!(text, [n; 3_000]);
        std::fs::remove_dir_all("/state/folder").expect("its own");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    bucket.delete("key-0").is_ok() && wasip2::random::random::get_random_bytes(16).len() == 16
}
