//! A job that attacks its host. `ATTACK` in its environment names the attack; what it aims at is in `TARGET`.
//!
//! It ends well when the host behaved as it should and the guest lives on, and fails when an attack succeeded. Where
//! the host is to end the call, the attack never ends by itself.

mod bindings {
    wit_bindgen::generate!({ world: "hostile", path: "wit", generate_all });
}

mod each;

use bindings::wasi::keyvalue::{batch, store};
use bindings::wasi::logging::logging::{Level, log};
use std::fs;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;
use std::time::Duration;

const MIB: usize = 1 << 20;

fn main() -> ExitCode {
    let attack = variable("ATTACK");
    let held = match attack.as_str() {
        "none" => true,
        "fail" => false,
        "panic" => panic!("as wanted"),
        "sleep" => {
            std::thread::sleep(Duration::from_secs(86_400));
            false
        }
        "sleep-for-ages" => {
            std::thread::sleep(Duration::from_secs(1_000_000_000));
            false
        }
        "use-everything" => each::use_everything(),
        "poll-many" => each::poll_many(),
        "read-input" => each::read_input(),
        "leak" => each::leak(),
        "operation" => each::operation(),
        "odd-times" => each::odd_times(),
        "mark" => each::mark(),
        "leak-handles" => leak_handles(),
        "huge-list" => {
            wasip2::cli::stdout::get_stdout().write(&vec![b'x'; 64 * MIB]).is_err()
        }
        "huge-string" => {
            log(Level::Info, "", &"x".repeat(64 * MIB));
            false
        }
        "flood-stdout" => flood(&mut std::io::stdout().lock()),
        "flood-stderr" => flood(&mut std::io::stderr().lock()),
        "flood-log" => {
            (0..2_000).for_each(|_| log(Level::Error, "flood", &"x".repeat(1_000)));
            true
        }
        "endless-line" => {
            (0..1_000).for_each(|_| print!("{}", "x".repeat(4_000)));
            true
        }
        "forge-log-lines" => {
            log(Level::Info, "a\n0 err forged", "b\r\u{1b}[2J\u{202e}");
            println!("c\u{1b}[31m");
            true
        }
        "random" => wasip2::random::random::get_random_bytes(65_537).is_empty(),
        "insecure-random" => wasip2::random::insecure::get_insecure_random_bytes(65_537).is_empty(),
        "kv-bytes" => fill_bucket(|n| (format!("key-{n}"), vec![0; 4_096])),
        "kv-keys" => fill_bucket(|n| (n.to_string(), Vec::new())),
        "kv-long-key" => fill_bucket(|_| ("k".repeat(1_025), Vec::new())),
        "kv-batch" => {
            let many = (0..1_025).map(|n| (n.to_string(), Vec::new())).collect::<Vec<_>>();
            trapping(batch::set_many(&bucket(), &many))
        }
        "kv-read-back-multiplied" => multiply(),
        "kv-set" => store::open("default").is_ok_and(|bucket| bucket.set("key", b"value").is_ok()),
        "kv-foreign-bucket" => matches!(store::open("other"), Err(store::Error::NoSuchStore)),
        "fill-volume" => fill_volume(),
        "fill-volume-by-growing" => {
            let file = fs::File::create("/state/large").expect("writable");
            file.set_len(64 << 10).expect("within the quota");
            full(file.set_len((64 << 10) + 1))
        }
        "many-files" => (0..).all(|n| full(fs::write(format!("/state/{n}"), []))),
        "many-folders" => (0..).all(|n| full(fs::create_dir(format!("/state/{n}")))),
        "many-links" => {
            fs::write("/state/one", [0; 10 << 10]).expect("within the quota");
            (0..).all(|n| full(fs::hard_link("/state/one", format!("/state/{n}"))))
        }
        "volume-comes-back" => volume_comes_back(),
        "open-many-files" => open_many(|_| fs::File::create("/state/one").expect("a file")),
        "open-many-folders" => open_many(|_| fs::File::open("/state").expect("a folder")),
        "keep-files-by-streams" => keep_by_streams(),
        "spend-cpu" => spend_cpu(),
        "kv-often" => {
            let bucket = bucket();
            (0..variable("TARGET").parse().unwrap_or(u64::MAX)).all(|_| bucket.exists("key").expect("within the rate") == false)
        }
        "write-volume" => fs::write("/state/more", "x").is_ok(),
        // Neither may go: what is in one volume is counted there.
        "between-volumes" => {
            fs::write("/state/one", "x").is_ok()
                && fs::rename("/state/one", "/other/one").is_err()
                && fs::hard_link("/state/one", "/other/one").is_err()
        }
        "write-read-only" => {
            fs::read("/state/kept").is_ok_and(|kept| kept == b"kept")
                && refused(fs::write("/state/kept", "changed"))
                && refused(fs::write("/state/new", "x"))
                && refused(fs::remove_file("/state/kept"))
                && refused(fs::create_dir("/state/folder"))
        }
        "escape" => escape(),
        "open-what-is-no-file" => open_what_is_no_file(),
        "look-around" => look_around(),
        "fetch-many" => fetch_many(),
        "fetch" => return fetch(&variable("TARGET")),
        _ => false,
    };
    if held { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

/// A host resource a round, never dropped: as many as `TARGET` says, else without end.
fn leak_handles() -> bool {
    for _ in 0..variable("TARGET").parse().unwrap_or(u64::MAX) {
        std::mem::forget(wasip2::clocks::monotonic_clock::subscribe_duration(1 << 60));
    }
    true
}

/// More lines than any budget; that they are dropped is no concern of the guest.
fn flood(out: &mut impl Write) -> bool {
    (0..2_000).all(|n| writeln!(out, "{n} {}", "x".repeat(1_000)).is_ok())
}

fn bucket() -> store::Bucket {
    store::open("default").expect("the grant has it")
}

/// A refused write is what the host's verdict says; trapping makes the verdict the outcome.
fn trapping(outcome: Result<(), store::Error>) -> bool {
    outcome.expect("over the quota");
    false
}

fn fill_bucket(pair: impl Fn(u32) -> (String, Vec<u8>)) -> bool {
    let bucket = bucket();
    for n in 0.. {
        let (key, value) = pair(n);
        if let Err(error) = bucket.set(&key, &value) {
            return trapping(Err(error));
        }
    }
    false
}

/// One stored value, asked for a thousand times in one call: the host would hold a thousand copies.
fn multiply() -> bool {
    let bucket = bucket();
    bucket.set("large", &vec![7; 32 * 1024]).expect("within the quota");
    let keys = vec!["large".to_owned(); 1_024];
    batch::get_many(&bucket, &keys).expect("refused").is_empty()
}

fn fill_volume() -> bool {
    let mut file = fs::File::create("/state/large").expect("writable");
    loop {
        full(file.write_all(&[1; 4_096]));
    }
}

/// A refused write is what the host's verdict says; trapping makes the verdict the outcome.
fn full(outcome: std::io::Result<()>) -> bool {
    outcome.expect("there is room");
    true
}

/// To the last byte and file, again and again, with room made in between; then a write over what is there.
fn volume_comes_back() -> bool {
    for _ in 0..20 {
        for n in 0..16 {
            fs::write(format!("/state/{n}"), [n; 4 << 10]).expect("within the quota");
        }
        for n in 0..16 {
            fs::remove_file(format!("/state/{n}")).expect("its own");
        }
    }
    fs::write("/state/large", [0; 64 << 10]).expect("all of the quota");
    let mut file = fs::OpenOptions::new().write(true).open("/state/large").expect("its own");
    (0..16).all(|_| file.write_all(&[1; 4 << 10]).is_ok())
}

/// So many at once, never closed: as many as `TARGET` says, else without end.
fn open_many(open: impl Fn(u64) -> fs::File) -> bool {
    let most = variable("TARGET").parse().unwrap_or(u64::MAX);
    (0..most).for_each(|n| std::mem::forget(open(n)));
    true
}

/// Files that are closed and whose streams are not.
fn keep_by_streams() -> bool {
    use wasip2::filesystem::types::{DescriptorFlags, OpenFlags, PathFlags};
    let directories = wasip2::filesystem::preopens::get_directories();
    let (state, _) = directories.iter().find(|(_, path)| path == "/state").expect("granted");
    fs::write("/state/one", "x").expect("within the quota");
    loop {
        let file = state.open_at(PathFlags::empty(), "one", OpenFlags::empty(), DescriptorFlags::READ);
        std::mem::forget(file.expect("a file").read_via_stream(0).expect("a stream"));
    }
}

/// As many milliseconds of the CPU as `TARGET` says, by its own count of rounds; the clock stands still for it.
fn spend_cpu() -> bool {
    let rounds: u64 = variable("TARGET").parse().expect("rounds");
    let mut sum = 1_u64;
    for n in 0..rounds * 100_000 {
        sum = std::hint::black_box(sum.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(n));
    }
    sum != 0
}

fn refused<T>(outcome: std::io::Result<T>) -> bool {
    outcome.is_err()
}

/// `/state/kept` may be read, also through a link inside; nothing outside may be touched by any spelling.
fn escape() -> bool {
    let inside = fs::read("/state/kept").is_ok_and(|kept| kept == b"kept")
        && fs::read("/state/planted-inside").is_ok_and(|kept| kept == b"kept");
    let outside = variable("TARGET");
    let spellings = [
        outside.clone(),
        "/state/../secret".to_owned(),
        "/state/./../secret".to_owned(),
        "/state/folder/../../secret".to_owned(),
        format!("/state/{outside}"),
        format!("/state/{}{outside}", "../".repeat(40)),
        "/state/planted-relative".to_owned(),
        "/state/planted-absolute".to_owned(),
        "/state/planted-folder/secret".to_owned(),
        "secret".to_owned(),
        "/proc/self/environ".to_owned(),
        "/state/planted-root/proc/self/environ".to_owned(),
    ];
    let closed = spellings.iter().all(|path| {
        refused(fs::read(path)) && refused(fs::OpenOptions::new().append(true).open(path)) && refused(fs::metadata(path))
    });
    let renames = refused(fs::rename("/state/kept", "/state/../moved"))
        && refused(fs::rename("/state/../secret", "/state/taken"))
        && refused(fs::hard_link("/state/../secret", "/state/taken"))
        && refused(fs::hard_link("/state/planted-relative", "/state/taken/"))
        && refused(fs::write("/state/../new", "x"));
    inside && closed && renames && own_links()
}

/// `/state/kept` may be read, and a new file made; of as many others as `TARGET` says, none opens in any way, and none is waited for.
fn open_what_is_no_file() -> bool {
    let names = fs::read_dir("/state").expect("a folder").map(|entry| entry.expect("an entry").path());
    let planted: Vec<_> = names.filter(|path| !path.ends_with("kept")).collect();
    let closed = planted.iter().all(|path| {
        let mut writes = fs::OpenOptions::new();
        let mut both = writes.clone();
        refused(fs::read(path))
            && refused(fs::write(path, "x"))
            && refused(writes.append(true).open(path))
            && refused(both.read(true).write(true).open(path))
            && refused(fs::hard_link(path, "/state/taken"))
    });
    planted.len().to_string() == variable("TARGET")
        && closed
        && fs::read("/state/kept").is_ok_and(|kept| kept == b"kept")
        && fs::write("/state/new", "x").is_ok()
}

/// A link the guest makes itself may be refused, or made; followed out of the volume it is never.
fn own_links() -> bool {
    use wasip2::filesystem::preopens::get_directories;
    let directories = get_directories();
    let Some((state, _)) = directories.iter().find(|(_, path)| path == "/state") else {
        return false;
    };
    ["../secret", "/", "/etc/passwd"].iter().enumerate().all(|(n, to)| {
        let name = format!("own-{n}");
        let _ = state.symlink_at(to, &name);
        let through = ["", "/etc/passwd", "/secret"];
        through.iter().all(|rest| refused(fs::read(format!("/state/{name}{rest}"))))
    })
}

/// Nothing is granted: nothing is there.
fn look_around() -> bool {
    use wasip2::clocks::{monotonic_clock, wall_clock};
    let names = std::env::vars().filter(|(name, _)| name != "ATTACK").count();
    let folders = wasip2::filesystem::preopens::get_directories().len();
    let arguments: Vec<String> = std::env::args().collect();
    let input = std::io::read_to_string(std::io::stdin()).unwrap_or_default();
    let seed = wasip2::random::insecure_seed::insecure_seed();
    names == 0
        && folders == 0
        && arguments == ["hostile"]
        && input.is_empty()
        && seed == (0, 0)
        && wall_clock::now().seconds == 0
        && monotonic_clock::now() == 0
        && fs::read("/etc/passwd").is_err_and(|error| error.kind() != ErrorKind::PermissionDenied || error.raw_os_error().is_some())
}

/// Asks the target and ends well when there was an answer; the host's verdict is the outcome otherwise.
fn fetch(target: &str) -> ExitCode {
    use wasip2::http::outgoing_handler::handle;
    use wasip2::http::types::{Fields, Method, OutgoingRequest, Scheme};
    let (scheme, rest) = target.split_once("://").expect("a URL");
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let headers = Fields::new();
    let padding = variable("PADDING").parse().unwrap_or(0);
    if padding > 0 {
        headers.append("padding", &vec![b'x'; padding]).expect("a header");
    }
    append(&headers, &variable("HEADERS"));
    let request = OutgoingRequest::new(headers);
    let method = variable("METHOD");
    let method = if method.is_empty() { Method::Get } else { Method::Other(method) };
    let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
    request.set_method(&method).expect("a method");
    request.set_scheme(Some(&scheme)).expect("a scheme");
    request.set_authority(Some(authority)).expect("an authority");
    request.set_path_with_query(Some(&format!("/{path}"))).expect("a path");
    let body = request.body().expect("once");
    let answer = handle(request, None).expect("sent");
    if let Ok(upload) = variable("UPLOAD").parse::<usize>() {
        let stream = body.write().expect("once");
        for _ in 0..upload.div_ceil(4_096) {
            if stream.blocking_write_and_flush(&[b'x'; 4_096]).is_err() {
                break;
            }
        }
    }
    let trailers = variable("TRAILERS");
    let trailers = (!trailers.is_empty()).then(|| {
        let fields = Fields::new();
        append(&fields, &trailers);
        fields
    });
    let _ = wasip2::http::types::OutgoingBody::finish(body, trailers);
    answer.subscribe().block();
    let answer = answer.get().expect("ready").expect("once").expect("answered");
    // The host gives a redirect to its guest like any other answer: who follows it asks again.
    if (300..400).contains(&answer.status()) && variable("FOLLOW") == "yes" {
        let to = answer.headers().get("location").pop().expect("a location");
        return fetch(&String::from_utf8(to).expect("text"));
    }
    let body = answer.consume().expect("once");
    let stream = body.stream().expect("once");
    loop {
        match stream.blocking_read(4_096) {
            Ok(_) => {}
            Err(wasip2::io::streams::StreamError::Closed) => break,
            Err(wasip2::io::streams::StreamError::LastOperationFailed(_)) => panic!("cut off"),
        }
    }
    ExitCode::SUCCESS
}

/// Fields written `name: value`, with a bar between.
fn append(to: &wasip2::http::types::Fields, fields: &str) {
    for (name, value) in fields.split('|').filter_map(|line| line.split_once(": ")) {
        to.append(name, value.as_bytes()).expect("the host takes the field");
    }
}

/// More questions to the broker than may wait at once; ends when the first one is refused.
fn fetch_many() -> bool {
    use wasip2::http::outgoing_handler::handle;
    use wasip2::http::types::{Fields, OutgoingRequest, Scheme};
    let asked = (0..300).map(|_| {
        let request = OutgoingRequest::new(Fields::new());
        request.set_scheme(Some(&Scheme::Http)).expect("a scheme");
        request.set_authority(Some("allowed.example")).expect("an authority");
        request.set_path_with_query(Some("/")).expect("a path");
        handle(request, None).expect("sent")
    });
    let asked: Vec<_> = asked.collect();
    let ready: Vec<_> = asked.iter().map(|answer| answer.subscribe()).collect();
    let first = wasip2::io::poll::poll(&ready.iter().collect::<Vec<_>>());
    for index in first {
        let answer = asked[index as usize].get().expect("ready").expect("once");
        answer.expect("one too many");
    }
    false
}
