//! Bugs that are switched on, one by one, to see that some seed finds each.
//!
//! Leaves out: the bugs themselves ([`journal::canary`], [`net::locks::Rule`]).

use journal::canary::{Canary, set};
use net::locks::Rule;

use super::fail::Broken;
use super::plan::Plan;
use super::run::run;
use super::world::Telling;

/// Rules whose lack shows in a cluster. The others need more than it goes through or than is checked there (a grant that
/// lapses while its device stays connected, a device that stays away for a lease, contention without any loss); the
/// search through `net::locks` finds all twelve.
const SHOWN: [Rule; 9] = [
    Rule::CountedShorterThanKept,
    Rule::OneAtATime,
    Rule::HelloTellsHoldings,
    Rule::MeetingIsDecided,
    Rule::SilentAreTold,
    Rule::Grace,
    Rule::SleepLosesAll,
    Rule::BetterWaits,
    Rule::SilentAreLeftOut,
];

/// One bug.
#[derive(Clone, Copy, Debug)]
pub enum Bug {
    /// In the journal, the exchange or the log.
    Journal(Canary),
    /// A rule of session locks that no device keeps to.
    Locks(Rule),
}

impl Bug {
    /// All of them.
    pub fn all() -> Vec<Bug> {
        let rules = SHOWN.into_iter().map(Bug::Locks);
        Canary::ALL.into_iter().map(Bug::Journal).chain(rules).collect()
    }

    /// What it is called.
    pub fn name(&self) -> String {
        match self {
            Bug::Journal(canary) => format!("{canary:?}"),
            Bug::Locks(rule) => format!("{rule:?}"),
        }
    }
}

/// How long a bug lived.
#[derive(Debug)]
pub struct Life {
    /// Seeds it survived.
    pub survived: u64,
    /// The seed that found it, and what was broken.
    pub found: Option<(u64, Broken)>,
}

/// Runs seeds from `first` until one finds `bug`, at most `seeds_max`.
pub fn hunt(bug: Bug, first: u64, seeds_max: u64, steps: usize) -> Life {
    for survived in 0..seeds_max {
        let seed = first + survived;
        let mut plan = Plan::of(seed, steps);
        match bug {
            Bug::Journal(canary) => set(Some(canary)),
            Bug::Locks(rule) => {
                plan.session_locks = true;
                plan.broken_rule = Some(rule);
            }
        }
        let outcome = run(plan, Telling::Hash);
        set(None);
        if let Some(broken) = outcome.broken {
            return Life { survived, found: Some((seed, broken)) };
        }
    }
    Life { survived: seeds_max, found: None }
}
