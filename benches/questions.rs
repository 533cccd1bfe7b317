//! The benches, one question a file. `cargo bench -p redan-benches -- decide` asks the questions so named.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    reason = "a bench that cannot be set up has nothing to measure"
)]
#![allow(
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a bench speaks on standard output, and fails as tests do"
)]

mod cold_start;
mod connections;
mod decide;
mod egress_check;
mod instantiate;
mod job_start;
mod limits;
mod memory;
mod request;
mod sandbox;
mod tuf_refresh;

use criterion::Criterion;
use redan_benches::Asking;

type Bench = fn(&mut Asking);

const QUESTIONS: &[(&str, Bench)] = &[
    ("instantiate", instantiate::bench),
    ("limits", limits::bench),
    ("request", request::bench),
    ("egress_check", egress_check::bench),
    ("cold_start", cold_start::bench),
    ("job_start", job_start::bench),
    ("memory", memory::bench),
    ("decide", decide::bench),
    ("tuf_refresh", tuf_refresh::bench),
    ("connections", connections::bench),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [serve, which, folder] = &arguments[..]
        && serve == "serve"
    {
        connections::serve(which, std::path::Path::new(folder));
        return;
    }
    if let [name, folder] = arguments.as_slice()
        && name == job_start::EXECUTOR
    {
        job_start::become_executor(folder);
        return;
    }
    let given = |name: &str| arguments.iter().any(|argument| argument == name);
    if given("--bench") {
        // Files that are named are asked alone, the others not even prepared.
        let named = QUESTIONS.iter().any(|(name, _)| given(name));
        let mut asking = if given("--alone") {
            Asking::Alone
        } else if named {
            Asking::Measured(Box::new(Criterion::default().without_plots()))
        } else {
            Asking::Measured(Box::new(Criterion::default().configure_from_args()))
        };
        for (name, bench) in QUESTIONS {
            if !named || given(name) {
                bench(&mut asking);
            }
        }
        if let Asking::Measured(criterion) = asking {
            criterion.final_summary();
        }
        return;
    }
    // By the tests, with their filter and their options, of which none is about benches.
    let filters: Vec<&String> = arguments.iter().filter(|name| !name.starts_with('-')).collect();
    for (name, bench) in QUESTIONS {
        if !given("--list") && (filters.is_empty() || filters.iter().any(|filter| name.contains(*filter))) {
            println!("bench {name}, once");
            bench(&mut Asking::Once);
        }
    }
}
