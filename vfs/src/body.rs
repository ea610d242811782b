//! The bytes of a file at a given moment: a content, a stream being written, or a content with changes over it.
//!
//! Leaves out: names, attributes, publishing ([`crate::file`], [`crate::fs`]).
//!
//! Invariants:
//! - sequential new content goes into chunks as it arrives and is written once;
//! - a change in place never touches the content below; only its own ranges are written;
//! - bytes below `base_valid` and in no range are the base's, other bytes in no range are zeros.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use cas::{Content, Edits, Writer, Written};

use crate::contents::{Contents, Pinned, Wait};
use crate::error::FsError;
use crate::overlay::{Log, Overlay, RangeSet, Saved};
use crate::pattern::Pattern;
use crate::spool::Part;

/// Longest file, bytes: what signed file offsets can name.
pub(crate) const FILE_LEN_MAX: u64 = i64::MAX as u64;

/// When no more than this was written since the last fsync, a new file is kept in an overlay from then on, bytes.
const LITTLE_BYTES: u64 = 256 << 10;

/// What a file's bytes are.
pub(crate) enum Body {
    /// Exactly a content.
    Sealed { content: Content, pinned: Option<Arc<Pinned>> },
    /// New, written from its beginning on.
    Stream(Box<Stream>),
    /// A content with changes over it.
    Patched(Box<Patched>),
    /// A few words of our own, which are never written nor kept.
    Text(Arc<str>),
}

/// A new content while it is written.
pub(crate) struct Stream {
    writer: Writer,
    /// What it was when it was last made durable.
    synced: Option<Content>,
}

pub(crate) struct Patched {
    base: Option<Arc<Pinned>>,
    base_valid: u64,
    overlay: Overlay,
    len: u64,
    pattern: Pattern,
}

/// An unfinished file as the spool log describes it.
pub(crate) struct Checkpoint {
    pub(crate) base: Option<Content>,
    pub(crate) base_valid: u64,
    pub(crate) overlay: Option<(u64, Vec<(u64, u64)>)>,
    pub(crate) len: u64,
}

impl Body {
    pub(crate) fn sealed(content: Content) -> Self {
        Self::Sealed { content, pinned: None }
    }

    pub(crate) fn stream(contents: &Contents) -> Self {
        Self::Stream(Box::new(Stream { writer: contents.store.writer(None), synced: None }))
    }

    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Sealed { content, .. } => content.len,
            Self::Stream(stream) => stream.writer.len(),
            Self::Patched(patched) => patched.len,
            Self::Text(text) => text.len() as u64,
        }
    }

    /// The content it is, or rests on. What a stream has written, the store knows of, but for what made it whole at its
    /// last fsync.
    pub(crate) fn content(&self) -> Option<Content> {
        match self {
            Self::Sealed { content, .. } => Some(*content),
            Self::Stream(stream) => stream.synced,
            Self::Patched(patched) => patched.base.as_ref().map(|base| base.content()),
            Self::Text(_) => None,
        }
    }

    /// How many separate ranges are changed.
    pub(crate) fn ranges(&self) -> usize {
        match self {
            Self::Patched(patched) => patched.overlay.ranges().len(),
            Self::Sealed { .. } | Self::Stream(_) | Self::Text(_) => 0,
        }
    }

    /// The readers of a sealed content, made when first needed.
    pub(crate) fn pin(&mut self, contents: &Contents) -> Result<Option<Arc<Pinned>>, FsError> {
        let Self::Sealed { content, pinned } = self else { return Ok(None) };
        if let Some(pinned) = pinned {
            return Ok(Some(pinned.clone()));
        }
        let new = Arc::new(contents.pin(*content)?);
        *pinned = Some(new.clone());
        Ok(Some(new))
    }

    /// Lets go of readers nobody needs now.
    pub(crate) fn unpin(&mut self) {
        if let Self::Sealed { pinned, .. } = self {
            *pinned = None;
        }
    }

    /// Reads what is not sealed; a sealed body is read through [`Body::pin`], without the file's lock.
    pub(crate) fn read_at(
        &self,
        wait: Wait,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<usize, FsError> {
        match self {
            Self::Sealed { .. } => Ok(0),
            Self::Stream(stream) => Ok(stream.writer.read_at(offset, buf)?),
            Self::Patched(patched) => patched.read_at(wait, offset, buf),
            Self::Text(text) => {
                let from = usize::try_from(offset).unwrap_or(usize::MAX);
                let rest = text.as_bytes().get(from..).unwrap_or_default();
                let (to, rest) = (buf.iter_mut(), rest.iter());
                Ok(to.zip(rest).map(|(to, byte)| *to = *byte).count())
            }
        }
    }

    /// Takes bytes in.
    pub(crate) fn write_at(
        &mut self,
        contents: &Contents,
        offset: u64,
        data: &[u8],
    ) -> Result<(), FsError> {
        let len = data.len() as u64;
        let end = offset
            .checked_add(len)
            .filter(|end| *end <= FILE_LEN_MAX)
            .ok_or(FsError::FileTooBig)?;
        contents.make_room(len)?;
        if self.len() == 0 && matches!(self, Self::Sealed { .. }) {
            *self = Self::stream(contents);
        }
        if let Self::Stream(stream) = self
            && offset >= stream.writer.len()
        {
            let gap = offset - stream.writer.len();
            if gap > 0 {
                stream.writer.skip(gap)?;
            }
            return Ok(stream.writer.write(data)?);
        }
        let patched = self.patched(contents)?;
        patched.overlay.write_at(offset, data)?;
        patched.pattern.note(offset, len);
        patched.len = patched.len.max(end);
        Ok(())
    }

    /// Cuts or extends with zeros.
    pub(crate) fn truncate(&mut self, contents: &Contents, len: u64) -> Result<(), FsError> {
        if len > FILE_LEN_MAX {
            return Err(FsError::FileTooBig);
        }
        match self.len() {
            old if old == len => return Ok(()),
            _ if len == 0 && matches!(self, Self::Sealed { .. } | Self::Stream(_)) => {
                *self = Self::stream(contents);
                return Ok(());
            }
            _ => {}
        }
        let patched = self.patched(contents)?;
        if len < patched.len {
            patched.overlay.cut(len)?;
            patched.base_valid = patched.base_valid.min(len);
        }
        patched.len = len;
        Ok(())
    }

    /// Makes a range zeros without changing the length.
    pub(crate) fn zero(&mut self, contents: &Contents, range: Range<u64>) -> Result<(), FsError> {
        let range = range.start..range.end.min(self.len());
        if range.start >= range.end {
            return Ok(());
        }
        Ok(self.patched(contents)?.overlay.zero(range)?)
    }

    /// Turns whatever it is into a content with changes over it.
    fn patched(&mut self, contents: &Contents) -> Result<&mut Patched, FsError> {
        if matches!(self, Self::Text(_)) {
            return Err(FsError::ReadOnly);
        }
        if !matches!(self, Self::Patched(_)) {
            let overlay = contents.overlay()?;
            let made = self.base(contents).map(|base| {
                let len = base.as_ref().map_or(0, |base| base.content().len);
                (base, len)
            });
            let (base, len) = match made {
                Ok(made) => made,
                Err(error) => {
                    discard(overlay);
                    return Err(error);
                }
            };
            let pattern = Pattern::default();
            let patched = Patched { base, base_valid: len, overlay, len, pattern };
            *self = Self::Patched(Box::new(patched));
        }
        match self {
            Self::Patched(patched) => Ok(patched),
            Self::Sealed { .. } | Self::Stream(_) | Self::Text(_) => Err(FsError::Invalid),
        }
    }

    /// The content below changes to come.
    fn base(&mut self, contents: &Contents) -> Result<Option<Arc<Pinned>>, FsError> {
        if self.len() == 0 {
            return Ok(None);
        }
        match self {
            Self::Stream(stream) => {
                let content = stream.writer.snapshot()?;
                Ok(Some(Arc::new(contents.pin(content)?)))
            }
            _ => self.pin(contents),
        }
    }

    /// Makes a content of it. The overlay, if there was one, is given back: it may be needed until the content is
    /// durable. On an error the body is as before.
    pub(crate) fn finish(
        &mut self,
        contents: &Contents,
    ) -> Result<(Content, Option<Overlay>), FsError> {
        let content = match self {
            Self::Sealed { content, .. } => *content,
            Self::Stream(stream) => stream.writer.snapshot()?,
            Self::Patched(patched) => patched.rewrite(contents)?,
            Self::Text(_) => return Err(FsError::ReadOnly),
        };
        match std::mem::replace(self, Self::sealed(content)) {
            Self::Patched(patched) => Ok((content, Some(patched.overlay))),
            Self::Sealed { .. } | Self::Stream(_) | Self::Text(_) => Ok((content, None)),
        }
    }

    /// A content of what is there now, while writing goes on.
    pub(crate) fn snapshot(&mut self, contents: &Contents) -> Result<Content, FsError> {
        match self {
            Self::Sealed { content, .. } => Ok(*content),
            Self::Stream(stream) => Ok(stream.writer.snapshot()?),
            Self::Patched(patched) => patched.rewrite(contents),
            Self::Text(_) => Err(FsError::ReadOnly),
        }
    }

    /// Puts what is there into durable places, but for the store's sync, and describes it.
    pub(crate) fn checkpoint(
        &mut self,
        contents: &Contents,
        log: Log,
    ) -> Result<(Checkpoint, Saved), FsError> {
        if let Self::Stream(stream) = self
            && stream.since_checkpoint() <= LITTLE_BYTES
        {
            // A program that syncs after every few bytes: kept over what was synced before, and cut into chunks once.
            let patched = stream.to_patched(contents)?;
            *self = Self::Patched(Box::new(patched));
        }
        let whole = |content: Content| Checkpoint {
            base: Some(content),
            base_valid: content.len,
            overlay: None,
            len: content.len,
        };
        match self {
            Self::Sealed { content, .. } => Ok((whole(*content), Saved::InFile)),
            Self::Stream(stream) => {
                let content = stream.writer.snapshot()?;
                stream.synced = Some(content);
                Ok((whole(content), Saved::InFile))
            }
            Self::Patched(patched) => {
                let saved = patched.overlay.save(log)?;
                let ranges = patched.overlay.ranges().iter().map(|r| (r.start, r.end)).collect();
                let checkpoint = Checkpoint {
                    base: patched.base.as_ref().map(|base| base.content()),
                    base_valid: patched.base_valid,
                    overlay: Some((patched.overlay.number(), ranges)),
                    len: patched.len,
                };
                Ok((checkpoint, saved))
            }
            Self::Text(_) => Err(FsError::ReadOnly),
        }
    }

    /// Takes an unfinished file up again as the spool describes it.
    pub(crate) fn resume(
        contents: &Contents,
        checkpoint: Checkpoint,
        parts: &[Part],
        dir: &std::path::Path,
    ) -> Result<Self, FsError> {
        let base = checkpoint.base.map(|base| contents.pin(base).map(Arc::new)).transpose()?;
        let Some((number, ranges)) = checkpoint.overlay else {
            return match base {
                Some(base) => Ok(Self::sealed(base.content())),
                None => Ok(Self::stream(contents)),
            };
        };
        let ranges = RangeSet::from_ranges(ranges.into_iter().map(|(start, end)| start..end));
        let overlay = Overlay::reopen(dir, number, ranges, parts)?;
        let base_len = base.as_ref().map_or(0, |base| base.content().len);
        let base_valid = checkpoint.base_valid.min(base_len);
        let (len, pattern) = (checkpoint.len, Pattern::default());
        Ok(Self::Patched(Box::new(Patched { base, base_valid, overlay, len, pattern })))
    }

    /// The overlay of a file nobody wants any more.
    pub(crate) fn into_overlay(self) -> Option<Overlay> {
        match self {
            Self::Patched(patched) => Some(patched.overlay),
            Self::Sealed { .. } | Self::Stream(_) | Self::Text(_) => None,
        }
    }

    /// The first offset at or after `offset` with data, or the first without; as `lseek` asks.
    pub(crate) fn seek(
        &mut self,
        contents: &Contents,
        offset: u64,
        data: bool,
    ) -> Result<u64, FsError> {
        let len = self.len();
        if offset >= len {
            return Err(FsError::NoOffset);
        }
        if let Some(pinned) = self.pin(contents)? {
            return if data {
                pinned.anywhere.next_data(offset)?.ok_or(FsError::NoOffset)
            } else {
                Ok(pinned.anywhere.next_hole(offset)?)
            };
        }
        // What is being written has no holes to speak of.
        Ok(if data { offset } else { len })
    }
}

impl Stream {
    fn since_checkpoint(&self) -> u64 {
        self.writer.len().saturating_sub(self.synced.map_or(0, |content| content.len))
    }

    /// The same bytes: what was made durable, and the rest over it.
    fn to_patched(&self, contents: &Contents) -> Result<Patched, FsError> {
        let base = self.synced.map(|content| contents.pin(content).map(Arc::new)).transpose()?;
        let base_valid = self.synced.map_or(0, |content| content.len);
        let mut rest = vec![0; self.since_checkpoint() as usize];
        self.writer.read_at(base_valid, &mut rest)?;
        let mut overlay = contents.overlay()?;
        if !rest.is_empty()
            && let Err(error) = overlay.write_at(base_valid, &rest)
        {
            discard(overlay);
            return Err(error.into());
        }
        let (len, pattern) = (self.writer.len(), Pattern::default());
        Ok(Patched { base, base_valid, overlay, len, pattern })
    }
}

impl Patched {
    fn read_at(&self, wait: Wait, offset: u64, buf: &mut [u8]) -> Result<usize, FsError> {
        let left = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let wanted = left.min(buf.len());
        let mut done = 0;
        while done < wanted {
            let at = offset.saturating_add(done as u64);
            let Some(rest) = buf.get_mut(done..wanted) else { break };
            let range = self.overlay.ranges().next_from(at);
            let until = match &range {
                Some(range) if range.start == at => range.end,
                Some(range) => range.start,
                None => u64::MAX,
            };
            let step = usize::try_from(until - at).unwrap_or(usize::MAX).min(rest.len());
            let (part, _) = rest.split_at_mut(step);
            if range.is_some_and(|range| range.start == at) {
                self.overlay.read_at(at, part)?;
            } else {
                self.read_base(wait, at, part)?;
            }
            done += step;
        }
        Ok(wanted)
    }

    fn read_base(&self, wait: Wait, at: u64, buf: &mut [u8]) -> Result<(), FsError> {
        let valid = usize::try_from(self.base_valid.saturating_sub(at)).unwrap_or(usize::MAX);
        let (from_base, zeros) = buf.split_at_mut(valid.min(buf.len()));
        zeros.fill(0);
        match &self.base {
            Some(base) if !from_base.is_empty() => {
                let read = base.read_at(wait, at, from_base)?;
                from_base.get_mut(read..).unwrap_or_default().fill(0);
            }
            _ => from_base.fill(0),
        }
        Ok(())
    }

    fn rewrite(&self, contents: &Contents) -> Result<Content, FsError> {
        let base_len = self.base.as_ref().map_or(0, |base| base.content().len);
        let mut ranges = self.overlay.ranges().clone();
        // What was cut off below the base's end and is covered again reads as zeros, not as the base.
        ranges.insert(self.base_valid..base_len.min(self.len));
        let edits = OverlayEdits {
            overlay: &self.overlay,
            ranges: ranges.iter().collect(),
            written: self.pattern.written(),
        };
        let base = self.base.as_ref().map(|base| &base.anywhere);
        Ok(cas::rewrite(&contents.store, base, &edits, self.len)?)
    }
}

struct OverlayEdits<'a> {
    overlay: &'a Overlay,
    ranges: Vec<Range<u64>>,
    written: Written,
}

impl Edits for OverlayEdits<'_> {
    fn written(&self) -> Written {
        self.written
    }

    fn ranges(&self) -> &[Range<u64>] {
        &self.ranges
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.overlay.read_at(offset, buf).map_err(|e| io::Error::new(e.source.kind(), e))
    }
}

/// Removes an overlay's file. One that stays is removed at the next start.
pub(crate) fn discard(overlay: Overlay) {
    if let Err(error) = std::fs::remove_file(overlay.path()) {
        tracing::warn!(path = %overlay.path().display(), %error, "cannot remove an overlay");
    }
}
