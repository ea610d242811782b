//! Which chunks are needed: a set that may say yes too often and never no.
//!
//! Leaves out: what is needed.
//!
//! Invariants:
//! - what was set is found, from whatever thread;
//! - memory is fixed when the set is made: [`BITS_PER_CHUNK`] bits for each record of the store and a quarter more. A
//!   chunk nobody needs is found by mistake once in 2,000, and then stays until a later collection, which looks
//!   elsewhere.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::id::ChunkId;

/// Bits of the set for each chunk.
const BITS_PER_CHUNK: u64 = 16;
/// Bits looked at for a chunk.
const PROBES: u64 = 7;
/// Smallest set, bits.
const BITS_MIN: u64 = 1 << 16;
/// An odd number without pattern, to spread what differs little.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// The set, a Bloom filter.
pub(crate) struct Marks {
    words: Box<[AtomicU64]>,
    seed: u64,
}

impl Marks {
    /// A set for a store of `chunks` records. Another `seed` makes other mistakes.
    pub(crate) fn new(chunks: u64, seed: u64) -> Self {
        let room = chunks.saturating_add(chunks / 4).saturating_mul(BITS_PER_CHUNK);
        let words = room.max(BITS_MIN).div_ceil(64);
        let words = (0..words).map(|_| AtomicU64::new(0)).collect();
        Self { words, seed: seed.wrapping_mul(SPREAD) }
    }

    /// Puts a chunk into the set.
    pub(crate) fn set(&self, id: &ChunkId) {
        for (word, bit) in self.places(id) {
            word.fetch_or(bit, Ordering::AcqRel);
        }
    }

    /// Whether a chunk may have been set.
    pub(crate) fn has(&self, id: &ChunkId) -> bool {
        self.places(id).all(|(word, bit)| word.load(Ordering::Acquire) & bit != 0)
    }

    /// Ids are hashes under a secret key: their own bytes are as good as any further hash.
    fn places(&self, id: &ChunkId) -> impl Iterator<Item = (&AtomicU64, u64)> {
        let (parts, _) = id.as_bytes().as_chunks::<8>();
        let part = |index: usize| parts.get(index).map_or(0, |part| u64::from_le_bytes(*part));
        let step = (part(1) ^ self.seed) | 1;
        let first = part(0).wrapping_add(self.seed);
        let bits = (self.words.len() as u64).saturating_mul(64);
        (0..PROBES).filter_map(move |probe| {
            let hash = first.wrapping_add(step.wrapping_mul(probe));
            let at = (u128::from(hash).wrapping_mul(u128::from(bits)) >> 64) as u64;
            let word = self.words.get(usize::try_from(at / 64).ok()?)?;
            Some((word, 1 << (at % 64)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::IdKey;

    fn id(number: u64) -> ChunkId {
        ChunkId::of(&IdKey::from_bytes([3; 32]), &number.to_le_bytes())
    }

    #[test]
    fn what_was_set_is_found_and_little_else() {
        let chunks = 20_000;
        let marks = Marks::new(chunks, 1);
        (0..chunks).for_each(|n| marks.set(&id(n)));
        assert!((0..chunks).all(|n| marks.has(&id(n))));
        let wrong = (chunks..chunks * 6).filter(|n| marks.has(&id(*n))).count();
        assert!(wrong <= 100, "{wrong} of 100,000 found by mistake");
    }

    #[test]
    fn another_seed_makes_other_mistakes() {
        // Far too many for the set, so that there are mistakes to look at.
        let sets = [1, 2].map(|seed| {
            let marks = Marks::new(0, seed);
            (0..12_000).for_each(|n| marks.set(&id(n)));
            (20_000..30_000).filter(|n| marks.has(&id(*n))).collect::<Vec<u64>>()
        });
        assert!(sets[0].len() > 50 && sets[1].len() > 50);
        let both = sets[0].iter().filter(|n| sets[1].contains(n)).count();
        assert!(both * 2 < sets[0].len(), "{both} of {}", sets[0].len());
    }
}
