//! Pack files: their names, the open ones, and what a scan finds in one.
//!
//! Leaves out: deciding what a scan's findings mean ([`super::recover`]).
//!
//! Invariants: at most [`OPEN_MAX`] packs are open for reading; a scan reports only records whose checksum is right,
//! and looks behind damage for more.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, RwLock};

use crate::backend::{Backend, File};
use crate::format::{
    FOOTER_TRAILER_LEN, FooterEntry, PACK_HEADER_LEN, RECORD_HEADER_LEN, RECORD_LEN_MAX,
    RECORD_MAGIC, RecordHeader, decode_footer, decode_trailer, footer_len,
};

/// Packs kept open for reading.
const OPEN_MAX: usize = 128;
/// Bytes a scan reads at once; must hold the longest record.
const SCAN_READ_LEN: usize = 4 << 20;
const _: () = assert!(SCAN_READ_LEN > RECORD_LEN_MAX);

/// The file name of a pack.
pub(super) fn name(number: u32) -> String {
    format!("{number:08}.pack")
}

/// The number in a pack's file name.
pub(super) fn number(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".pack")?;
    let number = digits.parse().ok()?;
    (self::name(number) == name).then_some(number)
}

/// Open packs, the ones opened first leaving first.
#[derive(Default)]
pub(super) struct Files {
    open: Mutex<Open>,
    /// Packs that a collection gave up. Numbers are not used again while the store is open.
    gone: RwLock<BTreeSet<u32>>,
    // Spares everybody the lock before the first of them.
    any_gone: AtomicBool,
}

#[derive(Default)]
struct Open {
    files: HashMap<u32, Arc<dyn File>>,
    order: VecDeque<u32>,
}

impl Files {
    pub(super) fn get(&self, backend: &dyn Backend, number: u32) -> io::Result<Arc<dyn File>> {
        if let Some(file) = self.open.lock().files.get(&number) {
            return Ok(file.clone());
        }
        let file = backend.open(&name(number))?;
        self.insert(number, file.clone());
        Ok(file)
    }

    pub(super) fn insert(&self, number: u32, file: Arc<dyn File>) {
        let mut open = self.open.lock();
        if open.files.insert(number, file).is_none() {
            open.order.push_back(number);
        }
        while open.order.len() > OPEN_MAX {
            if let Some(oldest) = open.order.pop_front() {
                open.files.remove(&oldest);
            }
        }
    }
}

impl Files {
    /// Whether a pack was given up: nothing in it is here any more.
    pub(super) fn is_gone(&self, number: u32) -> bool {
        self.any_gone.load(Ordering::Acquire) && self.gone.read().contains(&number)
    }

    pub(super) fn give_up(&self, number: u32) {
        self.gone.write().insert(number);
        self.any_gone.store(true, Ordering::Release);
    }

    /// The pack could not be removed.
    pub(super) fn take_back(&self, number: u32) {
        self.gone.write().remove(&number);
    }

    /// Closes a pack. Who reads it at the moment goes on reading.
    pub(super) fn forget(&self, number: u32) {
        let mut open = self.open.lock();
        open.files.remove(&number);
        open.order.retain(|other| *other != number);
    }
}

/// The footer's entries, if the file ends in a sound footer, and where the records end.
pub(super) fn read_footer(
    file: &dyn File,
    len: u64,
) -> io::Result<Option<(Vec<FooterEntry>, u64)>> {
    let Some(at) = len.checked_sub(FOOTER_TRAILER_LEN as u64) else { return Ok(None) };
    let mut trailer = [0; FOOTER_TRAILER_LEN];
    file.read_at(at, &mut trailer)?;
    let Some((offset, count)) = decode_trailer(&trailer, len) else { return Ok(None) };
    let mut footer = vec![0; usize::try_from(footer_len(count)).unwrap_or(0)];
    file.read_at(offset.into(), &mut footer)?;
    Ok(decode_footer(&footer).map(|entries| (entries, offset.into())))
}

/// What a scan found.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Sound records in the order they were written.
    pub(super) entries: Vec<FooterEntry>,
    /// Where the last sound record ends.
    pub(super) end: u64,
    /// Bytes between sound records that belong to none.
    pub(super) skipped: u64,
}

/// Reads a pack of `len` bytes record by record.
pub(super) fn scan(file: &dyn File, len: u64) -> io::Result<Scan> {
    let mut found = Scan { end: PACK_HEADER_LEN as u64, ..Scan::default() };
    let mut window = Window { file, len, start: 0, bytes: Vec::new() };
    let mut at = PACK_HEADER_LEN as u64;
    while at < len {
        let bytes = window.at(at)?;
        match sound_record(bytes) {
            Some(header) => {
                let record_len = header.record_len();
                let offset = u32::try_from(at).unwrap_or(u32::MAX);
                found.skipped += at.saturating_sub(found.end);
                found.entries.push(FooterEntry { id: header.id, offset, len: record_len });
                at += u64::from(record_len);
                found.end = at;
            }
            None => at += next_magic(bytes),
        }
    }
    Ok(found)
}

/// The header of the record that `bytes` begin with, if its checksum is right.
fn sound_record(bytes: &[u8]) -> Option<RecordHeader> {
    let header = RecordHeader::decode(bytes)?;
    let data = bytes.get(RECORD_HEADER_LEN..header.record_len() as usize)?;
    (header.checksum(data) == header.crc).then_some(header)
}

/// How far the next place is that may be a record's begin.
fn next_magic(bytes: &[u8]) -> u64 {
    let [first, ..] = RECORD_MAGIC;
    let found = bytes.iter().enumerate().skip(1).find(|(index, byte)| {
        **byte == first
            && bytes.get(*index..).is_some_and(|rest| {
                let len = rest.len().min(RECORD_MAGIC.len());
                rest.get(..len) == RECORD_MAGIC.get(..len)
            })
    });
    found.map_or(bytes.len().max(1), |(index, _)| index) as u64
}

/// A part of a file in memory.
struct Window<'a> {
    file: &'a dyn File,
    len: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl Window<'_> {
    /// The bytes from `at`: a whole record's worth, or to the file's end.
    fn at(&mut self, at: u64) -> io::Result<&[u8]> {
        let end = self.start + self.bytes.len() as u64;
        let wanted = at.saturating_add(RECORD_LEN_MAX as u64).min(self.len);
        if at < self.start || wanted > end {
            let len = usize::try_from(self.len - at).unwrap_or(usize::MAX).min(SCAN_READ_LEN);
            self.bytes.resize(len, 0);
            self.file.read_at(at, &mut self.bytes)?;
            self.start = at;
        }
        let from = usize::try_from(at - self.start).unwrap_or(usize::MAX);
        Ok(self.bytes.get(from..).unwrap_or_default())
    }
}
