//! Guests that need no compiler but this crate's own build.

use anyhow::Result;
use std::fmt::Write as _;

/// A job that does next to nothing.
pub fn command() -> Result<Vec<u8>> {
    Ok(wat::parse_str(COMMAND)?)
}

/// A job with so many functions beside its own: native code of the size of a real one, in the same memory.
pub fn command_with(functions: u32) -> Result<Vec<u8>> {
    let mut filler = String::new();
    for n in 0..functions {
        write!(
            filler,
            "(func (export \"f{n}\") (param i32) (result i32) (local i32)"
        )?;
        for step in 0..STEPS {
            let (at, mixed) = (step * 8, n.wrapping_mul(2_654_435_761).wrapping_add(step) >> 1);
            write!(
                filler,
                "(local.set 1 (i32.xor (i32.mul (local.get 0) (i32.const {mixed})) (i32.load offset={at} (local.get 1))))\
                 (i32.store offset={at} (local.get 0) (local.get 1))"
            )?;
        }
        filler.push_str("(local.get 1))\n");
    }
    Ok(wat::parse_str(COMMAND.replace(";; FILLER", &filler))?)
}

/// A service that answers "hello".
pub fn hello() -> Result<Vec<u8>> {
    Ok(wat::parse_str(HELLO)?)
}

const COMMAND: &str = include_str!("guests/command.wat");
const HELLO: &str = include_str!("guests/hello.wat");
/// Statements in a filler function: a few hundred bytes of native code, the size of a common function.
const STEPS: u32 = 12;
