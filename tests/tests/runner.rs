//! The one test binary: what Atelier promises, shown on real processes, mounts, networks and programs.
//!
//! Each module names the promise it checks. Each test says at its head what it needs of the machine and skips itself
//! visibly when that is lacking.
#![forbid(unsafe_code)]
#![allow(
    clippy::indexing_slicing,
    reason = "JSON values answer null for a missing key, and a panic is a failed test"
)]

mod apps;
mod blender;
mod blender_addon;
mod blender_locks;
mod cli;
mod conformance;
mod crash;
mod dances;
mod demo;
mod fuzz;
mod gc;
mod history;
mod hosts;
mod leaving;
mod locks;
mod malice;
mod members;
mod posix;
mod rot;
mod sim;
mod tidy;
mod trouble;
mod twins;
