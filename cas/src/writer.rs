//! A new content as a stream: cut here, hashed, compressed and appended by the store's workers.
//!
//! Leaves out: durability ([`crate::store::Store::sync`]) and changing an existing content ([`mod@crate::rewrite`]).
//!
//! Invariants:
//! - the content's id depends on its bytes and class alone: not on how they were split over calls, nor on whether
//!   zeros were written or skipped. A run of chunks that are all zero is one hole, and only that is;
//! - bytes are copied once, into the segment that the chunks then share;
//! - memory is bounded by the segment, the batches under way and one manifest node a level.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::chunker::Class;
use crate::error::{ReadError, WriteError};
use crate::reader::Content;
use crate::store::{Hold, Inner};

mod pipeline;

pub(crate) use pipeline::{Item, Pipeline};

/// Length of the buffer that chunks are cut from, bytes; longer where the longest chunk asks for it.
const SEGMENT_LEN: usize = 2 << 20;
/// Shortest buffer, bytes: most files are small.
const SEGMENT_LEN_MIN: usize = 16 << 10;
/// A segment holds this many longest chunks, so that little is copied from its end to the next one's begin.
const SEGMENT_CHUNKS: usize = 4;

/// Writes one content.
pub struct Writer {
    pipeline: Pipeline,
    class: Class,
    // Invariant: the bytes since the last cut.
    tail: BytesMut,
    // Invariant: the bytes before the last cut.
    cut_len: u64,
}

impl Writer {
    pub(crate) fn new(store: Arc<Inner>, class: Class) -> Self {
        let pipeline = Pipeline::new(store, class);
        Self { pipeline, class, tail: BytesMut::new(), cut_len: 0 }
    }

    /// How the content is cut.
    pub fn class(&self) -> Class {
        self.class
    }

    /// Bytes so far.
    pub fn len(&self) -> u64 {
        self.cut_len.saturating_add(self.tail.len() as u64)
    }

    /// Whether there are no bytes so far.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends bytes. [`WriteError::Full`] before any of them is taken, and what was taken before can be finished when
    /// there is room again; after another error the writer is of no use.
    pub fn write(&mut self, data: &[u8]) -> Result<(), WriteError> {
        self.pipeline.wait_for_turn()?;
        self.pipeline.store().room_for(data.len() as u64)?;
        self.push(data)
    }

    /// Appends zeros without storing them, as far as they fill whole chunks.
    pub fn skip(&mut self, zeros: u64) -> Result<(), WriteError> {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        self.len().checked_add(zeros).ok_or(WriteError::TooLong)?;
        let step = self.pipeline.store().gear().zero_chunk_len(self.class) as u64;
        let mut left = zeros;
        let mut fed = 0u64;
        while left > 0 {
            if self.tail.len() as u64 <= fed {
                // All since the last cut is of this run: what whole chunks of zeros it makes is known.
                left = left.saturating_add(self.tail.len() as u64);
                self.tail.clear();
                let whole = whole_zero_chunks(left, step);
                if whole > 0 {
                    self.pipeline.push(Item::Hole(whole))?;
                    self.cut_len = self.cut_len.saturating_add(whole);
                    left = left.saturating_sub(whole);
                }
                return self.push_zeros(left, &ZEROS);
            }
            let now = left.min(ZEROS.len() as u64);
            self.push_zeros(now, &ZEROS)?;
            fed = fed.saturating_add(now);
            left = left.saturating_sub(now);
        }
        Ok(())
    }

    /// Reads what has been written so far; fewer bytes than asked for only at the end.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize, ReadError> {
        let left = self.len().saturating_sub(offset);
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        let (buf, _) = buf.split_at_mut(wanted);
        let cut = self.cut_len.saturating_sub(offset);
        let (old, new) = buf.split_at_mut(usize::try_from(cut).unwrap_or(usize::MAX).min(wanted));
        self.pipeline.read_at(offset, old)?;
        let from = usize::try_from(offset.saturating_sub(self.cut_len)).unwrap_or(usize::MAX);
        if let Some(part) = from.checked_add(new.len()).and_then(|to| self.tail.get(from..to)) {
            new.copy_from_slice(part);
        }
        Ok(wanted)
    }

    /// [`Self::finish`], and no collection comes between the end and the hold.
    pub fn finish_held(mut self) -> Result<Hold, WriteError> {
        let content = self.end()?;
        Ok(self.pipeline.hold(content))
    }

    /// Ends the content. All its chunks are stored, not yet synced. Whoever keeps the answer where a collection does not
    /// look wants [`Self::finish_held`].
    pub fn finish(mut self) -> Result<Content, WriteError> {
        self.end()
    }

    fn end(&mut self) -> Result<Content, WriteError> {
        for chunk in self.rest() {
            self.pipeline.push(Item::Data(chunk))?;
        }
        self.pipeline.finish()
    }

    /// The content of what has been written so far; writing can go on, and after [`WriteError::Full`] this can be asked
    /// for again.
    pub fn snapshot(&mut self) -> Result<Content, WriteError> {
        self.pipeline.settle()?;
        let rest = self.rest();
        self.pipeline.snapshot(rest)
    }

    /// The bytes since the last cut, cut as if nothing followed.
    fn rest(&self) -> Vec<Bytes> {
        let mut tail = self.tail.clone();
        let mut chunks = Vec::new();
        while !tail.is_empty() {
            let len = self.cut(&tail);
            chunks.push(tail.split_to(len).freeze());
        }
        chunks
    }

    fn cut(&self, bytes: &[u8]) -> usize {
        let window = bytes.get(..self.class.chunk_max()).unwrap_or(bytes);
        self.pipeline.store().gear().cut(self.class, window)
    }

    fn push_zeros(&mut self, mut zeros: u64, source: &[u8]) -> Result<(), WriteError> {
        while zeros > 0 {
            let now = usize::try_from(zeros).unwrap_or(usize::MAX).min(source.len());
            self.push(source.get(..now).unwrap_or(source))?;
            zeros = zeros.saturating_sub(now as u64);
        }
        Ok(())
    }

    fn push(&mut self, mut data: &[u8]) -> Result<(), WriteError> {
        self.len().checked_add(data.len() as u64).ok_or(WriteError::TooLong)?;
        self.pipeline.check()?;
        while !data.is_empty() {
            if self.tail.capacity() == self.tail.len() {
                self.next_segment(data.len());
            }
            let room = self.tail.capacity().saturating_sub(self.tail.len());
            let (now, later) = data.split_at(room.min(data.len()));
            self.tail.extend_from_slice(now);
            data = later;
            // Only then is a cut independent of what is still to come.
            while self.tail.len() >= self.class.chunk_max() {
                let len = self.cut(&self.tail);
                let chunk = self.tail.split_to(len).freeze();
                self.cut_len = self.cut_len.saturating_add(len as u64);
                self.pipeline.push(Item::Data(chunk))?;
            }
        }
        Ok(())
    }

    /// Goes on in a new buffer; the old one lives as long as its chunks.
    fn next_segment(&mut self, wanted: usize) {
        let longest = SEGMENT_LEN.max(self.class.chunk_max() * SEGMENT_CHUNKS);
        let len = self.tail.len().saturating_add(wanted).clamp(SEGMENT_LEN_MIN, longest);
        // A second segment means a larger file.
        let len =
            if self.cut_len > 0 || self.tail.len() >= SEGMENT_LEN_MIN { longest } else { len };
        let mut next = BytesMut::with_capacity(len.max(self.tail.len() + 1));
        next.extend_from_slice(&self.tail);
        self.tail = next;
    }
}

/// How many of `zeros` bytes that begin at a cut are certain to be whole chunks of `step` zeros. Two bytes are left,
/// because a cut depends on the first byte after it and on there being a second.
pub(crate) fn whole_zero_chunks(zeros: u64, step: u64) -> u64 {
    match step {
        0 => 0,
        step => zeros.saturating_sub(2) / step * step,
    }
}

#[cfg(test)]
mod tests;
