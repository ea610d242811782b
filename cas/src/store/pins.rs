//! What a collection must leave alone: contents somebody holds, contents being written, and everything that anybody
//! was told is here since the collection began.
//!
//! The last of these is the barrier that makes a collection safe beside writers. While one runs, each chunk that is
//! found to be here, or is stored, is marked in the same step; a pack is given up in a step that excludes those. So
//! whoever was told of a chunk has it, and whoever asks later is told that it is gone and stores it anew.
//!
//! Leaves out: marking and removing ([`super::gc`]).
//!
//! Invariants:
//! - a chunk somebody was told of during a collection is in its marks, or its pack was given up before;
//! - what a writer relied on before a collection began is found in its [`Unfinished`], whoever calls it;
//! - a content is held as long as a [`Hold`] of it lives.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};

use super::gc::marks::Marks;
use super::{Inner, Store};
use crate::error::{PathError, ReadError};
use crate::id::ChunkId;
use crate::manifest::{Builder, Record};
use crate::missing::missing_chunks;
use crate::reader::Content;

/// Everything that is in use.
#[derive(Default)]
pub(crate) struct Pins {
    /// The collection that runs. Held for reading while somebody is told that a chunk is here, and for writing where a
    /// pack is given up.
    pub(super) run: RwLock<Option<Arc<Run>>>,
    held: Mutex<HashMap<Content, usize>>,
    writers: Mutex<Vec<Weak<Unfinished>>>,
}

/// A collection as the rest of the store sees it.
pub(crate) struct Run {
    pub(super) marks: Marks,
    /// What is to be marked with everything below it, before anything more is given up.
    pub(super) below: Mutex<Vec<Below>>,
}

/// Something whose chunks are not marked yet.
pub(super) enum Below {
    Content(Content),
    /// A manifest node of level 0 that was taken over as a whole.
    Leaf(Record),
}

/// What a writer has taken in and nobody else knows of yet.
pub(crate) struct Unfinished {
    /// The manifest so far.
    pub(crate) builder: Mutex<Builder>,
    /// Ids of the chunks of batches that are not in the manifest yet, oldest batch first.
    pub(crate) batches: Mutex<VecDeque<Arc<Relied>>>,
}

/// Chunks that a batch relies on.
pub(crate) type Relied = Mutex<Vec<ChunkId>>;

/// Keeps a content from being collected as long as it lives.
pub struct Hold {
    store: Store,
    content: Content,
}

impl Hold {
    /// The content that is held.
    pub fn content(&self) -> Content {
        self.content
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut held = self.store.0.pins.held.lock();
        if let Some(count) = held.get_mut(&self.content) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.content);
            }
        }
    }
}

impl Store {
    /// Keeps what is here of a content from being collected, as long as the answer lives. Costs no look at the disk.
    /// What a collection that runs has removed before stays removed.
    pub fn hold(&self, content: Content) -> Hold {
        *self.0.pins.held.lock().entry(content).or_insert(0) += 1;
        // After it is listed: a collection that begins in between finds it in the list.
        if let Some(run) = &*self.0.pins.run.read() {
            run.below.lock().push(Below::Content(content));
        }
        Hold { store: self.clone(), content }
    }

    /// [`Self::hold`] of a content that is whole; `Missing`, with the first chunk that is not here, when it is not.
    /// Who makes an old content current again calls this before, and lets go when it is published.
    pub fn pin(&self, content: Content) -> Result<Hold, ReadError> {
        let hold = self.hold(content);
        let missing = missing_chunks(content, self, 1)?;
        match missing.ids.first() {
            Some(id) => Err(ReadError::Missing { id: *id }),
            None => Ok(hold),
        }
    }
}

impl Pins {
    /// Makes a writer's state known for as long as it lives.
    pub(crate) fn watch(&self, writer: &Arc<Unfinished>) {
        let mut writers = self.writers.lock();
        writers.retain(|writer| writer.strong_count() > 0);
        writers.push(Arc::downgrade(writer));
    }

    pub(super) fn held(&self) -> Vec<Content> {
        self.held.lock().keys().copied().collect()
    }

    /// The writers that are at work.
    pub(super) fn writers(&self) -> Vec<Arc<Unfinished>> {
        self.writers.lock().iter().filter_map(Weak::upgrade).collect()
    }
}

impl Inner {
    /// Whether a chunk is here. Who is told so during a collection may rely on it.
    pub(crate) fn present(&self, id: &ChunkId) -> Result<bool, PathError> {
        self.told(id, |_| {})
    }

    /// [`Self::present`] for a writer's batch, which relies on the chunk whatever the answer: if it is not here, the
    /// batch stores it.
    pub(crate) fn present_for(&self, id: &ChunkId, batch: &Relied) -> Result<bool, PathError> {
        // In the same step as the look: a collection begins before it, and then marks, or after it, and finds this.
        self.told(id, |id| batch.lock().push(*id))
    }

    fn told(&self, id: &ChunkId, note: impl FnOnce(&ChunkId)) -> Result<bool, PathError> {
        let run = self.pins.run.read();
        note(id);
        let here = self.is_here(id)?;
        if here && let Some(run) = &*run {
            run.marks.set(id);
        }
        Ok(here)
    }

    /// A batch takes over a chunk of an older content.
    pub(crate) fn take_over(&self, id: &ChunkId, batch: &Relied) {
        let run = self.pins.run.read();
        batch.lock().push(*id);
        if let Some(run) = &*run {
            run.marks.set(id);
        }
    }

    /// A writer takes over a manifest node of level 0 of an older content.
    pub(crate) fn take_over_leaf(&self, node: Record) {
        if let Some(run) = &*self.pins.run.read() {
            run.below.lock().push(Below::Leaf(node));
        }
    }

    /// Chunks are being appended. A collection begins and gives packs up where no append is under way.
    pub(super) fn stored<'a>(&self, ids: impl Iterator<Item = &'a ChunkId>) {
        if let Some(run) = &*self.pins.run.read() {
            ids.for_each(|id| run.marks.set(id));
        }
    }

    /// Whether a chunk was appended lately; if so, whoever asks relies on it.
    pub(super) fn appended_lately(&self, id: &ChunkId) -> bool {
        let run = self.pins.run.read();
        let Some(location) = self.index.recent(id) else { return false };
        if self.files.is_gone(location.pack) {
            return false;
        }
        if let Some(run) = &*run {
            run.marks.set(id);
        }
        true
    }
}
