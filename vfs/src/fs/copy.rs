//! Copying from one open file to another without the bytes going through a program.
//!
//! Leaves out: what the kernel does before and after, such as writing its cached pages.
//!
//! Invariants:
//! - never two bodies are locked at a time, so two copies in opposite directions cannot wait for each other;
//! - what is answered as copied was copied; a failure behind that is answered by the next call.

use std::sync::Arc;

use cas::Content;

use super::{Core, Wait};
use crate::body::Body;
use crate::error::FsError;
use crate::file::FileNode;

/// Piece in which bytes are copied, bytes.
const PIECE: u64 = 1 << 20;
/// Most bytes copied in one call: a program asks again, and can be stopped in between.
const COPY_MAX: u64 = 32 << 20;

impl Core {
    /// Copies up to `len` bytes, from a handle and offset to a handle and offset; how many were copied. A whole finished
    /// file copied into an empty one costs nothing, as both then have the same content.
    pub fn copy_range(&self, from: (u64, u64), to: (u64, u64), len: u64) -> Result<u64, FsError> {
        let (source, target) = (self.handles.file(from.0)?, self.handles.file(to.0)?);
        if !source.reads || !target.writes {
            return Err(FsError::BadHandle);
        }
        if self.spool.has_failed() {
            return Err(FsError::Poisoned);
        }
        if Arc::ptr_eq(&source.node, &target.node) {
            if from.1.abs_diff(to.1) < len {
                return Err(FsError::Invalid);
            }
        } else if from.1 == 0
            && to.1 == 0
            && let Some(content) = whole(&source.node, len)
            && self.take_whole(&target.node, content)
        {
            return Ok(content.len);
        }
        // What the copy itself adds to the file, if it is one, is not copied again.
        let there = source.node.meta.lock().len.saturating_sub(from.1);
        let wanted = len.min(there).min(COPY_MAX);
        let mut copied = 0;
        while copied < wanted {
            let piece = (wanted - copied).min(PIECE);
            match self.copy_piece(
                (from.0, from.1.saturating_add(copied)),
                (to.0, to.1.saturating_add(copied)),
                piece,
            ) {
                Ok(0) => break,
                Ok(some) => copied += some,
                Err(error) if copied == 0 => return Err(error),
                Err(error) => {
                    tracing::debug!(%error, copied, "a copy ended early");
                    break;
                }
            }
        }
        Ok(copied)
    }

    fn copy_piece(&self, from: (u64, u64), to: (u64, u64), len: u64) -> Result<u64, FsError> {
        let data = self.read(from.0, from.1, len as usize, Wait::Allowed)?;
        if data.is_empty() {
            return Ok(0);
        }
        Ok(self.write(to.0, to.1, &data, Wait::Allowed)? as u64)
    }

    /// Lets an empty file have a content; whether it was empty.
    fn take_whole(&self, file: &Arc<FileNode>, content: Content) -> bool {
        let mut body = file.body.lock();
        if body.len() > 0 || matches!(*body, Body::Patched(_)) {
            return false;
        }
        *body = Body::sealed(content);
        self.dirtied(file, &mut file.meta.lock(), content.len);
        true
    }
}

/// The content of a file that is all finished and no longer than `len`.
fn whole(file: &FileNode, len: u64) -> Option<Content> {
    match &*file.body.lock() {
        Body::Sealed { content, .. } if (1..=len).contains(&content.len) => Some(*content),
        Body::Sealed { .. } | Body::Stream(_) | Body::Patched(_) | Body::Text(_) => None,
    }
}
