//! Contents that must stay readable although nothing published may name them.
//!
//! Leaves out: removing the others (`cas`), and what is published (`journal`).
//!
//! Invariants: contents are named in the order in which they pass on, open files before drafts, so that none slips by
//! between two looks; what is being written as a stream the store knows of by itself.

use std::collections::HashMap;
use std::sync::Arc;

use cas::Content;

use super::Core;
use crate::drafts::DraftValue;
use crate::file::{FileNode, cas_content};

impl Core {
    /// Gives every content that is open, or unpublished, or that the spool rests on. Waits for files that are being
    /// finished.
    pub fn contents_in_use(&self) -> Vec<Content> {
        let mut files: HashMap<u64, Arc<FileNode>> = HashMap::new();
        let open = self.handles.open_nodes();
        // What is dirty may be closed, and what is open clean.
        let dirty: Vec<Arc<FileNode>> = self.dirty.lock().values().cloned().collect();
        for file in open.into_iter().chain(dirty) {
            files.insert(file.ino, file);
        }
        let mut contents = Vec::new();
        for file in files.into_values() {
            let body = file.body.lock();
            contents.extend(body.content());
            let meta = file.meta.lock();
            contents.extend(meta.finished.map(cas_content));
            contents.extend(meta.logged.as_ref().and_then(|logged| logged.file.base));
        }
        for (_, draft) in self.state().drafts.iter() {
            if let DraftValue::File { value, .. } = &draft.value {
                contents.push(cas_content(value.content));
            }
        }
        contents.extend(self.left.lock().iter().filter_map(|left| left.file.base));
        contents
    }
}
