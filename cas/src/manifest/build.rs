//! Makes a manifest from records as they come, in bounded memory.
//!
//! Leaves out: storing the nodes; whoever drives the builder is handed their bytes and answers with their id.
//!
//! Invariants:
//! - each level holds at most [`super::NODE_RECORDS_MAX`] records that are not in a node yet;
//! - adjacent holes are one record;
//! - the result depends on the records alone, also when whole nodes of an older manifest were taken over.

use super::{LEVELS_MAX, Record, encode};
use crate::chunker::Class;
use crate::error::WriteError;
use crate::id::{ChunkId, ContentId};
use crate::reader::Content;

/// Stores the bytes of a node or of the empty chunk and says its id.
type Put<'a> = &'a mut dyn FnMut(Vec<u8>) -> Result<ChunkId, WriteError>;

/// A manifest in the making.
#[derive(Clone, Debug)]
pub struct Builder {
    class: Class,
    levels: [Vec<Record>; LEVELS_MAX],
    // Invariant: zeros before the next record that no level holds yet.
    open_hole: u64,
    len: u64,
}

impl Builder {
    /// An empty content of a class.
    pub fn new(class: Class) -> Self {
        Self { class, levels: Default::default(), open_hole: 0, len: 0 }
    }

    /// Bytes so far.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is nothing yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends a chunk or a hole.
    pub fn push(&mut self, record: Record, put: Put<'_>) -> Result<(), WriteError> {
        if record.len == 0 {
            return Ok(());
        }
        self.grow(record.len)?;
        if record.is_hole() {
            self.open_hole = self.open_hole.saturating_add(record.len);
            return Ok(());
        }
        self.close_hole(put)?;
        self.push_at(0, record, put)
    }

    /// Whether a whole level-0 node of another manifest could be appended as it is: only where a node would begin.
    pub fn takes_node(&self) -> bool {
        self.open_hole == 0 && self.levels.first().is_some_and(Vec::is_empty)
    }

    /// Appends a level-0 node of another manifest of the same class. Only when [`Self::takes_node`], and only a node
    /// that a record, not the content's end, had ended.
    pub fn push_node(&mut self, node: Record, put: Put<'_>) -> Result<(), WriteError> {
        debug_assert!(self.takes_node(), "a node may only be taken over where one would begin");
        self.grow(node.len)?;
        self.push_at(1, node, put)
    }

    /// Ends the content.
    pub fn finish(mut self, put: Put<'_>) -> Result<Content, WriteError> {
        self.close_hole(put)?;
        let len = self.len;
        let [first, upper @ ..] = &self.levels;
        if upper.iter().all(Vec::is_empty) {
            match first.as_slice() {
                [] => return Ok(Content { id: ContentId::chunk(put(Vec::new())?), len }),
                [only] if !only.is_hole() => {
                    return Ok(Content { id: ContentId::chunk(only.id), len });
                }
                _ => {}
            }
        }
        for level in 0..LEVELS_MAX {
            let above = self.levels.iter().skip(level + 1).any(|list| !list.is_empty());
            let Some(list) = self.levels.get(level) else { break };
            match list.as_slice() {
                [] => {}
                // A lone node at the top is the root itself.
                [only] if !above && level > 0 => {
                    return Ok(Content { id: ContentId::manifest(only.id), len });
                }
                records if !above => {
                    let root = put(encode(level as u8, self.class, records))?;
                    return Ok(Content { id: ContentId::manifest(root), len });
                }
                _ => self.close_node(level, put)?,
            }
        }
        Err(WriteError::TooLong)
    }

    /// The records that are in no node yet, lowest level last: together with the nodes they name, all bytes so far
    /// but an open hole at the end.
    pub(crate) fn pending(&self) -> impl Iterator<Item = (u8, &[Record])> {
        self.levels.iter().enumerate().rev().map(|(level, list)| (level as u8, list.as_slice()))
    }

    fn grow(&mut self, by: u64) -> Result<(), WriteError> {
        self.len = self.len.checked_add(by).ok_or(WriteError::TooLong)?;
        Ok(())
    }

    fn close_hole(&mut self, put: Put<'_>) -> Result<(), WriteError> {
        match std::mem::take(&mut self.open_hole) {
            0 => Ok(()),
            len => self.push_at(0, Record::hole(len), put),
        }
    }

    fn push_at(&mut self, level: usize, record: Record, put: Put<'_>) -> Result<(), WriteError> {
        let list = self.levels.get_mut(level).ok_or(WriteError::TooLong)?;
        list.push(record);
        if record.ends_node(list.len()) { self.close_node(level, put) } else { Ok(()) }
    }

    /// Turns a level's records into a node and names it one level up.
    fn close_node(&mut self, level: usize, put: Put<'_>) -> Result<(), WriteError> {
        if level + 1 >= LEVELS_MAX {
            return Err(WriteError::TooLong);
        }
        let Some(list) = self.levels.get_mut(level) else { return Err(WriteError::TooLong) };
        let records = std::mem::take(list);
        let len = records.iter().fold(0u64, |sum, record| sum.saturating_add(record.len));
        let id = put(encode(level as u8, self.class, &records))?;
        self.push_at(level + 1, Record { id, len }, put)
    }
}
