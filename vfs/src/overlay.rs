//! What was written over a content and is not content yet: a set of ranges and the plain file that holds their bytes.
//!
//! Leaves out: the content below ([`crate::body`]) and how both become new content (`cas::rewrite`).
//!
//! Invariants:
//! - ranges are disjoint, not empty, not adjacent and in order;
//! - the file holds zeros wherever no range was ever written since the last cut below that place.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use cas::PathError;

use crate::error::at;
use crate::spool::Part;

/// Most bytes of one overlay that are durable in the spool log only.
const IN_LOG_BYTES_MAX: u64 = 256 << 10;
/// Most parts of one overlay that go into the spool log at a time.
const IN_LOG_PARTS_MAX: usize = 64;

/// A set of byte ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RangeSet {
    /// start -> end
    ranges: BTreeMap<u64, u64>,
}

impl RangeSet {
    /// The set of the given ranges, in any order, overlapping or not.
    pub(crate) fn from_ranges(ranges: impl IntoIterator<Item = Range<u64>>) -> Self {
        let mut set = Self::default();
        for range in ranges {
            set.insert(range);
        }
        set
    }

    /// Adds a range; ranges that touch become one.
    pub(crate) fn insert(&mut self, range: Range<u64>) {
        if range.start >= range.end {
            return;
        }
        let (mut start, mut end) = (range.start, range.end);
        // Everything that begins at or before our end and reaches our start is swallowed. Ranges are disjoint, so
        // going down from our end the first one that ends before our start is the last to look at.
        while let Some((&s, &e)) = self.ranges.range(..=end).next_back() {
            if e < start {
                break;
            }
            start = start.min(s);
            end = end.max(e);
            self.ranges.remove(&s);
        }
        self.ranges.insert(start, end);
    }

    /// Takes everything from `offset` on out of the set.
    pub(crate) fn cut(&mut self, offset: u64) {
        let _ = self.ranges.split_off(&offset);
        if let Some((_, end)) = self.ranges.range_mut(..offset).next_back() {
            *end = (*end).min(offset);
        }
    }

    /// The first range that ends after `offset`, as far as it lies at or after it.
    pub(crate) fn next_from(&self, offset: u64) -> Option<Range<u64>> {
        if let Some((_, &end)) = self.ranges.range(..=offset).next_back()
            && end > offset
        {
            return Some(offset..end);
        }
        let after = offset.checked_add(1)?;
        self.ranges.range(after..).next().map(|(&s, &e)| s..e)
    }

    /// The ranges in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.ranges.iter().map(|(&s, &e)| s..e)
    }

    /// How many ranges.
    pub(crate) fn len(&self) -> usize {
        self.ranges.len()
    }
}

/// A range set with the bytes of its ranges in a sparse file of the spool.
#[derive(Debug)]
pub(crate) struct Overlay {
    file: File,
    path: PathBuf,
    number: u64,
    ranges: RangeSet,
    /// What was written since the overlay was last saved.
    fresh: RangeSet,
    /// What is durable in the spool log only.
    in_log: RangeSet,
    /// Bytes the log holds of it, some perhaps more than once.
    in_log_bytes: u64,
    /// Whether the spool log may name it.
    logged: bool,
    /// Whether its name in the directory is durable.
    linked: bool,
}

/// Whether the spool log still holds what it was given of an overlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Log {
    /// It does.
    Holds,
    /// It was told since that the file is finished.
    Forgot,
}

/// How an overlay was made durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Saved {
    /// Its file is synced.
    InFile,
    /// Once the spool log has these parts and is synced.
    InLog(Vec<Part>),
}

impl Overlay {
    /// Name of the overlay file of this number.
    pub(crate) fn file_name(number: u64) -> String {
        format!("overlay-{number:016x}")
    }

    /// The number in an overlay's file name, if it is one.
    pub(crate) fn number_of(file_name: &str) -> Option<u64> {
        let digits = file_name.strip_prefix("overlay-")?;
        (digits.len() == 16).then(|| u64::from_str_radix(digits, 16).ok())?
    }

    /// Makes an empty overlay in `dir`.
    pub(crate) fn create(dir: &Path, number: u64) -> Result<Self, PathError> {
        let path = dir.join(Self::file_name(number));
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(at("create", &path))?;
        Ok(Self::over(file, path, number, RangeSet::default(), false))
    }

    /// Opens an overlay that a crash left behind, with the ranges the spool log knows of, and writes the parts that are
    /// durable in the log into its file, which may never have reached the disk.
    pub(crate) fn reopen(
        dir: &Path,
        number: u64,
        ranges: RangeSet,
        parts: &[Part],
    ) -> Result<Self, PathError> {
        let path = dir.join(Self::file_name(number));
        let mut options = File::options();
        options.read(true).write(true).create(!parts.is_empty()).truncate(false);
        let file = options.open(&path).map_err(at("open", &path))?;
        for part in parts {
            file.write_all_at(&part.bytes, part.offset).map_err(at("write", &path))?;
        }
        Ok(Self::over(file, path, number, ranges, true))
    }

    fn over(file: File, path: PathBuf, number: u64, ranges: RangeSet, logged: bool) -> Self {
        let (fresh, in_log) = (RangeSet::default(), RangeSet::default());
        Self { file, path, number, ranges, fresh, in_log, in_log_bytes: 0, logged, linked: false }
    }

    /// The number in the file's name.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// What was written.
    pub(crate) fn ranges(&self) -> &RangeSet {
        &self.ranges
    }

    fn failed(&self, verb: &'static str) -> impl FnOnce(io::Error) -> PathError + '_ {
        at(verb, &self.path)
    }

    /// Takes bytes in.
    pub(crate) fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), PathError> {
        self.file.write_all_at(data, offset).map_err(self.failed("write"))?;
        let range = offset..offset.saturating_add(data.len() as u64);
        self.fresh.insert(range.clone());
        self.ranges.insert(range);
        Ok(())
    }

    /// Makes a range zeros.
    pub(crate) fn zero(&mut self, range: Range<u64>) -> Result<(), PathError> {
        use rustix::fs::FallocateFlags;
        let len = range.end.saturating_sub(range.start);
        if len == 0 {
            return Ok(());
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if rustix::fs::fallocate(&self.file, flags, range.start, len).is_err() {
            self.write_zeros(range.clone())?;
        }
        self.fresh.insert(range.clone());
        self.ranges.insert(range);
        Ok(())
    }

    /// For file systems that cannot punch: only what the file really holds has to be overwritten.
    fn write_zeros(&self, range: Range<u64>) -> Result<(), PathError> {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        let held = self.file.metadata().map_err(self.failed("stat"))?.len();
        let (mut at, end) = (range.start, range.end.min(held));
        while at < end {
            let n = (end - at).min(ZEROS.len() as u64);
            let zeros = ZEROS.get(..n as usize).unwrap_or(&ZEROS);
            self.file.write_all_at(zeros, at).map_err(self.failed("write"))?;
            at += n;
        }
        Ok(())
    }

    /// Forgets everything from `len` on.
    pub(crate) fn cut(&mut self, len: u64) -> Result<(), PathError> {
        let held = self.file.metadata().map_err(self.failed("stat"))?.len();
        if held > len {
            self.file.set_len(len).map_err(self.failed("truncate"))?;
        }
        self.ranges.cut(len);
        self.fresh.cut(len);
        self.in_log.cut(len);
        Ok(())
    }

    /// Fills `buf` with the file's bytes from `offset`; zeros where it has none.
    pub(crate) fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), PathError> {
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, offset.saturating_add(done as u64)) {
                Ok(0) => {
                    rest.fill(0);
                    break;
                }
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.failed("read")(e)),
            }
        }
        Ok(())
    }

    /// Whether the spool log may name it.
    pub(crate) fn is_logged(&self) -> bool {
        self.logged
    }

    /// Makes what was written durable, so that the spool log can name it: little goes into the log itself, which has to
    /// be synced anyway; more is synced in the file, and then its name too.
    pub(crate) fn save(&mut self, log: Log) -> Result<Saved, PathError> {
        if log == Log::Forgot {
            std::mem::take(&mut self.in_log).iter().for_each(|range| self.fresh.insert(range));
            self.in_log_bytes = 0;
        }
        let fresh: u64 = self.fresh.iter().map(|range| range.end - range.start).sum();
        let in_log_bytes = self.in_log_bytes.saturating_add(fresh);
        if in_log_bytes <= IN_LOG_BYTES_MAX && self.fresh.len() <= IN_LOG_PARTS_MAX {
            let parts =
                self.fresh.iter().map(|range| self.part(range)).collect::<Result<_, _>>()?;
            std::mem::take(&mut self.fresh).iter().for_each(|range| self.in_log.insert(range));
            self.in_log_bytes = in_log_bytes;
            self.logged = true;
            return Ok(Saved::InLog(parts));
        }
        self.file.sync_data().map_err(self.failed("sync"))?;
        if let Some(dir) = self.path.parent().filter(|_| !self.linked) {
            let synced = File::open(dir).and_then(|dir| dir.sync_all());
            synced.map_err(self.failed("sync the directory of"))?;
        }
        (self.fresh, self.in_log) = (RangeSet::default(), RangeSet::default());
        self.in_log_bytes = 0;
        (self.logged, self.linked) = (true, true);
        Ok(Saved::InFile)
    }

    fn part(&self, range: Range<u64>) -> Result<Part, PathError> {
        let len = range.end.saturating_sub(range.start).min(IN_LOG_BYTES_MAX);
        let mut bytes = vec![0; len as usize];
        self.read_at(range.start, &mut bytes)?;
        Ok(Part { offset: range.start, bytes })
    }

    /// Where the file lies.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn touching_ranges_become_one() {
        let mut set = RangeSet::default();
        set.insert(10..20);
        set.insert(30..40);
        set.insert(20..30);
        assert_eq!(set.iter().collect::<Vec<_>>(), vec![10..40]);
        set.insert(0..5);
        set.insert(50..60);
        set.insert(4..55);
        assert_eq!(set.iter().collect::<Vec<_>>(), vec![0..60]);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u64, u64),
        Cut(u64),
    }

    proptest! {
        #[test]
        fn a_range_set_is_a_set_of_bytes(steps in prop::collection::vec(prop_oneof![
            (0u64..200, 0u64..60).prop_map(|(a, n)| Step::Insert(a, a + n)),
            (0u64..220).prop_map(Step::Cut),
        ], 0..60)) {
            let mut set = RangeSet::default();
            let mut model = [false; 300];
            for step in steps {
                match step {
                    Step::Insert(a, b) => {
                        set.insert(a..b);
                        model[a as usize..b as usize].fill(true);
                    }
                    Step::Cut(at) => {
                        set.cut(at);
                        model[at as usize..].fill(false);
                    }
                }
                let mut seen = [false; 300];
                let mut last = None;
                for r in set.iter() {
                    prop_assert!(r.start < r.end);
                    prop_assert!(last.is_none_or(|l| l < r.start));
                    last = Some(r.end);
                    seen[r.start as usize..r.end as usize].fill(true);
                }
                prop_assert_eq!(seen, model);
                for from in 0..290u64 {
                    let want = (from..300).find(|&i| model[i as usize]);
                    prop_assert_eq!(set.next_from(from).map(|r| r.start), want);
                }
            }
        }
    }
}
