//! The journal as its callers see it: cases, properties, recovery, members, bytes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
#![allow(missing_docs, unreachable_pub)]

mod author;
mod bytes;
mod cases;
mod cluster;
mod converge;
mod forge;
mod members;
mod oracle;
mod past;
mod recovery;
mod retention;
mod scenarios;
mod script;
mod stage;
