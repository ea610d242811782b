//! Bugs that are switched on, one by one, to see that some seed finds each.
//!
//! Leaves out: the bugs themselves ([`journal::canary`]).

use journal::canary::{Canary, set};

use super::fail::Broken;
use super::plan::Plan;
use super::run::run;
use super::world::Telling;

/// How long a bug lived.
#[derive(Debug)]
pub struct Life {
    /// The bug.
    pub canary: Canary,
    /// Seeds it survived.
    pub survived: u64,
    /// The seed that found it, and what was broken.
    pub found: Option<(u64, Broken)>,
}

/// Runs seeds from `first` until one finds `canary`, at most `seeds_max`.
pub fn hunt(canary: Canary, first: u64, seeds_max: u64, steps: usize) -> Life {
    for survived in 0..seeds_max {
        let seed = first + survived;
        set(Some(canary));
        let outcome = run(Plan::of(seed, steps), Telling::Hash);
        set(None);
        if let Some(broken) = outcome.broken {
            return Life { canary, survived, found: Some((seed, broken)) };
        }
    }
    Life { canary, survived: seeds_max, found: None }
}
