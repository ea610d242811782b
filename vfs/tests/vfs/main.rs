//! The file system as programs see it, over a small published tree kept in memory.
//!
//! Leaves out: the journal's own rules; [`drive`] has just enough of them to show what was based on what.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    unreachable_pub
)]

mod collect;
mod copies;
mod crash;
#[path = "../../../tests/src/harness/dance.rs"]
#[allow(dead_code, reason = "the mounted replay uses what this one does not")]
mod dance;
mod dances;
mod drive;
mod files;
mod locks;
mod model;
mod mounts;
mod names;
mod owners;
mod past;
mod remote;
mod stale;
mod stress;
