//! `wasi:io`: streams of files, and polling.

use wasip2::clocks::monotonic_clock::subscribe_duration;
use wasip2::filesystem::preopens::get_directories;
use wasip2::filesystem::types::{Descriptor, DescriptorFlags, OpenFlags, PathFlags};
use wasip2::io::poll::poll as poll_all;
use wasip2::io::streams::StreamError;

fn file(name: &str, flags: DescriptorFlags) -> Descriptor {
    let (state, _) = get_directories().into_iter().find(|(_, path)| path == "/state").expect("the volume");
    state.open_at(PathFlags::empty(), name, OpenFlags::CREATE, flags).unwrap()
}

pub fn poll() {
    let (soon, late) = (subscribe_duration(1_000_000), subscribe_duration(3_600_000_000_000));
    println!("{:?}", poll_all(&[&late, &soon]));
    println!("{} {}", soon.ready(), late.ready());
    println!("{:?}", poll_all(&[&soon, &late, &soon]));
    soon.block();
    let out = wasip2::cli::stdout::get_stdout();
    let writable = out.subscribe();
    println!("{:?}", poll_all(&[&late, &writable]));
    drop(writable);
    std::fs::write("/state/f", b"bytes").unwrap();
    let input = file("f", DescriptorFlags::READ).read_via_stream(0).unwrap();
    let readable = input.subscribe();
    readable.block();
    println!("{}", readable.ready());
}

fn shown<T: std::fmt::Debug>(outcome: Result<T, StreamError>) -> String {
    match outcome {
        Ok(value) => format!("{value:?}"),
        Err(StreamError::Closed) => "closed".to_owned(),
        Err(StreamError::LastOperationFailed(_)) => "failed".to_owned(),
    }
}

pub fn splice_and_skip() {
    let content: Vec<u8> = (0..10_000_u32).map(|n| (n % 251) as u8).collect();
    std::fs::write("/state/from", &content).unwrap();
    let from = file("from", DescriptorFlags::READ);
    let input = from.read_via_stream(10).unwrap();
    println!("{}", shown(input.blocking_read(4)));
    println!("{}", shown(input.blocking_skip(6)));
    println!("{}", shown(input.blocking_read(2)));
    println!("{}", shown(input.read(0)));
    let to = file("to", DescriptorFlags::WRITE);
    let output = to.write_via_stream(0).unwrap();
    println!("{}", shown(output.blocking_write_and_flush(b"head ")));
    let mut spliced = 0;
    loop {
        match output.blocking_splice(&input, 3_000) {
            Ok(count) => spliced += count,
            Err(error) => {
                println!("{spliced} {}", shown::<()>(Err(error)));
                break;
            }
        }
    }
    println!("{}", shown(output.blocking_flush()));
    println!("{}", shown(output.blocking_write_zeroes_and_flush(5)));
    drop(output);
    let written = std::fs::read("/state/to").unwrap();
    println!("{} {:?} {}", written.len(), &written[..8], written.iter().map(|byte| u64::from(*byte)).sum::<u64>());
    let append = to.append_via_stream().unwrap();
    println!("{}", shown(append.blocking_write_and_flush(b"tail")));
    drop(append);
    let at = to.write_via_stream(2).unwrap();
    println!("{}", shown(at.check_write().map(|room| room > 0)));
    println!("{}", shown(at.write(b"XY")));
    println!("{}", shown(at.blocking_flush()));
    drop(at);
    let written = std::fs::read("/state/to").unwrap();
    println!("{:?} {:?}", &written[..6], &written[written.len() - 9..]);
}

pub fn closed() {
    std::fs::write("/state/short", b"ab").unwrap();
    let short = file("short", DescriptorFlags::READ);
    let input = short.read_via_stream(0).unwrap();
    println!("{}", shown(input.blocking_read(10)));
    println!("{} {}", shown(input.blocking_read(10)), shown(input.blocking_read(10)));
    let beyond = short.read_via_stream(100).unwrap();
    println!("{}", shown(beyond.blocking_read(1)));
    println!("{}", short.write_via_stream(0).is_err());
    let stdin = wasip2::cli::stdin::get_stdin();
    println!("{} {}", shown(stdin.blocking_read(3)), shown(stdin.blocking_read(100)));
    println!("{}", shown(stdin.blocking_read(1)));
}
