//! Bugs that can be switched on, to show that the simulator finds them.
//!
//! Leaves out: any way to switch them on in a build without debug assertions, where [`is`] is a constant no.
//!
//! Invariants:
//! - at most one is on, for the thread that asked for it; a run of the simulator is one thread.

/// A bug.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Canary {
    /// Entries of peers are acknowledged before they are synced.
    ReceiveUnsynced,
    /// Own entries are told before they are synced.
    AuthorUnsynced,
    /// Entries are sealed before the chunks they name are synced (in the simulator's own seal).
    SealBeforeChunks,
    /// A crashed process's unsynced appends are believed as they are.
    OpenUnsynced,
    /// A torn end is left in the log.
    TornEndKept,
    /// What a failed write left is not cut off.
    RollBackForgotten,
    /// After a failed sync writing goes on behind what it left.
    PoisonForgotten,
    /// Ties in logical time go to the greater device.
    TieBreakTurned,
    /// Late work keeps the place of its own logical time.
    LateByOwnClock,
    /// The late entry is not written.
    LateForgotten,
    /// Of several heads the one with the smallest key is official.
    OfficialIsSmallest,
    /// A version replaces the official one whatever it is based on.
    StaleBaseAccepted,
    /// Moves after a late one are not undone before it is applied.
    UndoForgotten,
    /// Moves may close a cycle.
    CycleAllowed,
    /// A move applies although its directory stands elsewhere by now.
    MoveFromAnywhere,
    /// A second entry on one predecessor is refused.
    ForkDropped,
    /// A fork is taken without a note of it.
    ForkUnproven,
    /// Copies carry the first member's name.
    CopyNamedAfterFirst,
    /// A removal that had not seen what was put inside counts all the same.
    ResurrectionLost,
    /// A removal beats a concurrent edit.
    GoneBeatsEdit,
    /// The last entry of a removal's frontier does not count any more.
    FrontierOffByOne,
    /// What removed members write counts.
    RemovedStillCounts,
    /// An entry that is known is applied again.
    AppliedTwice,
    /// Logical time follows only the own chain.
    ClockIgnoresSeen,
    /// The own wall clock is believed whatever the others say.
    MedianIgnored,
    /// Copies that were resolved stay.
    ResolveForgotten,
    /// The oldest attributes of a directory hold.
    OldestAttributes,
    /// Equal heads are copies of each other.
    EqualHeadsApart,
    /// Invitations of removed owners still admit.
    VoidInviteAdmits,
    /// Work that had not seen a break replaces what stood there.
    BreakForgotten,
    /// A batch is acknowledged when it comes in.
    HaveTooEarly,
    /// Own work that nobody holds leaves with the offer.
    NothingHeldBack,
    /// The late entry is written before the offer is taken in.
    PreparedTooEarly,
    /// Missing entries are not asked for.
    WantForgotten,
}

impl Canary {
    /// All of them.
    pub const ALL: [Canary; 34] = [
        Canary::ReceiveUnsynced,
        Canary::AuthorUnsynced,
        Canary::SealBeforeChunks,
        Canary::OpenUnsynced,
        Canary::TornEndKept,
        Canary::RollBackForgotten,
        Canary::PoisonForgotten,
        Canary::TieBreakTurned,
        Canary::LateByOwnClock,
        Canary::LateForgotten,
        Canary::OfficialIsSmallest,
        Canary::StaleBaseAccepted,
        Canary::UndoForgotten,
        Canary::CycleAllowed,
        Canary::MoveFromAnywhere,
        Canary::ForkDropped,
        Canary::ForkUnproven,
        Canary::CopyNamedAfterFirst,
        Canary::ResurrectionLost,
        Canary::GoneBeatsEdit,
        Canary::FrontierOffByOne,
        Canary::RemovedStillCounts,
        Canary::AppliedTwice,
        Canary::ClockIgnoresSeen,
        Canary::MedianIgnored,
        Canary::ResolveForgotten,
        Canary::OldestAttributes,
        Canary::EqualHeadsApart,
        Canary::VoidInviteAdmits,
        Canary::HaveTooEarly,
        Canary::NothingHeldBack,
        Canary::PreparedTooEarly,
        Canary::WantForgotten,
        Canary::BreakForgotten,
    ];
}

#[cfg(debug_assertions)]
thread_local! {
    static ON: std::cell::Cell<Option<Canary>> = const { std::cell::Cell::new(None) };
}

/// Whether `canary` is on.
#[cfg(debug_assertions)]
pub fn is(canary: Canary) -> bool {
    ON.get() == Some(canary)
}

/// Whether `canary` is on: never in this build.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub const fn is(_canary: Canary) -> bool {
    false
}

/// Switches one on for this thread, or all off.
#[cfg(debug_assertions)]
pub fn set(canary: Option<Canary>) {
    ON.set(canary);
}
