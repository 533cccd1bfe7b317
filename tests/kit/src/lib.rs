//! What tests and the demo share: a fleet of real processes on loopback.
//!
//! What it is: [`Stage`] founds a development fleet with `redan-ceremony`, starts `redan-control`, admits, enrols and
//! starts `redan-device`s, and publishes with `redan`: the very programs and commands a person uses, nothing linked in.
//!
//! Invariants: every process a stage starts is stopped when the stage goes, also on panic; no fixed port; nothing
//! outside the stage's folder is written.
//!
//! Absent on purpose: any way to run a component that does not go through those programs.
//!
//! Start reading at [`stage`].
#![forbid(unsafe_code)]

pub mod interrupt;
pub mod process;
pub mod programs;
pub mod python;
pub mod stage;
pub mod traffic;
pub mod view;

pub use process::Process;
pub use programs::Programs;
pub use stage::Stage;
pub use view::DeviceView;
