//! `wasi:filesystem`, through the standard library where that reaches it, below `/state`.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use wasip2::filesystem::preopens::get_directories;
use wasip2::filesystem::types::{
    Descriptor, DescriptorFlags, Filesize, MetadataHashValue, NewTimestamp, OpenFlags, PathFlags,
};
use wasip2::clocks::wall_clock::Datetime;

fn state() -> Descriptor {
    get_directories().into_iter().find(|(_, path)| path == "/state").expect("the volume").0
}

fn open_at(path: &str, open: OpenFlags, flags: DescriptorFlags) -> Result<Descriptor, String> {
    let opened = state().open_at(PathFlags::empty(), path, open, flags);
    opened.map_err(|code| format!("{code:?}"))
}

pub fn preopens() {
    for (descriptor, path) in get_directories() {
        println!("{path} {:?} {:?}", descriptor.get_type(), descriptor.get_flags());
    }
}

pub fn open() {
    let read_write = DescriptorFlags::READ | DescriptorFlags::WRITE;
    println!("absent {:?}", open_at("a", OpenFlags::empty(), read_write).map(drop));
    println!("created {:?}", open_at("a", OpenFlags::CREATE, read_write).map(drop));
    println!("exclusive {:?}", open_at("a", OpenFlags::CREATE | OpenFlags::EXCLUSIVE, read_write).map(drop));
    println!("no folder {:?}", open_at("a", OpenFlags::DIRECTORY, DescriptorFlags::READ).map(drop));
    fs::write("/state/a", b"0123456789").unwrap();
    println!("{:?}", open_at("a", OpenFlags::TRUNCATE, read_write).map(|file| file.stat().map(|stat| stat.size)));
    fs::write("/state/a", b"0123456789").unwrap();
    let reader = open_at("a", OpenFlags::empty(), DescriptorFlags::READ).unwrap();
    println!("{:?} {:?} {:?}", reader.get_type(), reader.get_flags(), reader.read(4, 3));
    println!("write through a reader {:?}", reader.write(b"x", 0));
    println!("set size through a reader {:?}", reader.set_size(1));
    println!("sync {:?} {:?}", reader.sync(), reader.sync_data());
    println!("advise {:?}", reader.advise(0, 10, wasip2::filesystem::types::Advice::Sequential));
    let folder = open_at(".", OpenFlags::DIRECTORY, DescriptorFlags::READ).unwrap();
    println!("{:?} same {}", folder.get_type(), folder.is_same_object(&state()));
    println!("read of a folder {:?}", folder.read(1, 0));
    println!("a slash {:?}", open_at("a/", OpenFlags::empty(), DescriptorFlags::READ).map(drop));
    println!("nothing {:?}", open_at("", OpenFlags::empty(), DescriptorFlags::READ).map(drop));
    println!("NUL {:?}", open_at("a\0b", OpenFlags::empty(), DescriptorFlags::READ).map(drop));
    println!("below a file {:?}", open_at("a/b", OpenFlags::empty(), DescriptorFlags::READ).map(drop));
    let long = "x".repeat(300);
    println!("long {:?}", open_at(&long, OpenFlags::CREATE, read_write).map(drop));
}

fn listed(path: &str) -> Vec<(String, bool)> {
    let mut names: Vec<_> = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), entry.file_type().unwrap().is_dir()))
        .collect();
    names.sort();
    names
}

pub fn folders() {
    fs::create_dir("/state/d").unwrap();
    println!("again {:?}", fs::create_dir("/state/d").map_err(|error| error.kind()));
    fs::create_dir_all("/state/d/e/f").unwrap();
    fs::write("/state/d/file", b"x").unwrap();
    println!("{:?} {:?}", listed("/state"), listed("/state/d"));
    for n in 0..300 {
        fs::write(format!("/state/d/e/{n}"), b"").unwrap();
    }
    println!("{} {}", listed("/state/d/e").len(), listed("/state/d/e/f").len());
    println!("full {:?}", fs::remove_dir("/state/d").map_err(|error| error.kind()));
    println!("no folder {:?}", fs::remove_dir("/state/d/file").map_err(|error| error.kind()));
    println!("no file {:?}", state().unlink_file_at("d"));
    fs::remove_dir_all("/state/d").unwrap();
    println!("{:?} {:?}", listed("/state"), fs::read_dir("/state/d").map(drop).map_err(|error| error.kind()));
    println!("{:?}", state().remove_directory_at("."));
    println!("{:?}", state().create_directory_at(""));
}

pub fn positions() {
    let mut file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open("/state/p").unwrap();
    file.write_all(b"0123456789").unwrap();
    println!("{:?}", file.seek(SeekFrom::Start(3)));
    let mut three = [0; 3];
    file.read_exact(&mut three).unwrap();
    println!("{three:?} {:?}", file.stream_position());
    println!("{:?} {:?}", file.seek(SeekFrom::End(-2)), file.seek(SeekFrom::Current(1)));
    println!("{:?}", file.seek(SeekFrom::Current(-100)).map_err(|error| error.kind()));
    println!("{:?} {:?}", file.seek(SeekFrom::Start(20)), file.write(b"beyond"));
    println!("{:?} {:?}", fs::read("/state/p"), file.metadata().unwrap().len());
    file.set_len(5).unwrap();
    println!("{:?}", fs::read("/state/p"));
    file.set_len(8).unwrap();
    println!("{:?}", fs::read("/state/p"));
    let mut appended = OpenOptions::new().append(true).open("/state/p").unwrap();
    appended.write_all(b"end").unwrap();
    appended.seek(SeekFrom::Start(0)).unwrap();
    appended.write_all(b"!").unwrap();
    println!("{:?}", fs::read("/state/p"));
    // At an offset, without moving anything.
    let raw = open_at("p", OpenFlags::empty(), DescriptorFlags::READ | DescriptorFlags::WRITE).unwrap();
    println!("{:?} {:?} {:?}", raw.write(b"AB", 2), raw.read(4, 1), raw.read(100, 10));
    println!("{:?} {:?}", raw.read(4, 100), raw.write(b"", 3));
    println!("{:?}", raw.read(4, Filesize::MAX).map(|(bytes, end)| (bytes.len(), end)));
    println!("{:?}", raw.set_size(2));
    println!("{:?}", fs::read("/state/p"));
}

pub fn names() {
    fs::write("/state/a", b"a").unwrap();
    fs::write("/state/b", b"b").unwrap();
    fs::create_dir("/state/d").unwrap();
    fs::rename("/state/a", "/state/d/a").unwrap();
    println!("{:?} {:?}", listed("/state"), fs::read("/state/d/a"));
    fs::rename("/state/d/a", "/state/b").unwrap();
    println!("{:?} {:?}", listed("/state"), fs::read("/state/b"));
    println!("absent {:?}", fs::rename("/state/x", "/state/y").map_err(|error| error.kind()));
    println!("over a folder {:?}", fs::rename("/state/b", "/state/d").map_err(|error| error.kind()));
    println!("into itself {:?}", fs::rename("/state/d", "/state/d/e").map_err(|error| error.kind()));
    fs::rename("/state/d", "/state/e").unwrap();
    println!("{:?}", listed("/state"));
    println!("out {:?}", fs::rename("/state/b", "/state/../b").map_err(|error| error.kind()));
    println!("{:?}", fs::copy("/state/b", "/state/c").map_err(|error| error.kind()));
    fs::remove_file("/state/b").unwrap();
    println!("{:?} {:?}", fs::remove_file("/state/b").map_err(|error| error.kind()), listed("/state"));
    // What is open stays readable after its name is gone.
    fs::write("/state/gone", b"still here").unwrap();
    let mut open = File::open("/state/gone").unwrap();
    fs::remove_file("/state/gone").unwrap();
    let mut text = String::new();
    println!("{:?} {text}", open.read_to_string(&mut text).map(|_| text.clone()));
}

pub fn links() {
    fs::write("/state/a", b"linked to").unwrap();
    let folder = state();
    println!("{:?}", folder.symlink_at("a", "to-a"));
    println!("{:?} {:?}", folder.readlink_at("to-a"), fs::read("/state/to-a"));
    println!("{:?}", fs::symlink_metadata("/state/to-a").map(|status| status.file_type().is_symlink()));
    println!("{:?}", folder.open_at(PathFlags::empty(), "to-a", OpenFlags::empty(), DescriptorFlags::READ).map(drop));
    println!("again {:?}", folder.symlink_at("a", "to-a"));
    println!("no link {:?}", folder.readlink_at("a"));
    println!("absolute {:?}", folder.symlink_at("/etc/passwd", "out"));
    println!("dangling {:?} {:?}", folder.symlink_at("nowhere", "dangling"), fs::read("/state/dangling").map_err(|e| e.kind()));
    println!("loop {:?} {:?}", folder.symlink_at("loop", "loop"), fs::read("/state/loop").map_err(|error| error.kind()));
    println!("out {:?} {:?}", folder.symlink_at("../..", "up"), fs::read_dir("/state/up").map(drop).map_err(|e| e.kind()));
    println!("hard {:?}", folder.link_at(PathFlags::empty(), "a", &folder, "b"));
    println!("{:?} {:?}", fs::read("/state/b"), folder.stat_at(PathFlags::empty(), "b").map(|stat| stat.link_count));
    println!("{:?}", folder.unlink_file_at("to-a"));
    println!("{:?}", listed("/state"));
}

pub fn times() {
    fs::write("/state/t", b"x").unwrap();
    let folder = state();
    let second = |seconds| Datetime { seconds, nanoseconds: 5 };
    let stamp = |seconds| NewTimestamp::Timestamp(second(seconds));
    println!("{:?}", folder.set_times_at(PathFlags::empty(), "t", stamp(1_000), stamp(2_000)));
    let stat = folder.stat_at(PathFlags::empty(), "t").unwrap();
    println!("{:?} {:?} {:?}", stat.data_access_timestamp, stat.data_modification_timestamp, stat.size);
    println!("{:?} {:?}", stat.type_, stat.link_count);
    let file = open_at("t", OpenFlags::empty(), DescriptorFlags::READ | DescriptorFlags::WRITE).unwrap();
    println!("{:?}", file.set_times(NewTimestamp::NoChange, stamp(3_000)));
    let stat = file.stat().unwrap();
    println!("{:?} {:?}", stat.data_access_timestamp, stat.data_modification_timestamp);
    println!("{:?}", file.set_times(NewTimestamp::Now, NewTimestamp::NoChange));
    println!("{:?}", file.stat().unwrap().data_access_timestamp.map(|time| time.seconds > 1_700_000_000));
    let same = |a: MetadataHashValue, b: MetadataHashValue| (a.lower, a.upper) == (b.lower, b.upper);
    let hash = file.metadata_hash().unwrap();
    println!("{}", same(hash, folder.metadata_hash_at(PathFlags::empty(), "t").unwrap()));
    fs::write("/state/u", b"x").unwrap();
    println!("{}", same(hash, folder.metadata_hash_at(PathFlags::empty(), "u").unwrap()));
    println!("{:?}", folder.stat_at(PathFlags::empty(), "absent").map(|stat| stat.size));
}

pub fn outside() {
    for path in ["..", "../..", "/etc/passwd", "d/../..", "./../x", "/state", "//"] {
        println!("{path} {:?}", open_at(path, OpenFlags::empty(), DescriptorFlags::READ).map(drop));
        println!("{path} {:?}", state().stat_at(PathFlags::empty(), path).map(drop));
        println!("{path} {:?}", state().create_directory_at(path));
        println!("{path} {:?}", state().unlink_file_at(path));
    }
    println!("{:?} {:?}", fs::read("/etc/passwd").map_err(|e| e.kind()), fs::read("/state/../etc/passwd").map_err(|e| e.kind()));
    println!("{:?}", File::create("/elsewhere").map(drop).map_err(|error| error.kind()));
    println!("{:?}", fs::canonicalize("/state/.").map_err(|error| error.kind()));
    println!("{:?} {:?}", std::env::current_dir().map_err(|e| e.kind()), fs::read_dir(".").map(drop).map_err(|e| e.kind()));
}

pub fn read_only() {
    let (folder, _) = get_directories().into_iter().find(|(_, path)| path == "/lib").expect("the read-only volume");
    println!("{:?} {:?}", folder.get_flags(), fs::read_to_string("/lib/given"));
    let write = DescriptorFlags::WRITE;
    println!("{:?}", folder.open_at(PathFlags::empty(), "given", OpenFlags::empty(), write).map(drop));
    println!("{:?}", folder.open_at(PathFlags::empty(), "new", OpenFlags::CREATE, write).map(drop));
    println!("{:?}", folder.open_at(PathFlags::empty(), "given", OpenFlags::TRUNCATE, DescriptorFlags::READ).map(drop));
    println!("{:?} {:?}", folder.create_directory_at("d"), folder.unlink_file_at("given"));
    println!("{:?} {:?}", folder.symlink_at("given", "link"), folder.rename_at("given", &folder, "other"));
    println!("{:?}", folder.link_at(PathFlags::empty(), "given", &folder, "hard"));
    println!("{:?}", folder.set_times_at(PathFlags::empty(), "given", NewTimestamp::Now, NewTimestamp::Now));
    println!("{:?}", folder.remove_directory_at("given"));
    let file = folder.open_at(PathFlags::empty(), "given", OpenFlags::empty(), DescriptorFlags::READ).unwrap();
    println!("{:?} {:?}", file.set_size(0), file.set_times(NewTimestamp::Now, NewTimestamp::Now));
    println!("{:?}", fs::read_to_string("/lib/given"));
}
