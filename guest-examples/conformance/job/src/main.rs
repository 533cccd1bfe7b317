//! Uses one interface of WASI 0.2 in the way its first argument names, and prints what it saw. What differs between two runs by
//! nature (times, random bytes) is printed as whether it is as it should be; so two hosts that behave alike print alike.

mod files;
mod streams;
mod suites;

use std::io::{BufRead, IsTerminal, Read, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};
use wasip2::clocks::{monotonic_clock, wall_clock};
use wasip2::random::{insecure, insecure_seed, random};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map_or("", String::as_str) {
        "args" => println!("{:?}", &arguments[1..]),
        "env" => {
            let mut variables: Vec<_> = std::env::vars().collect();
            variables.sort();
            println!("{variables:?} {:?} {:?}", std::env::var("ABSENT").is_err(), wasip2::cli::environment::initial_cwd());
        }
        "exit-code" => return ExitCode::from(3),
        "exit" => std::process::exit(1),
        "exit-ok" => {
            println!("before");
            wasip2::cli::exit::exit(Ok(()));
        }
        "exit-err" => wasip2::cli::exit::exit(Err(())),
        "fail" => return ExitCode::FAILURE,
        "panic" => panic!("as wanted"),
        "stdin" => stdin(),
        "stdin-bytes" => {
            let mut bytes = Vec::new();
            println!("{:?} {bytes:?}", std::io::stdin().read_to_end(&mut bytes).map(|_| bytes.clone()));
        }
        "stdout" => stdout(),
        "terminal" => println!(
            "{} {} {}",
            std::io::stdin().is_terminal(),
            std::io::stdout().is_terminal(),
            std::io::stderr().is_terminal()
        ),
        "monotonic" => monotonic(),
        "wall" => wall(),
        "sleep" => sleep(),
        "random" => numbers(),
        "poll" => streams::poll(),
        "streams" => streams::splice_and_skip(),
        "closed" => streams::closed(),
        "open" => files::open(),
        "folders" => files::folders(),
        "positions" => files::positions(),
        "names" => files::names(),
        "links" => files::links(),
        "times" => files::times(),
        "outside" => files::outside(),
        "read-only" => files::read_only(),
        "preopens" => files::preopens(),
        "sockets" => sockets(),
        "suite-slashes" => suites::slashes(),
        "suite-links" => suites::links(),
        "suite-paths" => suites::paths(),
        "suite-across" => suites::across(),
        "suite-leave" => suites::leave(),
        "suite-odd-times" => suites::odd_times(),
        "suite-places" => suites::places(),
        "suite-often" => suites::often(),
        "suite-sizes" => suites::sizes(),
        trap if trap.starts_with("trap-") => suites::traps(trap),
        other => {
            eprintln!("there is no {other:?}");
            return ExitCode::from(99);
        }
    }
    ExitCode::SUCCESS
}

fn stdin() {
    let mut lines = std::io::stdin().lock();
    let mut line = String::new();
    while lines.read_line(&mut line).unwrap() > 0 {
        println!("{line:?}");
        line.clear();
    }
    println!("end {}", lines.read(&mut [0; 1]).unwrap());
}

fn stdout() {
    let mut out = std::io::stdout().lock();
    out.write_all(b"a line\nhalf a").unwrap();
    out.flush().unwrap();
    eprint!("to the other\n");
    out.write_all(&[b'x'; 100_000]).unwrap();
    out.write_all("\u{fc}\0\u{1b}[31m end\n".as_bytes()).unwrap();
    let stream = wasip2::cli::stdout::get_stdout();
    let room = stream.check_write().unwrap();
    stream.write(b"raw\n").unwrap();
    stream.blocking_flush().unwrap();
    eprintln!("room {}", room > 0);
}

fn monotonic() {
    let resolution = monotonic_clock::resolution();
    let before = monotonic_clock::now();
    let begun = Instant::now();
    let after = monotonic_clock::now();
    println!("{} {} {}", resolution > 0, after >= before, begun.elapsed() < Duration::from_secs(60));
    monotonic_clock::subscribe_instant(0).block();
    let past = monotonic_clock::subscribe_instant(before);
    past.block();
    println!("past {}", past.ready());
}

fn wall() {
    let now = wall_clock::now();
    let resolution = wall_clock::resolution();
    let system = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    println!(
        "{} {} {}",
        now.seconds > 1_700_000_000 && now.nanoseconds < 1_000_000_000,
        resolution.seconds > 0 || resolution.nanoseconds > 0,
        system >= now.seconds && system - now.seconds < 60
    );
}

fn sleep() {
    let begun = monotonic_clock::now();
    std::thread::sleep(Duration::from_millis(30));
    // A clock may move in steps; of less than a few milliseconds here.
    println!("slept {}", monotonic_clock::now() - begun >= 25_000_000);
    let due = monotonic_clock::now() + 20_000_000;
    monotonic_clock::subscribe_instant(due).block();
    println!("woke {}", monotonic_clock::now() + 5_000_000 >= due);
    monotonic_clock::subscribe_duration(0).block();
    println!("at once");
}

fn numbers() {
    let (a, b) = (random::get_random_bytes(32), random::get_random_bytes(32));
    println!("{} {} {}", a.len(), a != b, random::get_random_u64() != random::get_random_u64());
    println!("{}", random::get_random_bytes(0).len());
    let (a, b) = (insecure::get_insecure_random_bytes(32), insecure::get_insecure_random_bytes(32));
    println!("{} {}", a.len(), a != b);
    println!("{}", insecure::get_insecure_random_u64() != insecure::get_insecure_random_u64());
    let (a, b) = insecure_seed::insecure_seed();
    println!("{}", (a, b) != (0, 0));
}

fn sockets() {
    let connected = std::net::TcpStream::connect("127.0.0.1:9");
    println!("{:?}", connected.map(drop).map_err(|error| error.kind()));
    let bound = std::net::UdpSocket::bind("127.0.0.1:0");
    println!("{:?}", bound.map(drop).map_err(|error| error.kind()));
    let found = std::net::ToSocketAddrs::to_socket_addrs("localhost:80");
    println!("{}", found.is_err());
}
