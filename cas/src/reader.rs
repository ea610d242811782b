//! Random access to the bytes of one content, through whatever can get chunks.
//!
//! Leaves out: caching decompressed chunks across readers ([`crate::cache`]), read-ahead, fetching.
//!
//! Invariants:
//! - nothing is read before it is asked for: opening costs nothing;
//! - every level's length is checked against the level above before it is used, so a hostile manifest can make a read
//!   fail but not answer wrongly, loop or allocate more than its own size;
//! - memory is bounded: the root, a few other nodes, and one chunk.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::chunker::Class;
use crate::error::ReadError;
use crate::id::{ChunkId, ContentId, ContentKind};
use crate::manifest::{Node, Record};

mod walk;

pub use walk::ChunkIds;

/// Manifest nodes besides the root that a reader keeps.
const NODES_KEPT: usize = 4;

/// Something that can get chunks: a store, a cache before one, or a fetcher from peers.
pub trait ChunkSource: Send + Sync {
    /// The chunk's raw bytes, verified against its id.
    fn chunk(&self, id: &ChunkId) -> Result<Bytes, ReadError>;
}

/// The name and length of a content: what a finished write gives and a reader needs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Content {
    /// Names the bytes.
    pub id: ContentId,
    /// How many there are.
    pub len: u64,
}

/// Reads one content.
pub struct Reader {
    content: Content,
    source: Arc<dyn ChunkSource>,
    kept: Mutex<Kept>,
}

/// What a reader remembers between calls.
#[derive(Default)]
struct Kept {
    root: Option<Arc<Node>>,
    // Invariant: at most NODES_KEPT, most recently used last.
    nodes: Vec<(ChunkId, Arc<Node>)>,
    chunk: Option<(ChunkId, Bytes)>,
}

/// A record of the content's flat list of chunks and holes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Piece {
    pub(crate) record: Record,
    /// Where it begins in the content.
    pub(crate) start: u64,
}

impl Piece {
    pub(crate) fn end(&self) -> u64 {
        self.start.saturating_add(self.record.len)
    }
}

/// A level-0 node within the content.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Leaf {
    pub(crate) record: Record,
    pub(crate) start: u64,
    /// Whether it is the content's last node, which the content's end has ended.
    pub(crate) last: bool,
}

impl Reader {
    /// A reader of `content`. Fails only for a content whose name and length contradict each other.
    pub fn open(content: Content, source: Arc<dyn ChunkSource>) -> Result<Self, ReadError> {
        let too_long = content.len > crate::chunker::CHUNK_LEN_MAX as u64;
        let no_root = content.id.kind() == ContentKind::Manifest && content.len == 0;
        if no_root || (content.id.kind() == ContentKind::Chunk && too_long) {
            return Err(ReadError::Corrupt { id: content.id.root() });
        }
        Ok(Self { content, source, kept: Mutex::default() })
    }

    /// What is being read.
    pub fn content(&self) -> Content {
        self.content
    }

    /// The content's length, bytes.
    pub fn len(&self) -> u64 {
        self.content.len
    }

    /// Whether the content has no bytes.
    pub fn is_empty(&self) -> bool {
        self.content.len == 0
    }

    /// How the content was cut. What a manifest says, if it can be read; else what its length suggests.
    pub fn class(&self) -> Class {
        match self.root() {
            Ok(Some(root)) => root.class(),
            _ => Class::for_len(self.content.len),
        }
    }

    /// How the content was cut; `None` when it has no manifest that would tell.
    pub(crate) fn manifest_class(&self) -> Result<Option<Class>, ReadError> {
        Ok(self.root()?.map(|root| root.class()))
    }

    /// Reads from `offset`; fewer bytes than asked for only at the end of the content.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize, ReadError> {
        let left = self.content.len.saturating_sub(offset);
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        let (mut rest, _) = buf.split_at_mut(wanted);
        let mut at = offset;
        while !rest.is_empty() {
            let Some(piece) = self.piece_at(at)? else { break };
            let step = usize::try_from(piece.end().saturating_sub(at)).unwrap_or(usize::MAX);
            let (now, later) = rest.split_at_mut(step.min(rest.len()));
            if piece.record.is_hole() {
                now.fill(0);
            } else {
                let chunk = self.piece_bytes(&piece)?;
                let from = usize::try_from(at.saturating_sub(piece.start)).unwrap_or(usize::MAX);
                let part = from.checked_add(now.len()).and_then(|to| chunk.get(from..to));
                now.copy_from_slice(part.ok_or(ReadError::Corrupt { id: piece.record.id })?);
            }
            at = at.saturating_add(now.len() as u64);
            rest = later;
        }
        Ok(wanted)
    }

    /// Gets the chunks of `len` bytes from `offset`, for a source that keeps them.
    pub fn warm(&self, offset: u64, len: u64) -> Result<(), ReadError> {
        let (mut at, end) = (offset, offset.saturating_add(len));
        while at < end {
            let Some(piece) = self.piece_at(at)? else { break };
            if !piece.record.is_hole() {
                self.source.chunk(&piece.record.id)?;
            }
            at = piece.end();
        }
        Ok(())
    }

    /// The first byte at or after `offset` that is not in a hole; `None` when only a hole or nothing follows.
    pub fn next_data(&self, offset: u64) -> Result<Option<u64>, ReadError> {
        let mut at = offset;
        while let Some(piece) = self.piece_at(at)? {
            if !piece.record.is_hole() {
                return Ok(Some(at));
            }
            at = piece.end();
        }
        Ok(None)
    }

    /// The first byte at or after `offset` that is in a hole; the end of the content counts as one.
    pub fn next_hole(&self, offset: u64) -> Result<u64, ReadError> {
        let mut at = offset;
        while let Some(piece) = self.piece_at(at)? {
            if piece.record.is_hole() {
                return Ok(at);
            }
            at = piece.end();
        }
        Ok(at.max(offset).min(self.content.len.max(offset)))
    }

    /// The ids of all chunks of the content, manifest nodes included and before what they name. Read lazily.
    pub fn chunk_ids(&self) -> ChunkIds<'_> {
        ChunkIds::new(self)
    }

    /// The chunk or hole that holds the byte at `offset`; `None` at and after the end.
    pub(crate) fn piece_at(&self, offset: u64) -> Result<Option<Piece>, ReadError> {
        if offset >= self.content.len {
            return Ok(None);
        }
        let Some(mut node) = self.root()? else {
            let record = Record { id: self.content.id.root(), len: self.content.len };
            return Ok(Some(Piece { record, start: 0 }));
        };
        let mut start = 0u64;
        loop {
            let index = node.index_at(offset.saturating_sub(start));
            let Some((record, within)) = node.record(index) else { return Ok(None) };
            start = start.saturating_add(within);
            if node.level() == 0 {
                return Ok(Some(Piece { record, start }));
            }
            node = self.child(&node, &record)?;
        }
    }

    /// The level-0 node that begins at `offset`, if one does and it is not the root.
    pub(crate) fn leaf_starting_at(&self, offset: u64) -> Result<Option<Leaf>, ReadError> {
        let Some(mut node) = self.root()? else { return Ok(None) };
        let (mut start, mut last) = (0u64, true);
        while node.level() > 0 {
            let index = node.index_at(offset.saturating_sub(start));
            let Some((record, within)) = node.record(index) else { return Ok(None) };
            start = start.saturating_add(within);
            last &= index + 1 == node.count();
            if node.level() == 1 {
                return Ok((start == offset).then_some(Leaf { record, start, last }));
            }
            node = self.child(&node, &record)?;
        }
        Ok(None)
    }

    /// The raw bytes of a chunk of this content, with the length the manifest says.
    pub(crate) fn piece_bytes(&self, piece: &Piece) -> Result<Bytes, ReadError> {
        let id = piece.record.id;
        if let Some((kept, chunk)) = &self.kept.lock().chunk
            && *kept == id
        {
            return Ok(chunk.clone());
        }
        let chunk = self.source.chunk(&id)?;
        if chunk.len() as u64 != piece.record.len {
            return Err(ReadError::Corrupt { id });
        }
        self.kept.lock().chunk = Some((id, chunk.clone()));
        Ok(chunk)
    }

    /// The manifest's root; `None` for a content without one.
    fn root(&self) -> Result<Option<Arc<Node>>, ReadError> {
        if self.content.id.kind() == ContentKind::Chunk {
            return Ok(None);
        }
        if let Some(root) = &self.kept.lock().root {
            return Ok(Some(root.clone()));
        }
        let id = self.content.id.root();
        let root = Node::decode(&self.source.chunk(&id)?).map_err(|error| error.of(id))?;
        if root.total_len() != self.content.len {
            return Err(ReadError::Corrupt { id });
        }
        let root = Arc::new(root);
        self.kept.lock().root = Some(root.clone());
        Ok(Some(root))
    }

    /// The node that `record` of `parent` names.
    fn child(&self, parent: &Node, record: &Record) -> Result<Arc<Node>, ReadError> {
        let mut kept = self.kept.lock();
        let node = match kept.nodes.iter().position(|(id, _)| *id == record.id) {
            Some(index) => kept.nodes.remove(index).1,
            None => {
                // The lock is not held while a source may wait for a peer.
                drop(kept);
                let node = load_child(self.source.as_ref(), parent.level(), record)?;
                kept = self.kept.lock();
                node
            }
        };
        let fits = node.class() == parent.class()
            && node.level().checked_add(1) == Some(parent.level())
            && node.total_len() == record.len;
        if !fits {
            return Err(ReadError::Corrupt { id: record.id });
        }
        if kept.nodes.len() >= NODES_KEPT {
            kept.nodes.remove(0);
        }
        kept.nodes.push((record.id, node.clone()));
        Ok(node)
    }
}

/// Gets the node that a record at `parent_level` names and checks it against the record.
pub(crate) fn load_child(
    source: &dyn ChunkSource,
    parent_level: u8,
    record: &Record,
) -> Result<Arc<Node>, ReadError> {
    let node = Node::decode(&source.chunk(&record.id)?).map_err(|error| error.of(record.id))?;
    if node.level().checked_add(1) != Some(parent_level) || node.total_len() != record.len {
        return Err(ReadError::Corrupt { id: record.id });
    }
    Ok(Arc::new(node))
}

#[cfg(test)]
mod tests;
