//! Giving back the room of chunks that nobody needs.
//!
//! ```text
//! collect (barrier up, what is in use marked) ─► keep (marks what must stay) ─► sweep (gives back the rest)
//! ```
//!
//! Leaves out: which contents are needed, which the caller tells by [`Collector::keep`]; and what is in use
//! ([`super::pins`]).
//!
//! Invariants:
//! - one collection at a time; it ends with its [`Collector`], and whatever was not done is left for the next;
//! - a manifest node that is damaged ends the marking: what lies below it cannot be told, and is not removed;
//! - memory is two and a half bytes for each record of the store ([`marks`]), at most [`NODES_MAX`] ids of manifest
//!   nodes, one pack's list, and the copies of one step.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;

use super::pins::{Below, Run};
use super::{Inner, Store};
use crate::error::{PathError, ReadError, WriteError};
use crate::id::{ChunkId, ContentKind};
use crate::manifest::{LEVELS_MAX, Node};
use crate::reader::Content;

pub(super) mod marks;
mod sweep;

use marks::Marks;

/// Ids of manifest nodes remembered, so that what many versions share is walked once; then forgotten all at once.
const NODES_MAX: usize = 1 << 20;

/// Why a collection did not go on. What it removed until then was not needed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum GcError {
    /// Another collection runs.
    #[error("the store is being collected already")]
    Busy,
    /// Part of a content that is needed is damaged, so it cannot be told what belongs to it.
    #[error("chunk {id}, which lists others that are needed, is damaged")]
    Damaged {
        /// The damaged manifest node.
        id: ChunkId,
    },
    /// A content could not be looked at.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// What is needed could not be moved.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl From<PathError> for GcError {
    fn from(error: PathError) -> Self {
        Self::Write(error.into())
    }
}

/// Whether room is given back or only counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sweep {
    /// Removed.
    Remove,
    /// Counted.
    Count,
}

/// Where a sweep is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SweepStep {
    /// Packs looked at or dealt with so far.
    pub packs_done: u64,
    /// Packs there are.
    pub packs_total: u64,
}

/// Why a sweep left packs that were worth rewriting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stopped {
    /// Whoever was told of its steps asked for it.
    Asked,
    /// The disk has no room for the copies of what is needed.
    Full,
}

/// What a sweep did, or would do.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Swept {
    /// Bytes of chunks nobody needs, found in packs.
    pub unneeded_bytes: u64,
    /// Bytes of packs that went.
    pub removed_bytes: u64,
    /// Bytes of needed chunks that were copied from them.
    pub moved_bytes: u64,
    /// Packs that went.
    pub packs_removed: u64,
    /// Chunks that went.
    pub chunks_removed: u64,
    /// Packs that stay although they are worth rewriting, because a chunk in them that is needed is damaged.
    pub packs_damaged: u64,
    /// Set when it did not come to its end.
    pub stopped: Option<Stopped>,
}

impl Swept {
    /// Bytes the store takes less.
    pub fn freed_bytes(&self) -> u64 {
        self.removed_bytes.saturating_sub(self.moved_bytes)
    }
}

/// A collection.
pub struct Collector {
    store: Store,
    run: Arc<Run>,
    /// Packs from this number on are new.
    boundary: u32,
    nodes: HashSet<ChunkId>,
}

impl Drop for Collector {
    fn drop(&mut self) {
        *self.store.0.pins.run.write() = None;
    }
}

impl Store {
    /// Begins a collection: from here on everything that is stored or found to be here stays. The caller then names
    /// with [`Collector::keep`] what must stay, in the order in which contents pass on: what is open or unpublished
    /// before what is published, so that nothing slips by.
    pub fn collect(&self) -> Result<Collector, GcError> {
        self.0.writable()?;
        let (run, boundary) = {
            // Every append is done before this, or sees that a collection runs.
            let appender = self.0.appender.lock();
            let mut running = self.0.pins.run.write();
            if running.is_some() {
                return Err(GcError::Busy);
            }
            let usage = appender.usage();
            let seed = usage.stored_bytes.rotate_left(32) ^ usage.chunks ^ u64::from(appender.next);
            let marks = Marks::new(usage.chunks, seed);
            // Every empty file is this one record: not worth telling one that is gone from one that is not.
            marks.set(&ChunkId::of(&self.0.key, &[]));
            let run = Arc::new(Run { marks, below: Default::default() });
            *running = Some(run.clone());
            (run, appender.next)
        };
        let mut collector = Collector { store: self.clone(), run, boundary, nodes: HashSet::new() };
        for writer in self.0.pins.writers() {
            // The manifest after the batches: what leaves these comes into it.
            for batch in writer.batches.lock().clone() {
                batch.lock().iter().for_each(|id| collector.run.marks.set(id));
            }
            let pending: Vec<_> = {
                let builder = writer.builder.lock();
                builder.pending().map(|(level, records)| (level, records.to_vec())).collect()
            };
            for (level, records) in pending {
                for record in records.into_iter().filter(|record| !record.is_hole()) {
                    collector.mark_below(record.id, level)?;
                }
            }
        }
        for content in self.0.pins.held() {
            collector.keep(content)?;
        }
        Ok(collector)
    }
}

impl Collector {
    /// Everything of this content that is here must stay.
    pub fn keep(&mut self, content: Content) -> Result<(), GcError> {
        match content.id.kind() {
            ContentKind::Chunk => self.mark(&content.id.root()),
            ContentKind::Manifest => self.mark_below(content.id.root(), LEVELS_MAX as u8)?,
        }
        Ok(())
    }

    /// Bytes of chunks that nothing kept so far needs.
    pub fn unneeded_bytes(&mut self) -> Result<u64, GcError> {
        sweep::unneeded_bytes(self)
    }

    /// Gives back the room of what is not needed. Fully unneeded packs go first, at no cost; then those are rewritten
    /// that have the least left. `step` may end it.
    pub fn sweep(
        mut self,
        how: Sweep,
        step: &mut dyn FnMut(SweepStep) -> ControlFlow<()>,
    ) -> Result<Swept, GcError> {
        sweep::run(&mut self, how, step)
    }

    fn inner(&self) -> &Inner {
        &self.store.0
    }

    fn mark(&self, id: &ChunkId) {
        self.run.marks.set(id);
    }

    /// Marks a chunk named at `level`: at level 0 a data chunk, above it a node and everything below.
    fn mark_below(&mut self, id: ChunkId, level: u8) -> Result<(), GcError> {
        self.mark(&id);
        let mut todo = vec![(id, level)];
        while let Some((id, level)) = todo.pop() {
            if level == 0 || self.nodes.contains(&id) {
                continue;
            }
            let Some(node) = self.node(&id)? else { continue };
            if self.nodes.len() >= NODES_MAX {
                self.nodes.clear();
            }
            self.nodes.insert(id);
            // A hostile manifest names whatever it likes; nobody can read it, and it leads nowhere.
            if node.level() >= level {
                continue;
            }
            for record in node.records().filter(|record| !record.is_hole()) {
                self.mark_here(&record.id)?;
                if node.level() > 0 {
                    todo.push((record.id, node.level()));
                }
            }
        }
        Ok(())
    }

    /// Marks a chunk if it is here: of contents that are elsewhere there may be more than the marks have room for.
    fn mark_here(&self, id: &ChunkId) -> Result<(), PathError> {
        let index = &self.inner().index;
        if index.recent(id).is_some() || !index.candidates(id)?.is_empty() {
            self.mark(id);
        }
        Ok(())
    }

    /// A manifest node, if it is here and is one.
    fn node(&self, id: &ChunkId) -> Result<Option<Node>, GcError> {
        let bytes: Bytes = match self.store.get(id) {
            Ok(bytes) => bytes,
            Err(ReadError::Missing { .. }) if !self.inner().quarantine.contains(id) => {
                return Ok(None);
            }
            Err(ReadError::Missing { .. } | ReadError::Corrupt { .. }) => {
                return Err(GcError::Damaged { id: *id });
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Node::decode(&bytes).ok())
    }

    /// Marks what others have asked to be kept meanwhile.
    fn mark_asked(&mut self) -> Result<(), GcError> {
        loop {
            let asked = std::mem::take(&mut *self.run.below.lock());
            if asked.is_empty() {
                return Ok(());
            }
            for below in asked {
                match below {
                    Below::Content(content) => self.keep(content)?,
                    Below::Leaf(record) => self.mark_below(record.id, 1)?,
                }
            }
        }
    }
}
