//! How much one peer may say: a token bucket, and what it was asked for.
//!
//! Leaves out: what happens to whoever says more (the table).
//!
//! Invariant: over any time a peer sends at most the burst, plus the rate times that time, plus what it was asked for.

/// One peer's budget, in one direction.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Budget {
    /// Messages that may come at once.
    burst: u64,
    /// Messages a second.
    rate: u64,
    /// Thousandths of a message left.
    left: u64,
    at_ms: u64,
    /// Answers that are due to us and cost nothing.
    owed: u64,
}

impl Budget {
    pub(super) fn new(burst: u64, rate: u64, now_ms: u64) -> Self {
        Self { burst, rate, left: burst.saturating_mul(1000), at_ms: now_ms, owed: 0 }
    }

    /// Takes one message's place; false if there is none.
    pub(super) fn take(&mut self, now_ms: u64) -> bool {
        let passed = now_ms.saturating_sub(self.at_ms);
        self.at_ms = self.at_ms.max(now_ms);
        let most = self.burst.saturating_mul(1000);
        self.left = self.left.saturating_add(passed.saturating_mul(self.rate)).min(most);
        match self.left.checked_sub(1000) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }

    /// Takes the place of an answer.
    pub(super) fn take_answer(&mut self, now_ms: u64) -> bool {
        match self.owed.checked_sub(1) {
            Some(owed) => {
                self.owed = owed;
                true
            }
            None => self.take(now_ms),
        }
    }

    /// The other end was asked for something that it may answer `count` times.
    pub(super) fn owe(&mut self, count: u64) {
        self.owed = self.owed.saturating_add(count).min(self.burst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_the_rate_and_answers_are_free() {
        let mut budget = Budget::new(3, 2, 1000);
        let mut taken = |now_ms| (0..10).filter(|_| budget.take(now_ms)).count();
        assert_eq!([taken(1000), taken(1400), taken(1500), taken(2500)], [3, 0, 1, 2]);
        assert_eq!([taken(900), taken(900_000)], [0, 3]);
        budget.owe(2);
        let answers = (0..10).filter(|_| budget.take_answer(900_000)).count();
        assert_eq!(answers, 2);
    }
}
