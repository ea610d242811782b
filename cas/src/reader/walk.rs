//! All chunk ids of a content, one after the other.
//!
//! Leaves out: removing duplicates; a content may name a chunk many times.
//!
//! Invariants: depth is bounded by the manifest's levels; a node that cannot be read is reported once, and the walk
//! goes on beside it.

use std::sync::Arc;

use super::Reader;
use crate::error::ReadError;
use crate::id::ChunkId;
use crate::manifest::Node;

/// Iterates over the ids of a content's chunks, manifest nodes before what they name.
pub struct ChunkIds<'a> {
    reader: &'a Reader,
    // Invariant: each node's level is one below that of the node before it.
    stack: Vec<(Arc<Node>, usize)>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing given yet.
    Fresh,
    /// The root's id is given, its records are not on the stack yet.
    Root,
    Walking,
}

impl<'a> ChunkIds<'a> {
    pub(super) fn new(reader: &'a Reader) -> Self {
        Self { reader, stack: Vec::new(), state: State::Fresh }
    }

    /// The next record below the nodes on the stack.
    fn step(&mut self) -> Option<Result<ChunkId, ReadError>> {
        loop {
            let (node, next) = self.stack.last_mut()?;
            let Some((record, _)) = node.record(*next) else {
                self.stack.pop();
                continue;
            };
            *next += 1;
            if record.is_hole() {
                continue;
            }
            if node.level() == 0 {
                return Some(Ok(record.id));
            }
            let node = node.clone();
            match self.reader.child(&node, &record) {
                Ok(child) => {
                    self.stack.push((child, 0));
                    return Some(Ok(record.id));
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl Iterator for ChunkIds<'_> {
    type Item = Result<ChunkId, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.state {
            State::Fresh => {
                self.state = State::Root;
                Some(Ok(self.reader.content.id.root()))
            }
            State::Root => {
                self.state = State::Walking;
                match self.reader.root() {
                    Ok(Some(root)) => {
                        self.stack.push((root, 0));
                        self.step()
                    }
                    Ok(None) => None,
                    Err(error) => Some(Err(error)),
                }
            }
            State::Walking => self.step(),
        }
    }
}
