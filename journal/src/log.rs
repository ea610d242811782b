//! The log: every entry this device holds, in segments of frames, append-only.
//!
//! Leaves out: what entries mean; whether they are signed ([`crate::signed`]).
//!
//! Invariants:
//! - segment `NNNNNNNN.seg`: `magic[8] format[2] reserved[6] drive[32]`, then frames
//!   `magic[4] len[4] crc32c[4] bytes`, numbers little-endian, the checksum over length and bytes;
//! - only the end of the last segment can be torn by a crash; it is cut when the log is opened. A bad
//!   frame anywhere else is damage: it is left where it is, reported, and stepped over;
//! - after a failed write what was not promised is cut off again; after a failed sync nothing is
//!   appended until the log is opened again.

pub mod storage;

use std::sync::Arc;

use crate::canary::{self, Canary};
use crate::entry::ENTRY_LEN_MAX;
use crate::error::{OpenError, PathError};
use crate::id::DriveId;
use crate::log::storage::Storage;
use crate::records::LogPos;

/// First bytes of a segment.
const SEGMENT_MAGIC: [u8; 8] = *b"ATELSEG\n";
/// First bytes of a frame.
const FRAME_MAGIC: [u8; 4] = *b"ATJF";
/// The log format this code writes and the newest it reads.
pub const FORMAT: u16 = 1;
/// Bytes before a segment's first frame.
pub const SEGMENT_HEADER_LEN: u64 = 48;
/// Bytes before a frame's entry.
pub const FRAME_HEADER_LEN: u64 = 12;
/// A segment that has grown beyond this is followed by another, bytes.
const SEGMENT_LEN_MAX: u64 = 64 << 20;
/// Bytes read at once when a segment is scanned.
const SCAN_LEN: usize = 1 << 20;

/// The log of one drive on one device.
pub(crate) struct Log {
    storage: Arc<dyn Storage>,
    drive: DriveId,
    /// Number and length of the segment that is written.
    last: u32,
    len: u64,
    /// Appended since the last sync.
    unsynced: bool,
    poisoned: bool,
    /// A write failed; the file may end in part of a frame.
    torn: bool,
    segment_len_max: u64,
}

/// What was found while reading the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// A whole frame.
    Entry { at: LogPos, bytes: Vec<u8> },
    /// Bytes that are no frame.
    Bad { segment: u32, offset: u64, len: u64 },
}

impl Frame {
    /// Segment and offset where it begins.
    pub(crate) fn place(&self) -> (u32, u64) {
        match self {
            Frame::Entry { at, .. } => (at.segment, at.offset - FRAME_HEADER_LEN),
            Frame::Bad { segment, offset, .. } => (*segment, *offset),
        }
    }
}

pub(crate) fn segment_name(number: u32) -> String {
    format!("{number:08}.seg")
}

fn segment_number(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".seg").filter(|d| d.len() == 8)?;
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

fn segment_header(drive: &DriveId) -> Vec<u8> {
    let mut header = SEGMENT_MAGIC.to_vec();
    header.extend_from_slice(&FORMAT.to_le_bytes());
    header.extend_from_slice(&[0; 6]);
    header.extend_from_slice(drive.as_bytes());
    header
}

fn frame_crc(len: &[u8], bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(len), bytes)
}

pub(crate) fn frame(bytes: &[u8]) -> Vec<u8> {
    let len = (bytes.len() as u32).to_le_bytes();
    let crc = frame_crc(&len, bytes).to_le_bytes();
    [FRAME_MAGIC.as_slice(), &len, &crc, bytes].concat()
}

/// The entry of the frame that `bytes` begin with.
fn parse_frame(bytes: &[u8]) -> Option<&[u8]> {
    let (magic, rest) = bytes.split_first_chunk::<4>()?;
    let (len, rest) = rest.split_first_chunk::<4>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let count = usize::try_from(u32::from_le_bytes(*len)).ok().filter(|n| *n <= ENTRY_LEN_MAX)?;
    let entry = rest.get(..count)?;
    (*magic == FRAME_MAGIC && frame_crc(len, entry) == u32::from_le_bytes(*crc)).then_some(entry)
}

impl Log {
    /// Begins a log; its first segment is there but not yet synced.
    pub(crate) fn create(storage: Arc<dyn Storage>, drive: DriveId) -> Result<Self, PathError> {
        let mut log = Self::over(storage, drive);
        log.begin_segment(1)?;
        Ok(log)
    }

    fn over(storage: Arc<dyn Storage>, drive: DriveId) -> Self {
        let segment_len_max = SEGMENT_LEN_MAX;
        let (last, len) = (0, 0);
        let (unsynced, poisoned, torn) = (false, false, false);
        Self { storage, drive, last, len, unsynced, poisoned, torn, segment_len_max }
    }

    /// Opens a log and cuts what a crash tore off its end. None when there is none.
    pub(crate) fn open(storage: Arc<dyn Storage>) -> Result<Option<Self>, OpenError> {
        let mut numbers = segments(&*storage)?;
        // A segment whose header was torn holds nothing.
        while let Some(last) = numbers.last().copied() {
            let name = segment_name(last);
            if storage.len(&name)? >= SEGMENT_HEADER_LEN || numbers.len() == 1 {
                break;
            }
            storage.truncate(&name, 0)?;
            numbers.pop();
        }
        let Some(last) = numbers.last().copied() else { return Ok(None) };
        let drive = check_header(&*storage, last)?;
        for number in &numbers {
            let found = check_header(&*storage, *number)?;
            if found != drive {
                let path = storage.path(&segment_name(*number));
                return Err(OpenError::OtherDrive { path, found, expected: drive });
            }
        }
        let mut log = Self::over(storage, drive);
        log.last = last;
        log.len = log.storage.len(&segment_name(last))?;
        log.cut_torn_end()?;
        Ok(Some(log))
    }

    /// A log to read from only: nothing is cut, and what is being written is left alone.
    pub(crate) fn reader(storage: Arc<dyn Storage>) -> Result<Self, OpenError> {
        let first = segments(&*storage)?.first().copied().unwrap_or(1);
        let drive = check_header(&*storage, first)?;
        Ok(Self::over(storage, drive))
    }

    fn cut_torn_end(&mut self) -> Result<(), OpenError> {
        let mut end = SEGMENT_HEADER_LEN;
        self.scan_segment(self.last, SEGMENT_HEADER_LEN, &mut |frame| {
            if let Frame::Entry { at, .. } = frame {
                end = at.offset + u64::from(at.len);
            }
            Ok(())
        })?;
        if end < self.len && !canary::is(Canary::TornEndKept) {
            self.storage.truncate(&segment_name(self.last), end)?;
            self.len = end;
        }
        Ok(())
    }

    fn begin_segment(&mut self, number: u32) -> Result<(), PathError> {
        let name = segment_name(number);
        let header = segment_header(&self.drive);
        // Left over from a crash between its creation and its header.
        if self.storage.len(&name).is_ok_and(|len| len > 0) {
            self.storage.truncate(&name, 0)?;
        }
        self.storage.append(&name, &header)?;
        self.last = number;
        self.len = SEGMENT_HEADER_LEN;
        self.unsynced = true;
        Ok(())
    }

    /// Takes back everything appended since `end`, of which nobody was told. When that fails, or a
    /// sync has failed, nothing more is taken.
    pub(crate) fn roll_back(&mut self, end: LogPos) {
        let forgotten =
            canary::is(Canary::RollBackForgotten) || canary::is(Canary::PoisonForgotten);
        if forgotten || self.poisoned || (!self.torn && self.end() == end) {
            return;
        }
        if let Err(error) = self.try_roll_back(end) {
            tracing::error!(%error, "the log could not be put back; it takes nothing more");
            self.poisoned = true;
        }
    }

    fn try_roll_back(&mut self, end: LogPos) -> Result<(), PathError> {
        for number in end.segment + 1..=self.last + 1 {
            // The one after the last may have been begun by the write that failed.
            if self.storage.len(&segment_name(number)).is_ok() {
                self.storage.truncate(&segment_name(number), 0)?;
            }
        }
        self.storage.truncate(&segment_name(end.segment), end.offset)?;
        (self.last, self.len) = (end.segment, end.offset);
        (self.unsynced, self.torn) = (false, false);
        Ok(())
    }

    /// Writes what follows `from` once more and syncs it: whether the bytes that can be read are on the disk only they
    /// know who wrote them.
    pub(crate) fn write_again(&mut self, from: LogPos) -> Result<(), OpenError> {
        let mut tail = Vec::new();
        self.scan(from, &mut |frame| {
            if let Frame::Entry { bytes, .. } = frame {
                tail.push(bytes);
            }
            Ok(())
        })?;
        if !tail.is_empty() {
            self.try_roll_back(from)?;
            tail.iter().try_for_each(|bytes| self.append(bytes).map(|_| ()))?;
        }
        Ok(self.sync_all()?)
    }

    /// Whether a write failed since the log was last put back.
    pub(crate) fn is_torn(&self) -> bool {
        self.torn
    }

    /// Syncs the segment that is written, whoever appended to it.
    pub(crate) fn sync_all(&mut self) -> Result<(), PathError> {
        self.unsynced = true;
        self.sync()
    }

    pub(crate) fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    /// Where the next frame will begin.
    pub(crate) fn end(&self) -> LogPos {
        LogPos { segment: self.last, offset: self.len, len: 0 }
    }

    /// Appends frames; they are durable after [`Log::sync`].
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<LogPos, PathError> {
        let appended = self.try_append(bytes);
        self.torn = self.torn || appended.is_err();
        appended
    }

    fn try_append(&mut self, bytes: &[u8]) -> Result<LogPos, PathError> {
        if self.len > self.segment_len_max {
            self.sync()?;
            self.begin_segment(self.last + 1)?;
        }
        let frame = frame(bytes);
        self.storage.append(&segment_name(self.last), &frame)?;
        let offset = self.len + FRAME_HEADER_LEN;
        self.len += frame.len() as u64;
        self.unsynced = true;
        Ok(LogPos { segment: self.last, offset, len: bytes.len() as u32 })
    }

    /// Makes everything appended durable.
    pub(crate) fn sync(&mut self) -> Result<(), PathError> {
        if !self.unsynced {
            return Ok(());
        }
        let synced = self.storage.sync(&segment_name(self.last));
        let failed = synced.is_err() && !canary::is(Canary::PoisonForgotten);
        self.poisoned = self.poisoned || failed;
        self.unsynced = synced.is_err();
        synced
    }

    pub(crate) fn storage(&self) -> Arc<dyn Storage> {
        Arc::clone(&self.storage)
    }

    pub(crate) fn drive(&self) -> DriveId {
        self.drive
    }

    /// Reads every frame from `from` on, damaged stretches included.
    pub(crate) fn scan(
        &self,
        from: LogPos,
        visit: &mut dyn FnMut(Frame) -> Result<(), OpenError>,
    ) -> Result<(), OpenError> {
        for number in segments(&*self.storage)? {
            if number < from.segment {
                continue;
            }
            let start = match number == from.segment {
                true => from.offset.max(SEGMENT_HEADER_LEN),
                false => SEGMENT_HEADER_LEN,
            };
            self.scan_segment(number, start, visit)?;
        }
        Ok(())
    }

    fn scan_segment(
        &self,
        number: u32,
        start: u64,
        visit: &mut dyn FnMut(Frame) -> Result<(), OpenError>,
    ) -> Result<(), OpenError> {
        let name = segment_name(number);
        let len = self.storage.len(&name)?;
        let frame_max = FRAME_HEADER_LEN as usize + ENTRY_LEN_MAX;
        let (mut buf, mut used): (Vec<u8>, usize) = (Vec::new(), 0);
        // `buf[used..]` holds the bytes from `at` on, as far as they were read.
        let (mut at, mut bad_from) = (start, None);
        while at < len {
            if buf.len() - used < frame_max && at + ((buf.len() - used) as u64) < len {
                buf.drain(..used);
                used = 0;
                let have = buf.len();
                buf.resize(have + SCAN_LEN, 0);
                let room = buf.get_mut(have..).unwrap_or_default();
                let read = self.storage.read_at(&name, at + have as u64, room)?;
                buf.truncate(have + read);
                if buf.is_empty() {
                    break;
                }
            }
            let rest = buf.get(used..).unwrap_or_default();
            let Some(entry) = parse_frame(rest) else {
                bad_from.get_or_insert(at);
                // Step to the next place a frame could begin at.
                let next = rest.windows(4).skip(1).position(|w| w == FRAME_MAGIC);
                let step = next.map_or(rest.len().saturating_sub(3).max(1), |next| next + 1);
                used += step;
                at += step as u64;
                continue;
            };
            if let Some(offset) = bad_from.take() {
                visit(Frame::Bad { segment: number, offset, len: at - offset })?;
            }
            let offset = at + FRAME_HEADER_LEN;
            let pos = LogPos { segment: number, offset, len: entry.len() as u32 };
            let bytes = entry.to_vec();
            let step = FRAME_HEADER_LEN as usize + bytes.len();
            visit(Frame::Entry { at: pos, bytes })?;
            used += step;
            at += step as u64;
        }
        if let Some(offset) = bad_from {
            visit(Frame::Bad { segment: number, offset, len: len.saturating_sub(offset) })?;
        }
        Ok(())
    }
}

/// Reads one entry's bytes; none when they are not what the frame's checksum says.
pub(crate) fn read(storage: &dyn Storage, at: LogPos) -> Result<Option<Vec<u8>>, PathError> {
    let len = at.len as usize;
    if len > ENTRY_LEN_MAX || at.offset < FRAME_HEADER_LEN {
        return Ok(None);
    }
    let mut buf = vec![0; FRAME_HEADER_LEN as usize + len];
    let read =
        storage.read_at(&segment_name(at.segment), at.offset - FRAME_HEADER_LEN, &mut buf)?;
    let bytes = buf.get(..read).unwrap_or_default();
    Ok(parse_frame(bytes).filter(|entry| entry.len() == len).map(<[u8]>::to_vec))
}

fn segments(storage: &dyn Storage) -> Result<Vec<u32>, PathError> {
    let mut numbers: Vec<u32> =
        storage.names()?.iter().filter_map(|name| segment_number(name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

fn check_header(storage: &dyn Storage, number: u32) -> Result<DriveId, OpenError> {
    let name = segment_name(number);
    let corrupt = || OpenError::Corrupt { path: storage.path(&name) };
    let mut header = [0; SEGMENT_HEADER_LEN as usize];
    let read = storage.read_at(&name, 0, &mut header)?;
    let (magic, rest) = header.split_first_chunk::<8>().ok_or_else(corrupt)?;
    let (format, rest) = rest.split_first_chunk::<2>().ok_or_else(corrupt)?;
    let drive = rest.last_chunk::<32>().ok_or_else(corrupt)?;
    let found = u16::from_le_bytes(*format);
    if read < header.len() || *magic != SEGMENT_MAGIC || found == 0 {
        return Err(corrupt());
    }
    if found > FORMAT {
        return Err(OpenError::TooNew { found, supported: FORMAT });
    }
    Ok(DriveId::from_bytes(*drive))
}

#[cfg(test)]
mod tests {
    use super::storage::DirStorage;
    use super::*;

    fn frames(log: &Log) -> Vec<Frame> {
        let mut out = Vec::new();
        log.scan(LogPos::default(), &mut |frame| {
            out.push(frame);
            Ok(())
        })
        .unwrap();
        out
    }

    fn entries(log: &Log) -> Vec<Vec<u8>> {
        let entry = |frame| match frame {
            Frame::Entry { bytes, .. } => Some(bytes),
            Frame::Bad { .. } => None,
        };
        frames(log).into_iter().filter_map(entry).collect()
    }

    /// A log of several segments, and what was put in.
    fn long(dir: &std::path::Path) -> (Arc<dyn Storage>, Vec<Vec<u8>>) {
        let storage: Arc<dyn Storage> = Arc::new(DirStorage::open(dir).unwrap());
        let drive = DriveId::from_bytes([1; 32]);
        let mut log = Log::create(Arc::clone(&storage), drive).unwrap();
        log.segment_len_max = 1000;
        let all: Vec<Vec<u8>> = (0..40u8).map(|n| vec![n; 10 * usize::from(n)]).collect();
        for bytes in &all {
            let at = log.append(bytes).unwrap();
            assert_eq!(read(&*storage, at).unwrap().as_ref(), Some(bytes));
        }
        log.sync().unwrap();
        assert!(log.end().segment > 3);
        (storage, all)
    }

    #[test]
    fn segments_follow_one_another_and_are_read_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let (storage, all) = long(dir.path());
        let log = Log::open(storage).unwrap().unwrap();
        assert_eq!(entries(&log), all);
        let from = LogPos { segment: 2, offset: 0, len: 0 };
        let mut later = 0;
        log.scan(from, &mut |_| {
            later += 1;
            Ok(())
        })
        .unwrap();
        assert!(later > 0 && later < all.len());
    }

    #[test]
    fn damage_in_an_older_segment_is_reported_and_stepped_over() {
        let dir = tempfile::tempdir().unwrap();
        let (_, all) = long(dir.path());
        let path = dir.path().join("00000002.seg");
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        let storage: Arc<dyn Storage> = Arc::new(DirStorage::open(dir.path()).unwrap());
        let log = Log::open(storage).unwrap().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "nothing is cut");
        assert_eq!(entries(&log).len(), all.len() - 1);
        let bad = frames(&log).into_iter().filter(|f| matches!(f, Frame::Bad { .. })).count();
        assert_eq!(bad, 1);
    }

    #[test]
    fn what_was_not_promised_is_taken_back_over_segments() {
        let dir = tempfile::tempdir().unwrap();
        let (storage, mut all) = long(dir.path());
        let mut log = Log::open(Arc::clone(&storage)).unwrap().unwrap();
        log.segment_len_max = 1000;
        let end = log.end();
        for _ in 0..20 {
            log.append(&[7; 300]).unwrap();
        }
        assert!(log.end().segment > end.segment + 1);
        log.roll_back(end);
        assert!(!log.is_poisoned());
        assert_eq!(entries(&log), all);
        all.push(vec![9; 30]);
        log.append(&[9; 30]).unwrap();
        log.sync().unwrap();
        let log = Log::open(storage).unwrap().unwrap();
        assert_eq!(entries(&log), all);
    }

    #[test]
    fn a_segment_begun_and_not_written_holds_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (storage, mut all) = long(dir.path());
        let last = Log::open(Arc::clone(&storage)).unwrap().unwrap().end().segment;
        for header in [&b""[..], &SEGMENT_MAGIC[..]] {
            std::fs::write(dir.path().join(segment_name(last + 1)), header).unwrap();
            let storage: Arc<dyn Storage> = Arc::new(DirStorage::open(dir.path()).unwrap());
            let mut log = Log::open(storage).unwrap().unwrap();
            assert_eq!(entries(&log), all);
            log.segment_len_max = 0;
            all.push(vec![1; 9]);
            log.append(&[1; 9]).unwrap();
            log.sync().unwrap();
            assert_eq!(entries(&log), all);
            let next = dir.path().join(segment_name(last + 1));
            std::fs::remove_file(next).unwrap();
            all.pop();
        }
    }

    #[test]
    fn a_segment_of_another_drive_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (storage, _) = long(dir.path());
        let other = segment_header(&DriveId::from_bytes([2; 32]));
        std::fs::write(dir.path().join("00000099.seg"), other).unwrap();
        assert!(matches!(Log::open(storage), Err(OpenError::OtherDrive { .. })));
    }
}
