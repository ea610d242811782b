//! From cut chunks to a manifest: batches go to the workers, their records come back in order.
//!
//! Leaves out: cutting.
//!
//! Invariants:
//! - records reach the manifest in the order their items were pushed;
//! - at most as many batches are under way as the pool allows one writer; a failed batch fails everything after it, but
//!   one that found no room on the disk stays, with all after it, and is stored when it is asked for again;
//! - until a batch's records are in the manifest, its bytes can be read from memory;
//! - what batches and manifest rely on is known to the store, so that it is not collected.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use crossbeam_channel::{Receiver, bounded};
use parking_lot::Mutex;

use crate::chunker::Class;
use crate::error::{ReadError, WriteError};
use crate::id::ChunkId;
use crate::manifest::{Builder, Node, Record};
use crate::reader::{ChunkSource, Content, load_child};
use crate::store::{Hold, Inner, Relied, Room, Store, Unfinished, encode};

/// Bytes of a batch.
const BATCH_LEN: usize = 1 << 20;
/// Items of a batch.
const BATCH_ITEMS: usize = 1_024;
/// A batch that cannot be handed on, as the disk is full, grows to this many of its length before items are refused.
const OVERFULL: usize = 4;

/// A part of a content.
#[derive(Debug)]
pub(crate) enum Item {
    /// A chunk to store.
    Data(Bytes),
    /// Zeros.
    Hole(u64),
    /// A chunk or hole of an older content.
    Known(Record),
}

impl Item {
    fn len(&self) -> u64 {
        match self {
            Self::Data(bytes) => bytes.len() as u64,
            Self::Hole(len) => *len,
            Self::Known(record) => record.len,
        }
    }
}

type Outcome = Result<Vec<Record>, WriteError>;

/// A batch that was handed on.
struct UnderWay {
    /// Where its records come; nothing after it found no room.
    outcome: Option<Receiver<Outcome>>,
    items: Arc<Vec<Item>>,
    relied: Arc<Relied>,
}

/// Takes items, gives a content.
pub(crate) struct Pipeline {
    store: Store,
    unfinished: Arc<Unfinished>,
    batch: Vec<Item>,
    batch_len: usize,
    under_way: VecDeque<UnderWay>,
    failed: Option<WriteError>,
}

impl Pipeline {
    pub(crate) fn new(store: Arc<Inner>, class: Class) -> Self {
        let unfinished = Arc::new(Unfinished {
            builder: Mutex::new(Builder::new(class)),
            batches: Mutex::default(),
        });
        store.pins().watch(&unfinished);
        Self {
            store: Store(store),
            unfinished,
            batch: Vec::new(),
            batch_len: 0,
            under_way: VecDeque::new(),
            failed: None,
        }
    }

    pub(crate) fn store(&self) -> &Inner {
        &self.store.0
    }

    /// Whether an earlier batch has failed.
    pub(crate) fn check(&self) -> Result<(), WriteError> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    pub(crate) fn push(&mut self, item: Item) -> Result<(), WriteError> {
        self.check()?;
        if let Item::Data(bytes) = &item {
            self.batch_len = self.batch_len.saturating_add(bytes.len());
        }
        self.batch.push(item);
        if self.batch_len < BATCH_LEN && self.batch.len() < BATCH_ITEMS {
            return Ok(());
        }
        match self.wait_for_turn() {
            Ok(()) => {
                self.submit();
                Ok(())
            }
            Err(WriteError::Full) if self.batch_len < OVERFULL * BATCH_LEN => Ok(()),
            failed => self.fail_on(failed),
        }
    }

    /// Waits until one more batch may be handed on. On a full disk nothing is lost by that, and nothing more is taken.
    pub(crate) fn wait_for_turn(&mut self) -> Result<(), WriteError> {
        while self.under_way.len() >= self.store.0.pool().jobs_max() {
            self.take_one()?;
        }
        Ok(())
    }

    /// Waits until all records are in the manifest.
    pub(crate) fn settle(&mut self) -> Result<(), WriteError> {
        self.check()?;
        if self.under_way.is_empty() {
            // Nothing to wait behind: a small file is not worth a change of threads.
            let relied = self.new_batch();
            let outcome = process(&self.store.0, &self.batch, &relied);
            let added = self.add(outcome);
            // The manifest relies on it by now, or nobody until it is asked for again.
            self.unfinished.batches.lock().pop_front();
            added?;
            self.batch.clear();
            self.batch_len = 0;
            return Ok(());
        }
        self.submit();
        while !self.under_way.is_empty() {
            self.take_one()?;
        }
        Ok(())
    }

    /// Appends a manifest node of another content of the same class, if one would begin here.
    pub(crate) fn push_node(&mut self, node: Record) -> Result<bool, WriteError> {
        self.settle()?;
        let pushed = {
            let mut builder = self.unfinished.builder.lock();
            if !builder.takes_node() {
                return Ok(false);
            }
            self.store.0.take_over_leaf(node);
            builder.push_node(node, &mut |bytes| put_node(&self.store.0, &bytes))
        };
        self.fail_on(pushed).map(|()| true)
    }

    pub(crate) fn finish(&mut self) -> Result<Content, WriteError> {
        self.settle()?;
        let builder = self.unfinished.builder.lock();
        builder.clone().finish(&mut |bytes| put_node(&self.store.0, &bytes))
    }

    pub(crate) fn hold(&self, content: Content) -> Hold {
        self.store.hold(content)
    }

    /// The content as it would be with `rest` at its end. Everything must be settled.
    pub(crate) fn snapshot(&mut self, rest: Vec<Bytes>) -> Result<Content, WriteError> {
        let items: Vec<Item> = rest.into_iter().map(Item::Data).collect();
        let mut builder = self.unfinished.builder.lock().clone();
        for record in process(&self.store.0, &items, &Relied::default())? {
            builder.push(record, &mut |bytes| put_node(&self.store.0, &bytes))?;
        }
        builder.finish(&mut |bytes| put_node(&self.store.0, &bytes))
    }

    fn submit(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let items = Arc::new(std::mem::take(&mut self.batch));
        self.batch_len = 0;
        let (sender, receiver) = bounded(1);
        let store = self.store.0.clone();
        let job_items = items.clone();
        let relied = self.new_batch();
        let outcome = Some(receiver);
        self.under_way.push_back(UnderWay { outcome, items, relied: relied.clone() });
        self.store.0.pool().run(Box::new(move || {
            // A writer that was given up does not wait for its outcome.
            let _ = sender.send(process(&store, &job_items, &relied));
        }));
    }

    /// Takes the records of the oldest batch.
    fn take_one(&mut self) -> Result<(), WriteError> {
        let Some(oldest) = self.under_way.front_mut() else { return Ok(()) };
        // A worker that died has let go of its sender.
        let before =
            oldest.outcome.take().map(|from| from.recv().unwrap_or(Err(WriteError::Closed)));
        let outcome = match before {
            // There may be room since.
            None | Some(Err(WriteError::Full)) => {
                process(&self.store.0, &oldest.items, &oldest.relied)
            }
            Some(other) => other,
        };
        let added = self.add(outcome);
        if !matches!(added, Err(WriteError::Full)) {
            self.under_way.pop_front();
            self.unfinished.batches.lock().pop_front();
        }
        added
    }

    /// Puts a batch's records into the manifest, which relies on them from then on.
    fn add(&mut self, outcome: Outcome) -> Result<(), WriteError> {
        // All records or none, so that the batch can be asked for again. Locked throughout: nodes that are stored on the
        // way are nobody's until the manifest has them.
        let mut manifest = self.unfinished.builder.lock();
        let mut builder = manifest.clone();
        let added = outcome.and_then(|records| {
            records.into_iter().try_for_each(|record| {
                builder.push(record, &mut |bytes| put_node(&self.store.0, &bytes))
            })
        });
        match added {
            Ok(()) => *manifest = builder,
            Err(WriteError::Full) => return Err(WriteError::Full),
            Err(_) => {}
        }
        drop(manifest);
        self.fail_on(added)
    }

    /// Makes the store look at what a batch to come relies on.
    fn new_batch(&self) -> Arc<Relied> {
        let relied = Arc::<Relied>::default();
        self.unfinished.batches.lock().push_back(relied.clone());
        relied
    }

    fn fail_on(&mut self, result: Result<(), WriteError>) -> Result<(), WriteError> {
        if let Err(error) = &result {
            self.failed = Some(error.clone());
        }
        result
    }

    /// Fills `buf`, which must lie within what was pushed.
    pub(crate) fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        let built = self.unfinished.builder.lock().len();
        let left = usize::try_from(built.saturating_sub(offset)).unwrap_or(usize::MAX);
        let (old, mut rest) = buf.split_at_mut(left.min(buf.len()));
        self.read_built(offset, old)?;
        let mut at = offset.max(built);
        let mut start = built;
        let waiting = self.under_way.iter().flat_map(|batch| batch.items.iter());
        for item in waiting.chain(&self.batch) {
            if rest.is_empty() {
                break;
            }
            let end = start.saturating_add(item.len());
            if at < end {
                let step = usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX);
                let (now, later) = rest.split_at_mut(step.min(rest.len()));
                self.read_item(item, at.saturating_sub(start), now)?;
                at = at.saturating_add(now.len() as u64);
                rest = later;
            }
            start = end;
        }
        Ok(())
    }

    fn read_item(&self, item: &Item, within: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        match item {
            Item::Data(bytes) => copy_part(bytes, within, buf).unwrap_or(()),
            Item::Hole(_) => buf.fill(0),
            Item::Known(record) => return self.read_record(record, within, buf),
        }
        Ok(())
    }

    fn read_record(&self, record: &Record, within: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        if record.is_hole() {
            buf.fill(0);
            return Ok(());
        }
        let bytes = self.store.chunk(&record.id)?;
        copy_part(&bytes, within, buf).ok_or(ReadError::Corrupt { id: record.id })
    }

    /// Fills `buf` from what is in the manifest already.
    fn read_built(&self, offset: u64, mut buf: &mut [u8]) -> Result<(), ReadError> {
        let mut at = offset;
        while !buf.is_empty() {
            let Some((record, start)) = self.built_record(at)? else {
                // Only a hole that may still grow is in no list.
                buf.fill(0);
                return Ok(());
            };
            let end = start.saturating_add(record.len);
            let step = usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX);
            let (now, later) = buf.split_at_mut(step.min(buf.len()));
            self.read_record(&record, at.saturating_sub(start), now)?;
            at = at.saturating_add(now.len() as u64);
            buf = later;
        }
        Ok(())
    }

    /// The chunk or hole of the unfinished manifest that holds the byte at `offset`, and where it begins.
    fn built_record(&self, offset: u64) -> Result<Option<(Record, u64)>, ReadError> {
        let mut start = 0u64;
        let builder = self.unfinished.builder.lock();
        for (level, list) in builder.pending() {
            for record in list {
                let end = start.saturating_add(record.len);
                if offset < end {
                    return self.descend(level, *record, start, offset).map(Some);
                }
                start = end;
            }
        }
        Ok(None)
    }

    fn descend(
        &self,
        level: u8,
        mut record: Record,
        mut start: u64,
        offset: u64,
    ) -> Result<(Record, u64), ReadError> {
        for parent in (1..=level).rev() {
            let node: Arc<Node> = load_child(&self.store, parent, &record)?;
            let index = node.index_at(offset.saturating_sub(start));
            let found = node.record(index).ok_or(ReadError::Corrupt { id: record.id })?;
            record = found.0;
            start = start.saturating_add(found.1);
        }
        Ok((record, start))
    }
}

/// Copies from `bytes` at `within`; `None` when they do not reach.
fn copy_part(bytes: &Bytes, within: u64, buf: &mut [u8]) -> Option<()> {
    let from = usize::try_from(within).ok()?;
    buf.copy_from_slice(bytes.get(from..from.checked_add(buf.len())?)?);
    Some(())
}

fn put_node(store: &Inner, bytes: &[u8]) -> Result<ChunkId, WriteError> {
    store.put(bytes, Room::Accepted)
}

/// Hashes, compresses and appends a batch, with one write for all that is new.
fn process(store: &Inner, items: &[Item], relied: &Relied) -> Outcome {
    store.writable()?;
    let mut records = Vec::with_capacity(items.len());
    let mut fresh = Vec::new();
    for item in items {
        records.push(match item {
            Item::Hole(len) => Record::hole(*len),
            Item::Known(record) => {
                store.take_over(&record.id, relied);
                *record
            }
            Item::Data(bytes) if is_zero(bytes) => Record::hole(bytes.len() as u64),
            Item::Data(bytes) => {
                let id = ChunkId::of(store.key(), bytes);
                if !store.present_for(&id, relied)? {
                    fresh.push(encode(id, bytes));
                }
                Record { id, len: bytes.len() as u64 }
            }
        });
    }
    store.append(&fresh, Room::Accepted)?;
    Ok(records)
}

/// Whether all bytes are zero; fast to say no.
fn is_zero(bytes: &[u8]) -> bool {
    let (blocks, rest) = bytes.as_chunks::<64>();
    rest.iter().all(|byte| *byte == 0)
        && blocks.iter().all(|block| block.iter().fold(0, |all, byte| all | byte) == 0)
}
