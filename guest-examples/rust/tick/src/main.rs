//! A timer job: one line to its owner's log, then it ends until the next time.

use std::time::{SystemTime, UNIX_EPOCH};

fn main() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    println!("tick at {now}");
}
