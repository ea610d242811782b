//! The journal as its callers see it: cases, properties, recovery, members, bytes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![allow(missing_docs, unreachable_pub)]

mod author;
mod bytes;
mod cases;
mod chains;
mod checkouts;
mod cluster;
mod converge;
mod forge;
mod members;
// The simulator in the `tests` crate looks at the rules more closely than the tests here.
#[allow(dead_code, reason = "shared with the simulator")]
#[path = "../../../tests/src/sim/oracle.rs"]
mod oracle;
mod past;
mod recovery;
mod retention;
#[allow(dead_code, reason = "shared with the simulator")]
#[path = "../../../tests/src/sim/roster.rs"]
mod roster;
mod scenarios;
mod script;
mod stage;
