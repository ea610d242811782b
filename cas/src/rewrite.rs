//! A new content from an old one and the ranges that changed.
//!
//! Cuts depend on the bytes from one cut to just behind the next, so where a cut of the new content falls on one of
//! the old, everything up to the next change can be taken over without being read: chunk by chunk, or whole manifest
//! nodes where their borders meet.
//!
//! Leaves out: whether chunks that are taken over are local; who publishes the content sees to that.
//!
//! Invariants:
//! - the result is what a [`crate::writer::Writer`] of the same class makes of the same bytes, provided the old content
//!   was made by one of the two;
//! - what is read is bounded by the changes plus a few longest chunks around each.

use std::io;
use std::ops::Range;

use bytes::BytesMut;

use crate::chunker::Class;
use crate::error::{PathError, ReadError, WriteError};
use crate::reader::{Content, Piece, Reader};
use crate::store::Store;
use crate::writer::{Item, Pipeline, whole_zero_chunks};

/// A change of class costs cutting the whole content anew, so it waits for a rewrite that changes at least one part in
/// this many of it.
const CLASS_CHANGE_DIVISOR: u64 = 4;
/// Contents up to this length are cut by content however they were written: they have few chunks, bytes.
const FIXED_CONTENT_MIN: u64 = 1 << 20;
/// Length of the buffer that chunks are cut from, bytes; longer where the longest chunk asks for it.
const SEGMENT_LEN: usize = 256 << 10;

/// How changes were written, as far as it matters for how the content is cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Written {
    /// From front to back, or in few places.
    InOrder,
    /// Here and there, as databases, disk images and downloads are.
    AtRandom,
}

/// The bytes that changed.
pub trait Edits {
    /// The changed ranges of the new content: sorted, disjoint.
    fn ranges(&self) -> &[Range<u64>];
    /// Fills `buf` from `offset`; asked for bytes inside one range only.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
    /// How they were written.
    fn written(&self) -> Written {
        Written::InOrder
    }
}

/// Stores the content of `new_len` bytes that has the edits' bytes in their ranges, elsewhere the base's, and beyond it
/// zeros. The class is the base's as long as that makes sense; what is written anew and at random gets chunks of fixed
/// length.
pub fn rewrite(
    store: &Store,
    base: Option<&Reader>,
    edits: &dyn Edits,
    new_len: u64,
) -> Result<Content, WriteError> {
    let class = class_after(base, edits, new_len)?;
    rewrite_as(store, base, edits, new_len, class)
}

/// The same, cut by a given class: for a file that turns out to be written at random, for example.
pub fn rewrite_as(
    store: &Store,
    base: Option<&Reader>,
    edits: &dyn Edits,
    new_len: u64,
    class: Class,
) -> Result<Content, WriteError> {
    store.0.writable()?;
    let base_class = base.map(Reader::manifest_class).transpose()?.flatten();
    let rewrite = Rewrite {
        store,
        base,
        takes_over: base_class == Some(class),
        edits,
        base_len: base.map_or(0, Reader::len),
        new_len,
        class,
        zero_step: store.0.gear().zero_chunk_len(class) as u64,
        pipeline: Pipeline::new(store.0.clone(), class),
        window: BytesMut::new(),
        at: 0,
    };
    rewrite.run()
}

/// The class for the new content.
fn class_after(base: Option<&Reader>, edits: &dyn Edits, new_len: u64) -> Result<Class, ReadError> {
    let fresh = match edits.written() {
        Written::AtRandom if new_len > FIXED_CONTENT_MIN => Class::Fixed64K,
        Written::AtRandom | Written::InOrder => Class::for_len(new_len),
    };
    let Some(base) = base else { return Ok(fresh) };
    // A content of one chunk does not tell its class, and costs nothing to cut anew.
    let Some(class) = base.manifest_class()? else { return Ok(fresh) };
    let better = match fresh {
        Class::Fixed64K => fresh,
        _ => class.keep_or_change(new_len),
    };
    let changed: u64 = edits
        .ranges()
        .iter()
        .map(|range| range.end.min(new_len).saturating_sub(range.start))
        .fold(new_len.saturating_sub(base.len()), u64::saturating_add);
    Ok(if changed >= new_len / CLASS_CHANGE_DIVISOR { better } else { class })
}

struct Rewrite<'a> {
    store: &'a Store,
    base: Option<&'a Reader>,
    // Whether the base's chunks are what this class would cut.
    takes_over: bool,
    edits: &'a dyn Edits,
    base_len: u64,
    new_len: u64,
    class: Class,
    zero_step: u64,
    pipeline: Pipeline,
    // Invariant: bytes of the new content from `at` on.
    window: BytesMut,
    // Invariant: a cut of the new content; everything before it has been pushed.
    at: u64,
}

impl Rewrite<'_> {
    fn run(mut self) -> Result<Content, WriteError> {
        while self.at < self.new_len {
            if self.take_node()? || self.take_piece()? || self.skip_zeros()? {
                continue;
            }
            self.fill_window()?;
            let len = self.store.0.gear().cut(self.class, &self.window);
            let chunk = self.window.split_to(len).freeze();
            self.pipeline.push(Item::Data(chunk))?;
            self.at = self.at.saturating_add(len as u64);
        }
        self.pipeline.finish()
    }

    /// Takes over a whole node of the base's manifest.
    fn take_node(&mut self) -> Result<bool, WriteError> {
        let Some(base) = self.base.filter(|_| self.takes_over) else { return Ok(false) };
        let Some(leaf) = base.leaf_starting_at(self.at)? else { return Ok(false) };
        let end = leaf.start.saturating_add(leaf.record.len);
        // The base's last node may be ended by its end only.
        if leaf.last || !self.end_stands(end) || self.next_change(self.at) <= end {
            return Ok(false);
        }
        let taken = self.pipeline.push_node(leaf.record)?;
        if taken {
            self.jump(leaf.record.len);
        }
        Ok(taken)
    }

    /// Takes over a chunk or hole of the base.
    fn take_piece(&mut self) -> Result<bool, WriteError> {
        let Some(base) = self.base.filter(|_| self.takes_over) else { return Ok(false) };
        let Some(piece) = base.piece_at(self.at)? else { return Ok(false) };
        if piece.start != self.at || !self.unchanged(&piece) {
            return Ok(false);
        }
        self.pipeline.push(Item::Known(piece.record))?;
        self.jump(piece.record.len);
        Ok(true)
    }

    /// Whether a cut at the piece's start would give the piece again.
    fn unchanged(&self, piece: &Piece) -> bool {
        let max = self.class.chunk_max() as u64;
        // A full chunk of fixed length does not care for what follows.
        let alone = !self.class.looks_ahead() && piece.record.len.is_multiple_of(max);
        let change = self.next_change(piece.start);
        let end = piece.end();
        self.end_stands(end) && (change > end || (alone && change == end))
    }

    /// Whether a cut of the base at `end` is one of the new content as far as its length goes: a cut depends on whether
    /// a second byte follows.
    fn end_stands(&self, end: u64) -> bool {
        let same_end = self.new_len == self.base_len || end == self.new_len;
        end <= self.new_len && (same_end || end.saturating_add(1) < self.new_len)
    }

    /// Passes over zeros that are known without reading.
    fn skip_zeros(&mut self) -> Result<bool, WriteError> {
        let whole = whole_zero_chunks(self.zeros_here()?, self.zero_step);
        if whole == 0 {
            return Ok(false);
        }
        self.pipeline.push(Item::Hole(whole))?;
        self.jump(whole);
        Ok(true)
    }

    /// How many zeros stand here for certain: in a hole of the base or beyond its end, and not in an edit.
    fn zeros_here(&self) -> Result<u64, ReadError> {
        let edit = self.next_edit(self.at).map_or(self.new_len, |range| range.start);
        let until = edit.min(self.new_len);
        let zeros_end = match self.base {
            Some(base) if self.at < self.base_len => match base.next_data(self.at)? {
                Some(data) => data.min(until),
                None => until,
            },
            _ => until,
        };
        Ok(zeros_end.saturating_sub(self.at))
    }

    /// The first edit that ends after `at`.
    fn next_edit(&self, at: u64) -> Option<Range<u64>> {
        let ranges = self.edits.ranges();
        let index = ranges.partition_point(|range| range.end <= at);
        ranges.get(index).cloned()
    }

    /// The first byte at or after `at` that is not the base's at the same place.
    fn next_change(&self, at: u64) -> u64 {
        let edit = self.next_edit(at).map_or(u64::MAX, |range| range.start.max(at));
        let edit = if edit < self.new_len { edit } else { u64::MAX };
        let growth = if self.base_len < self.new_len { self.base_len.max(at) } else { u64::MAX };
        edit.min(growth)
    }

    /// Goes on behind what was taken over.
    fn jump(&mut self, len: u64) {
        self.at = self.at.saturating_add(len);
        match usize::try_from(len) {
            Ok(len) if len < self.window.len() => drop(self.window.split_to(len)),
            _ => self.window.clear(),
        }
    }

    /// Reads as far as the next cut can depend on.
    fn fill_window(&mut self) -> Result<(), WriteError> {
        let max = self.class.chunk_max();
        let left = self.new_len.saturating_sub(self.at);
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(max);
        let have = self.window.len();
        if have >= wanted {
            return Ok(());
        }
        if self.window.capacity() < wanted {
            let mut next = BytesMut::with_capacity(wanted.max(SEGMENT_LEN.max(max)));
            next.extend_from_slice(&self.window);
            self.window = next;
        }
        self.window.resize(wanted, 0);
        let mut window = std::mem::take(&mut self.window);
        let (_, fresh) = window.split_at_mut(have);
        let read = self.read(self.at.saturating_add(have as u64), fresh);
        self.window = window;
        read
    }

    /// Fills `buf` with bytes of the new content.
    fn read(&self, mut at: u64, mut buf: &mut [u8]) -> Result<(), WriteError> {
        while !buf.is_empty() {
            let edit = self.next_edit(at);
            let (end, edited) = match &edit {
                Some(range) if range.start <= at => (range.end, true),
                Some(range) => (range.start, false),
                None => (u64::MAX, false),
            };
            let in_base = !edited && at < self.base_len;
            let end = if in_base { end.min(self.base_len) } else { end };
            let step = usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX);
            let (now, later) = buf.split_at_mut(step.min(buf.len()));
            if edited {
                self.edits
                    .read_at(at, now)
                    .map_err(|error| PathError::new("the changed bytes", "read", error))?;
            } else if let Some(base) = self.base.filter(|_| in_base) {
                let read = base.read_at(at, now)?;
                debug_assert_eq!(read, now.len(), "the range lies within the base");
            } else {
                now.fill(0);
            }
            at = at.saturating_add(now.len() as u64);
            buf = later;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
