//! Bytes by hash: the content-addressed store of one drive on one device.
//!
//! ```text
//! rewrite ─► writer ─► store ─► backend (fs, mem)      id: names        chunker: where to cut
//!    └─────► reader ─► (ChunkSource: store, cache)     stored: LZ4      manifest: list of chunks
//!                       store ─► index (LMDB, memory)  format: packs    error
//! ```
//!
//! Leaves out: which contents exist and why (journal), who else has them (net), and what a file is (vfs).
//!
//! Invariants:
//! - an id is only ever given out for bytes that hash to it, and bytes are only given out for an id after
//!   their hash has been checked;
//! - the packs are the truth; the index is a cache and can be thrown away at any time;
//! - equal bytes cut by the same [`chunker::Class`] have the same [`id::ContentId`], however they were written.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]
#![cfg_attr(test, allow(clippy::single_range_in_vec_init))]

pub mod backend;
pub mod cache;
pub mod chunker;
pub mod error;
pub mod format;
pub mod id;
mod index;
pub mod manifest;
pub mod missing;
pub mod reader;
pub mod rewrite;
pub mod store;
pub mod stored;
pub mod writer;

pub use chunker::Class;
pub use error::{OpenError, PathError, ReadError, Unavailable, WriteError};
pub use id::{ChunkId, ContentId, ContentKind, IdKey};
pub use missing::{MissingChunks, missing_chunks};
pub use reader::{ChunkSource, Content, Reader};
pub use rewrite::{Edits, Written, rewrite};
pub use store::{
    Collector, Config, GcError, Hold, ScrubReport, ScrubStep, Stopped, Store, Sweep, SweepStep,
    Swept, Usage,
};
pub use stored::StoredChunk;
pub use writer::Writer;
