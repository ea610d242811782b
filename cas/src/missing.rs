//! Which chunks of a content this store lacks.
//!
//! Leaves out: who has them and in what order to ask (net).
//!
//! Invariants: manifest nodes come before what they name; no id is given twice; at most `limit` ids are given, and
//! `complete` is said only after every chunk has been looked up.

use std::collections::HashSet;
use std::sync::Arc;

use crate::error::ReadError;
use crate::id::{ChunkId, ContentKind};
use crate::manifest::{Node, Record};
use crate::reader::{Content, load_child};
use crate::store::Store;

/// The answer of [`missing_chunks`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MissingChunks {
    /// Chunks to fetch; more may turn out to be missing once these are here.
    pub ids: Vec<ChunkId>,
    /// Nothing is missing.
    pub complete: bool,
}

/// Looks for chunks of `content` that `store` lacks, manifest nodes first, and gives at most `limit`.
pub fn missing_chunks(
    content: Content,
    store: &Store,
    limit: usize,
) -> Result<MissingChunks, ReadError> {
    let mut search = Search { store, limit, seen: HashSet::new(), ids: Vec::new(), complete: true };
    let root = content.id.root();
    match content.id.kind() {
        ContentKind::Chunk => search.want(root),
        ContentKind::Manifest if !store.has(&root) => search.want(root),
        ContentKind::Manifest => match store.get(&root) {
            Ok(bytes) => {
                let node = Node::decode(&bytes).map_err(|error| error.of(root))?;
                if node.total_len() != content.len {
                    return Err(ReadError::Corrupt { id: root });
                }
                search.below(Arc::new(node))?;
            }
            // Damaged here, so it has just been quarantined and must come again.
            Err(ReadError::Corrupt { .. } | ReadError::Missing { .. }) => search.want(root),
            Err(error) => return Err(error),
        },
    }
    Ok(MissingChunks { ids: search.ids, complete: search.complete })
}

struct Search<'a> {
    store: &'a Store,
    limit: usize,
    seen: HashSet<ChunkId>,
    ids: Vec<ChunkId>,
    complete: bool,
}

impl Search<'_> {
    /// Notes a chunk if it is missing.
    fn want(&mut self, id: ChunkId) {
        if !self.seen.insert(id) || self.store.has(&id) {
            return;
        }
        self.complete = false;
        if self.ids.len() < self.limit {
            self.ids.push(id);
        }
    }

    /// Whether looking further could change the answer.
    fn done(&self) -> bool {
        !self.complete && self.ids.len() >= self.limit
    }

    /// Goes through the levels one by one, so that all missing nodes of a level come before anything below. Of a level
    /// only the names are kept, never the nodes.
    fn below(&mut self, root: Arc<Node>) -> Result<(), ReadError> {
        let mut lower = self.records_of(&root);
        while !lower.is_empty() {
            let mut next = Vec::new();
            for (level, record) in lower {
                if self.done() {
                    return Ok(());
                }
                if let Some(node) = self.node(level, &record)? {
                    next.extend(self.records_of(&node));
                }
            }
            lower = next;
        }
        Ok(())
    }

    /// Wants what is missing of a node's records, and gives those that are nodes and are here, with the node's level.
    fn records_of(&mut self, node: &Node) -> Vec<(u8, Record)> {
        let mut here = Vec::new();
        for record in node.records().filter(|record| !record.is_hole()) {
            if self.done() {
                break;
            }
            self.want(record.id);
            if node.level() > 0 && self.store.has(&record.id) {
                here.push((node.level(), record));
            }
        }
        here
    }

    /// The node a record names; wanted instead if it turns out to be damaged.
    fn node(&mut self, level: u8, record: &Record) -> Result<Option<Arc<Node>>, ReadError> {
        match load_child(self.store, level, record) {
            Ok(node) => Ok(Some(node)),
            // Quarantined by the attempt, so it is missing now; a node that lies about its length is not.
            Err(ReadError::Corrupt { .. } | ReadError::Missing { .. })
                if !self.store.has(&record.id) =>
            {
                self.seen.remove(&record.id);
                self.want(record.id);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
