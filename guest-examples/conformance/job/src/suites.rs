//! What the programs of outside suites are about, by their names; written for this project. Below `/state` and `/lib`.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use wasip2::cli::stdout::get_stdout;
use wasip2::clocks::wall_clock::Datetime;
use wasip2::clocks::monotonic_clock;
use wasip2::filesystem::preopens::get_directories;
use wasip2::filesystem::types::{Descriptor, DescriptorFlags, NewTimestamp, OpenFlags, PathFlags};
use wasip2::io::poll::poll;
use wasip2::random::{insecure, random};

fn folder(path: &str) -> Descriptor {
    get_directories().into_iter().find(|(_, found)| found == path).expect("the volume").0
}

const READ: DescriptorFlags = DescriptorFlags::READ;
const WRITE: DescriptorFlags = DescriptorFlags::WRITE;

/// `*_trailing_slashes`: of files, folders and links, in each operation that takes a name.
pub fn slashes() {
    let state = folder("/state");
    fs::write("/state/file", b"x").unwrap();
    fs::create_dir("/state/dir").unwrap();
    state.symlink_at("dir", "to-dir").unwrap();
    state.symlink_at("file", "to-file").unwrap();
    for name in ["file/", "dir/", "dir//", "to-dir/", "to-file/", "absent/", "dir/.", "dir/./", "./dir"] {
        println!("{name}");
        for follow in [PathFlags::empty(), PathFlags::SYMLINK_FOLLOW] {
            println!(" open {:?}", state.open_at(follow, name, OpenFlags::empty(), READ).map(drop));
            println!(" stat {:?}", state.stat_at(follow, name).map(|stat| stat.type_));
        }
        println!(" create {:?}", state.open_at(PathFlags::empty(), name, OpenFlags::CREATE, WRITE).map(drop));
        println!(" readlink {:?}", state.readlink_at(name));
        println!(" unlink {:?}", state.unlink_file_at(name));
        println!(" mkdir {:?}", state.create_directory_at(name));
        println!(" symlink {:?}", state.symlink_at("file", name));
        println!(" link {:?}", state.link_at(PathFlags::empty(), "file", &state, name));
        println!(" rename to {:?}", state.rename_at("file", &state, name));
        if fs::metadata("/state/file").is_err() {
            fs::write("/state/file", b"x").unwrap();
        }
    }
    println!("{:?}", state.rename_at("dir/", &state, "moved"));
    println!("{:?}", state.rename_at("moved", &state, "dir/"));
    println!("{:?}", state.rename_at("file/", &state, "elsewhere"));
    println!("{:?}", state.remove_directory_at("dir/"));
    let mut left: Vec<_> = fs::read_dir("/state").unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    println!("{left:?}");
}

/// `nofollow_errors`, `symlink_loop`, `dangling_*`: a link is opened as itself, or what it names.
pub fn links() {
    let state = folder("/state");
    fs::create_dir("/state/dir").unwrap();
    fs::write("/state/dir/file", b"x").unwrap();
    for (target, link) in [("dir", "l-dir"), ("dir/file", "l-file"), ("nothing", "l-nothing"), ("l-loop", "l-loop")] {
        state.symlink_at(target, link).unwrap();
        for follow in [PathFlags::empty(), PathFlags::SYMLINK_FOLLOW] {
            for open in [OpenFlags::empty(), OpenFlags::DIRECTORY, OpenFlags::TRUNCATE, OpenFlags::CREATE | OpenFlags::EXCLUSIVE] {
                let flags = if open.contains(OpenFlags::DIRECTORY) { READ } else { READ | WRITE };
                println!("{link} {open:?} {:?}", state.open_at(follow, link, open, flags).map(drop));
            }
            println!("{link} stat {:?}", state.stat_at(follow, link).map(|stat| (stat.type_, stat.size)));
            println!("{link} times {:?}", state.set_times_at(follow, link, NewTimestamp::NoChange, NewTimestamp::NoChange));
            println!("{link} hash {:?}", state.metadata_hash_at(follow, link).is_ok());
            println!("{link} hard {:?}", state.link_at(follow, link, &state, &format!("{link}-hard")).is_ok());
            let _ = state.unlink_file_at(&format!("{link}-hard"));
        }
        println!("{link} within {:?}", state.stat_at(PathFlags::empty(), &format!("{link}/file")).map(|stat| stat.size));
        println!("{link} rmdir {:?}", state.remove_directory_at(link));
        println!("{link} unlink {:?}", state.unlink_file_at(link));
        println!("{link} again {:?}", state.unlink_file_at(link));
    }
    println!("{:?}", fs::read("/state/dir/file"));
    println!("{:?} {:?}", state.symlink_at("", "empty"), state.symlink_at("a", ""));
}

/// `interesting_paths`, `path_open_dirfd_not_dir`, `overwrite_preopen`.
pub fn paths() {
    let state = folder("/state");
    fs::create_dir_all("/state/dir/nested").unwrap();
    fs::write("/state/dir/nested/file", b"x").unwrap();
    for path in [
        "dir/nested/file", "/dir/nested/file", "dir/nested/../../dir/nested/../nested///./file", "dir/nested/file/",
        "dir/nested/../../../dir", "dir/./nested/.", "dir/nested/file/..", "dir\\nested", "dir/nested/file\0", ".", "./", "dir/..",
        "dir/../..", "\u{fc}/\u{1f600}", "~", "C:", "CON", "dir/nested/file/x",
    ] {
        println!("{path:?} {:?}", state.open_at(PathFlags::empty(), path, OpenFlags::empty(), READ).map(drop));
    }
    let file = state.open_at(PathFlags::empty(), "dir/nested/file", OpenFlags::empty(), READ).unwrap();
    println!("{:?}", file.open_at(PathFlags::empty(), "x", OpenFlags::empty(), READ).map(drop));
    println!("{:?} {:?}", file.stat_at(PathFlags::empty(), "x").map(|stat| stat.size), file.create_directory_at("x"));
    println!("{:?} {:?}", file.read_directory().map(drop), file.unlink_file_at("x"));
    println!("{:?}", file.rename_at("x", &state, "y"));
    println!("{:?} {:?}", state.remove_directory_at("."), state.unlink_file_at("."));
    println!("{:?} {:?}", state.remove_directory_at("dir"), state.rename_at(".", &state, "x"));
    println!("{:?}", fs::create_dir_all("/state/\u{fc}/\u{1f600}"));
    println!("{:?}", fs::read_dir("/state/\u{fc}").unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>());
}

/// `*_across_perms`: from one volume into another.
pub fn across() {
    let (state, lib) = (folder("/state"), folder("/lib"));
    fs::write("/state/own", b"own").unwrap();
    for outcome in [
        state.rename_at("own", &lib, "given"),
        lib.rename_at("given", &state, "taken"),
        state.link_at(PathFlags::empty(), "own", &lib, "linked"),
        lib.link_at(PathFlags::empty(), "given", &state, "linked"),
    ] {
        println!("{}", outcome.map_or_else(|code| code.name(), |()| "done"));
    }
    println!("{:?} {:?}", fs::read_to_string("/state/own"), fs::read_to_string("/lib/given"));
}

/// `file_truncation_readonly`, `file_stream_not_permitted`.
pub fn leave() {
    let (state, lib) = (folder("/state"), folder("/lib"));
    fs::write("/state/own", b"own").unwrap();
    println!("{:?}", lib.open_at(PathFlags::empty(), "given", OpenFlags::TRUNCATE, READ | WRITE).map(drop));
    println!("{:?}", fs::read_to_string("/lib/given"));
    let reader = state.open_at(PathFlags::empty(), "own", OpenFlags::empty(), READ).unwrap();
    println!("{:?} {:?}", reader.write_via_stream(0).map(drop), reader.append_via_stream().map(drop));
    let writer = state.open_at(PathFlags::empty(), "own", OpenFlags::empty(), WRITE).unwrap();
    println!("{:?} {:?}", writer.read_via_stream(0).map(drop), writer.read(1, 0));
    println!("{:?} {:?}", reader.get_flags(), writer.get_flags());
    println!("{:?} {:?}", state.open_at(PathFlags::empty(), "own", OpenFlags::empty(), DescriptorFlags::empty()).map(|file| file.get_flags()), lib.get_flags());
    println!("{:?}", lib.open_at(PathFlags::empty(), ".", OpenFlags::DIRECTORY, DescriptorFlags::MUTATE_DIRECTORY).map(drop));
    println!("{:?}", state.read_via_stream(0).map(drop));
    println!("{:?} {:?}", state.set_size(0), state.write(b"x", 0));
    let own = state.open_at(PathFlags::empty(), ".", OpenFlags::DIRECTORY, READ).unwrap();
    println!("{:?}", own.open_at(PathFlags::empty(), "new", OpenFlags::CREATE, WRITE).map(drop));
    println!("{:?} {:?}", own.create_directory_at("new-dir"), own.unlink_file_at("own"));
}

/// `file_settime_overflow`, `stat_extreme_*`, `fd_filestat_set`.
pub fn odd_times() {
    let state = folder("/state");
    fs::write("/state/t", b"x").unwrap();
    for (seconds, nanoseconds) in [(0, 0), (1, 999_999_999), (1, 1_000_000_000), (u64::MAX, 0), (u64::MAX, u32::MAX), (1 << 40, 7), (i64::MAX as u64, 0)] {
        let at = NewTimestamp::Timestamp(Datetime { seconds, nanoseconds });
        println!("{seconds} {nanoseconds} {:?}", state.set_times_at(PathFlags::empty(), "t", at, at).is_ok());
    }
    println!("{:?}", fs::metadata("/state/t").map(|found| found.len()));
}

/// `directory_seek`, `dir_fd_op_failures`, `file_seek_tell`, `file_pread_pwrite`, `file_unbuffered_write`.
pub fn places() {
    println!("{:?}", File::open("/state").map(|mut folder| folder.seek(SeekFrom::Start(0)).is_ok()).map_err(|e| e.kind()));
    println!("{:?}", File::open("/state").and_then(|mut folder| folder.read(&mut [0; 4])).map_err(|error| error.kind()));
    let mut file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open("/state/f").unwrap();
    println!("{:?} {:?}", file.seek(SeekFrom::End(10)), file.write(b"x"));
    println!("{:?} {:?}", file.seek(SeekFrom::Start(u64::MAX)).map_err(|e| e.kind()), file.seek(SeekFrom::Current(i64::MIN)).map_err(|e| e.kind()));
    println!("{:?}", file.stream_position());
    let raw = folder("/state").open_at(PathFlags::empty(), "f", OpenFlags::empty(), READ | WRITE).unwrap();
    for at in [0, 5, 11, 1_000] {
        println!("{at} {:?} {:?}", raw.read(20, at), raw.write(b"ab", at));
    }
    println!("{:?} {:?}", raw.set_size(1 << 62).is_err(), raw.stat().map(|stat| stat.size));
    println!("{:?} {:?}", raw.write(b"x", u64::MAX).is_err(), raw.read(0, 0));
    let (one, other) = (raw.write_via_stream(0).unwrap(), raw.read_via_stream(0).unwrap());
    one.blocking_write_and_flush(b"written").unwrap();
    println!("{:?}", other.blocking_read(7).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).ok());
}

/// `path_open_lots`, `sleep_quickly_but_lots`, `clocks_zero_wait`, `sched_yield`, `big_random_buf`, `unicode_output`, `poll_*`.
pub fn often() {
    let state = folder("/state");
    fs::write("/state/f", b"x").unwrap();
    for _ in 0..2_000 {
        drop(state.open_at(PathFlags::empty(), "f", OpenFlags::empty(), READ).unwrap());
    }
    for _ in 0..1_000 {
        monotonic_clock::subscribe_duration(1).block();
    }
    for nanoseconds in [0, 1] {
        let zero = monotonic_clock::subscribe_duration(nanoseconds);
        zero.block();
        println!("{}", zero.ready());
    }
    for _ in 0..100 {
        std::thread::yield_now();
    }
    println!("{} {}", random::get_random_bytes(60_000).len(), insecure::get_insecure_random_bytes(60_000).len());
    println!("\u{627}\u{644}\u{639}\u{631}\u{628}\u{64a}\u{629} \u{4e2d}\u{6587} \u{1f980} e\u{301}");
    let (out, file) = (get_stdout(), state.open_at(PathFlags::empty(), "f", OpenFlags::empty(), READ).unwrap());
    let input = file.read_via_stream(0).unwrap();
    let (writes, reads) = (out.subscribe(), input.subscribe());
    for _ in 0..100 {
        reads.block();
    }
    let ready = poll(&[&writes, &reads, &writes]);
    println!("{}", !ready.is_empty());
    drop((writes, reads));
    println!("{:?}", input.blocking_read(5).map(|bytes| bytes.len()).ok());
}

/// `*_traps`: each ends the program.
pub fn traps(which: &str) {
    match which {
        "trap-poll-nothing" => drop(poll(&[])),
        "trap-stream-before-pollable" => {
            fs::write("/state/f", b"x").unwrap();
            let file = folder("/state").open_at(PathFlags::empty(), "f", OpenFlags::empty(), READ).unwrap();
            let input = file.read_via_stream(0).unwrap();
            let readable = input.subscribe();
            drop(input);
            readable.block();
        }
        "trap-long-blocking-write" => drop(get_stdout().blocking_write_and_flush(&[b'x'; 4_097])),
        "trap-exit-within" => {
            let _kept = monotonic_clock::subscribe_duration(1);
            wasip2::cli::exit::exit(Ok(()));
        }
        other => println!("there is no {other}"),
    }
    println!("it goes on");
}

/// `file_write`, `file_read_write`, `file_truncation`, `remove_nonempty_directory`, `fd_readdir`.
pub fn sizes() {
    let mut file = File::create("/state/large").unwrap();
    let part: Vec<u8> = (0..=255).collect();
    for _ in 0..4_096 {
        file.write_all(&part).unwrap();
    }
    file.sync_all().unwrap();
    let read = fs::read("/state/large").unwrap();
    println!("{} {}", read.len(), read.chunks(256).all(|chunk| chunk == part));
    for length in [0, 1, 1 << 20, 3] {
        file.set_len(length).unwrap();
        println!("{:?}", fs::metadata("/state/large").unwrap().len());
    }
    fs::create_dir("/state/full").unwrap();
    for n in 0..700 {
        fs::write(format!("/state/full/{}", "n".repeat(n % 200 + 1) + &n.to_string()), b"").unwrap();
    }
    let state = folder("/state");
    println!("{:?}", state.remove_directory_at("full"));
    let full = state.open_at(PathFlags::empty(), "full", OpenFlags::DIRECTORY, READ).unwrap();
    for _ in 0..2 {
        let (entries, mut count) = (full.read_directory().unwrap(), 0);
        while let Some(entry) = entries.read_directory_entry().unwrap() {
            count += usize::from(entry.name != "." && entry.name != "..");
        }
        println!("{count} {:?}", entries.read_directory_entry().map(|entry| entry.is_none()));
    }
    fs::remove_dir_all("/state/full").unwrap();
    let gone = full.read_directory().map(|entries| entries.read_directory_entry().map(|entry| entry.is_none()));
    println!("{:?} {:?}", gone.map(|first| first.is_ok()), full.stat().map(|stat| stat.type_));
    println!("{:?}", full.open_at(PathFlags::empty(), "x", OpenFlags::CREATE, WRITE).map(drop));
}
