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

mod crash;
mod dances;
mod drive;
mod files;
mod model;
mod mounts;
mod names;
mod remote;
mod stress;
