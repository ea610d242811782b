//! Everything that reads bytes of a peer or of a disk, as functions of arbitrary bytes.
//!
//! ```text
//! bytes    decoders of messages, entries, tickets, manifests, records        mutate   inputs from good ones
//! disk     a journal over a damaged log, a store over damaged packs          memory   a log's disk in memory
//! fold     entries of any kind, signed, in two orders
//! session  a hostile peer's messages
//! ```
//!
//! [`TARGETS`] lists them. The tests run each over its seeds, the stored corpus (`tests/fuzz/corpus/NAME/`) and random
//! changes of both; `make fuzz` does so for longer.
//!
//! Leaves out: the spool (its crate's own tests), what only the same user can write (control socket, settings); being led
//! by coverage.
//!
//! Invariant: a target panics when what it names is broken, and for no other input.

use std::path::PathBuf;

mod bytes;
mod disk;
mod fold;
mod memory;
pub mod mutate;
mod session;

/// One thing that reads bytes.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name, which its corpus has too.
    pub name: &'static str,
    /// Reads an input.
    pub run: fn(&[u8]),
    /// Good inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// How many inputs a short run makes: fewer where each costs more.
    pub cases: u32,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "entry", run: bytes::entry, seeds: bytes::entry_seeds, cases: 20_000 },
    Target {
        name: "journal_message",
        run: bytes::message,
        seeds: bytes::message_seeds,
        cases: 20_000,
    },
    Target { name: "join_message", run: bytes::join, seeds: bytes::join_seeds, cases: 20_000 },
    Target { name: "lock_message", run: bytes::locks, seeds: bytes::lock_seeds, cases: 20_000 },
    Target { name: "chunk_messages", run: bytes::chunks, seeds: bytes::chunk_seeds, cases: 20_000 },
    Target { name: "ticket", run: bytes::ticket, seeds: bytes::ticket_seeds, cases: 20_000 },
    Target { name: "names", run: bytes::names, seeds: bytes::name_seeds, cases: 20_000 },
    Target { name: "manifest", run: bytes::manifest, seeds: bytes::manifest_seeds, cases: 5_000 },
    Target { name: "stored_chunk", run: bytes::stored, seeds: bytes::stored_seeds, cases: 10_000 },
    Target { name: "pack_parts", run: bytes::pack_parts, seeds: disk::pack_seeds, cases: 10_000 },
    Target { name: "packs", run: disk::packs, seeds: disk::pack_seeds, cases: 300 },
    Target { name: "log", run: disk::log, seeds: disk::log_seeds, cases: 500 },
    Target { name: "session", run: session::hostile, seeds: session::seeds, cases: 1_000 },
    Target { name: "fold", run: fold::two_orders, seeds: fold::seeds, cases: 500 },
];

/// The target of a name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// Where the inputs of a target that once found something, or reach far, are kept.
pub fn corpus_dir(target: &Target) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target.name)
}

/// The kept inputs of a target, in the order of their names.
pub fn corpus(target: &Target) -> Vec<Vec<u8>> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(corpus_dir(target))
        .map(|dir| dir.filter_map(|entry| Some(entry.ok()?.path())).collect())
        .unwrap_or_default();
    files.sort();
    files.iter().filter_map(|file| std::fs::read(file).ok()).collect()
}
