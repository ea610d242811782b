//! Where a content is cut into chunks.
//!
//! Leaves out: hashing and storing the chunks; choosing a class for random writes (the caller knows its file).
//!
//! Invariants:
//! - a cut depends on the drive's seed, the class, the bytes from the chunk's start up to *and including* the first
//!   byte after it, and on whether a second byte follows; on nothing else. So cutting again from any cut point gives
//!   the cuts that were there;
//! - the parameters are part of the format: a change of any number here is a new class code;
//! - no chunk is longer than [`CHUNK_LEN_MAX`].

use fastcdc::v2020::{Normalization, cut_gear, get_gear_with_seed, select_masks};

use crate::id::IdKey;

/// Longest chunk of any class, raw bytes.
pub const CHUNK_LEN_MAX: usize = 1 << 20;

/// Longest content that [`Class::Cdc16K`] is chosen for, bytes.
const CDC_16K_CONTENT_MAX: u64 = 256 << 20;
/// Longest content that [`Class::Cdc64K`] is chosen for, bytes.
const CDC_64K_CONTENT_MAX: u64 = 4 << 30;
/// A content keeps its class until its length is this many times outside the class's range.
const CLASS_SLACK: u64 = 4;

/// How a content is cut. The codes are part of the manifest format.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Class {
    /// Content-defined, 16 KiB on average.
    Cdc16K,
    /// Content-defined, 64 KiB on average.
    Cdc64K,
    /// Content-defined, 256 KiB on average.
    Cdc256K,
    /// Every 64 KiB, for files written at random.
    Fixed64K,
}

impl Class {
    /// The class for a new content of `len` bytes.
    pub fn for_len(len: u64) -> Self {
        if len <= CDC_16K_CONTENT_MAX {
            Self::Cdc16K
        } else if len <= CDC_64K_CONTENT_MAX {
            Self::Cdc64K
        } else {
            Self::Cdc256K
        }
    }

    /// The class after a content of this class has grown or shrunk to `len` bytes: the same until `len` is
    /// four times outside the class's range, so that a file at a border is not cut anew at every save.
    pub fn keep_or_change(self, len: u64) -> Self {
        let (from, to) = match self {
            Self::Cdc16K => (0, CDC_16K_CONTENT_MAX),
            Self::Cdc64K => (CDC_16K_CONTENT_MAX, CDC_64K_CONTENT_MAX),
            Self::Cdc256K => (CDC_64K_CONTENT_MAX, u64::MAX),
            Self::Fixed64K => return self,
        };
        if len >= from / CLASS_SLACK && len <= to.saturating_mul(CLASS_SLACK) {
            self
        } else {
            Self::for_len(len)
        }
    }

    /// The code that stands for this class in a manifest.
    pub const fn code(self) -> u8 {
        match self {
            Self::Cdc16K => 1,
            Self::Cdc64K => 2,
            Self::Cdc256K => 3,
            Self::Fixed64K => 4,
        }
    }

    /// The class a code stands for.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Cdc16K),
            2 => Some(Self::Cdc64K),
            3 => Some(Self::Cdc256K),
            4 => Some(Self::Fixed64K),
            _ => None,
        }
    }

    /// Average chunk length, bytes.
    const fn average(self) -> usize {
        match self {
            Self::Cdc16K => 16 << 10,
            Self::Cdc64K | Self::Fixed64K => 64 << 10,
            Self::Cdc256K => 256 << 10,
        }
    }

    /// Longest chunk of this class, bytes.
    pub const fn chunk_max(self) -> usize {
        match self {
            Self::Fixed64K => self.average(),
            _ => self.average() * 4,
        }
    }

    /// Whether a cut may depend on the byte after it.
    pub(crate) const fn looks_ahead(self) -> bool {
        !matches!(self, Self::Fixed64K)
    }
}

/// The gear tables of one drive: made once, shared by everything that cuts.
#[derive(Debug)]
pub struct Gear {
    plain: Vec<u64>,
    shifted: Vec<u64>,
}

impl Gear {
    /// The tables for a drive's key.
    pub fn new(key: &IdKey) -> Self {
        Self::from_seed(key.chunker_seed())
    }

    fn from_seed(seed: u64) -> Self {
        let (plain, shifted) = get_gear_with_seed(seed);
        Self { plain: plain.into_owned(), shifted: shifted.into_owned() }
    }

    /// Length of the first chunk of `window`.
    ///
    /// `window` must reach [`Class::chunk_max`] bytes far or to the end of the content; then the answer does not
    /// change with more bytes. Zero for an empty window only.
    pub fn cut(&self, class: Class, window: &[u8]) -> usize {
        let max = class.chunk_max();
        if !class.looks_ahead() {
            return window.len().min(max);
        }
        let average = class.average();
        let (strict, loose) = select_masks(average, Normalization::Level1);
        let (_, len) = cut_gear(
            window,
            average / 4,
            average,
            max,
            strict,
            loose,
            strict << 1,
            loose << 1,
            &self.plain,
            &self.shifted,
        );
        len
    }

    /// Length of the chunks that a long run of zeros is cut into.
    pub fn zero_chunk_len(&self, class: Class) -> usize {
        static ZEROS: [u8; CHUNK_LEN_MAX] = [0; CHUNK_LEN_MAX];
        self.cut(class, ZEROS.get(..class.chunk_max()).unwrap_or(&ZEROS))
    }
}

#[cfg(test)]
mod tests;
