//! Atelier's program: the composition of the other crates, and the conversation with the user and
//! the system.
//!
//! ```text
//! cli ----> start ----> launch ----> daemon ----> drive        what runs
//!  |          |            |            |
//!  |       signals    paths, keys,   vfs, net, journal, cas    (the other crates)
//!  |       logging    identity          |
//!  +-----> ipc <------------------------+                      asking what runs
//!  +-----> doctor, demo, mountpoint
//!          report, clock                                       used by all
//! ```
//!
//! Leaves out every rule about names, entries, bytes and peers: those live in the crates below, which
//! know nothing of each other where this crate joins them.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

pub mod cli;
pub mod clock;
pub mod daemon;
pub mod demo;
pub mod doctor;
pub mod drive;
pub mod identity;
pub mod ipc;
pub mod keys;
pub mod launch;
pub mod logging;
pub mod mountpoint;
pub mod paths;
pub mod report;
pub mod signals;
pub mod start;
