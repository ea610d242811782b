//! How a file is being written: front to back, or here and there.
//!
//! Leaves out: what follows from it for how the file is cut (`cas::rewrite`).
//!
//! Invariant: a few jumps do not make a pattern: a header that is written last or an index in the middle of a video is
//! no reason to give up the chunks that shifted bytes keep.

use cas::Written;

/// Fewer runs than this say nothing.
const RUNS_MIN: u64 = 64;
/// Runs that are longer than this on average are read in order later too, bytes.
const RUN_BYTES_MAX: u64 = 1 << 20;

/// Counts runs: writes that each begin where the one before ended.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pattern {
    /// Where the last write ended.
    end: u64,
    runs: u64,
    bytes: u64,
}

impl Pattern {
    /// A write.
    pub(crate) fn note(&mut self, offset: u64, len: u64) {
        if offset != self.end || self.runs == 0 {
            self.runs = self.runs.saturating_add(1);
        }
        self.end = offset.saturating_add(len);
        self.bytes = self.bytes.saturating_add(len);
    }

    /// What the writes so far look like.
    pub(crate) fn written(&self) -> Written {
        let random = self.runs >= RUNS_MIN && self.bytes / self.runs <= RUN_BYTES_MAX;
        if random { Written::AtRandom } else { Written::InOrder }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(writes: impl IntoIterator<Item = (u64, u64)>) -> Written {
        let mut pattern = Pattern::default();
        writes.into_iter().for_each(|(offset, len)| pattern.note(offset, len));
        pattern.written()
    }

    #[test]
    fn a_database_is_written_at_random() {
        assert_eq!(
            pattern((0..100).map(|n| (n * 7_919 % 1_000 * 4_096, 4_096))),
            Written::AtRandom
        );
    }

    #[test]
    fn front_to_back_is_in_order_whatever_the_step() {
        assert_eq!(pattern((0..10_000).map(|n| (n * 4_096, 4_096))), Written::InOrder);
    }

    #[test]
    fn a_header_written_last_leaves_it_in_order() {
        let body = (1..1_000).map(|n| (n * 4_096, 4_096));
        assert_eq!(pattern(body.chain([(0, 4_096), (512, 8)])), Written::InOrder);
    }

    #[test]
    fn long_runs_far_apart_are_in_order() {
        let runs = (0..100u64).flat_map(|run| {
            let start = (99 - run) << 26;
            (0..32).map(move |part| (start + (part << 20), 1 << 20))
        });
        assert_eq!(pattern(runs), Written::InOrder);
    }
}
