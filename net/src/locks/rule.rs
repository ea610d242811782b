//! What the lock table keeps to, as a list: a test can switch each rule off and see what breaks.
//!
//! Leaves out: any way to switch one off in a build without debug assertions.

/// One rule of docs/design/011-locks.md.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Rule {
    /// A holder counts a grant for less time than its grantor keeps it.
    CountedShorterThanKept,
    /// A grant that was not confirmed in time is never counted again.
    LapsedForGood,
    /// What is granted to one device is not granted to another.
    OneAtATime,
    /// What is held is told to whoever connects, before anything else.
    HelloTellsHoldings,
    /// Of two holders that meet the worse has lost.
    MeetingIsDecided,
    /// Whoever holds a lock without somebody's answer tells it so.
    SilentAreTold,
    /// After a start nothing is granted for a lease.
    Grace,
    /// Own locks do not survive a sleep that is longer than the lease.
    SleepLosesAll,
    /// A peer's locks end with its lease.
    LeaseEnds,
    /// Of two claims the worse yields.
    WorseYields,
    /// A better claim that came second waits for the first to yield.
    BetterWaits,
    /// A claim is decided without those who are silent.
    SilentAreLeftOut,
}

impl Rule {
    /// All of them.
    pub const ALL: [Rule; 12] = [
        Rule::CountedShorterThanKept,
        Rule::LapsedForGood,
        Rule::OneAtATime,
        Rule::HelloTellsHoldings,
        Rule::MeetingIsDecided,
        Rule::SilentAreTold,
        Rule::Grace,
        Rule::SleepLosesAll,
        Rule::LeaseEnds,
        Rule::WorseYields,
        Rule::BetterWaits,
        Rule::SilentAreLeftOut,
    ];
}
