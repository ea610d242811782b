//! Whole clusters from one seed: the product's journal and exchange on simulated disks, links and clocks.
//!
//! ```text
//! command ─► run ─► plan (the seed, drawn)     rng: the one source of chance
//!             └───► world ─► acts, evil, user  (what happens)
//!                     ├────► devices, network  (how it happens) ─► host, disk
//!                     ├────► locks                  (session locks, and what must hold of them)
//!                     └────► check ─► ledger, oracle ─► roster  (what must hold)
//! ```
//!
//! Leaves out: sockets, the kernel's file system, threads; real processes are under [`crate::harness`].
//!
//! Invariants:
//! - a run is a function of its plan: the same plan gives the same trace hash;
//! - what is checked is known from outside the product: from entries' bytes, from what calls returned, from the disk.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic in a run is a failed run, with its message and its seed"
)]

mod acts;
mod check;
mod devices;
mod disk;
mod evil;
mod host;
mod ledger;
mod locks;
mod network;
#[allow(missing_docs, reason = "shared with the journal's tests, which have no documents")]
pub mod oracle;
pub mod rng;
#[allow(missing_docs, reason = "shared with the journal's tests, which have no documents")]
pub mod roster;
mod user;
mod world;

#[cfg(debug_assertions)]
pub mod canaries;
pub mod command;
pub mod fail;
pub mod marks;
pub mod plan;
pub mod regress;
pub mod run;

pub use fail::Broken;
pub use world::{Outcome, Telling};
