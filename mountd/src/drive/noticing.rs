//! What a user should know of members and clocks, in words.
//!
//! Leaves out notices of other subjects, which their places tell themselves ([`super::Drive::notice`]).
//!
//! Invariants: worked out anew for each `status`, so that what is over is told no more; what only an owner can do
//! something about is told to owners.

use std::collections::BTreeSet;

use journal::op::Role;
use journal::{AsideCount, DeviceId, EntryId, Member, Odd, OddClock};

use super::{Drive, Gone};
use crate::ipc::{Notice, rfc3339};
use crate::report::causes::{FORGOTTEN, JOIN_AGAIN};

/// A span of time for people, in its largest unit.
fn span(ms: u64) -> String {
    const UNITS: [(u64, &str); 4] = [
        (365 * 86_400_000, "years"),
        (86_400_000, "days"),
        (3_600_000, "hours"),
        (60_000, "minutes"),
    ];
    let found = UNITS.iter().find(|(unit, _)| ms >= 2 * unit);
    found
        .map_or_else(|| format!("{} s", ms / 1_000), |(unit, name)| format!("{} {name}", ms / unit))
}

/// Most changes of one device that are counted each time somebody asks.
const COUNTED_MAX: usize = journal::SET_ASIDE_MAX;

fn changes(aside: &AsideCount) -> String {
    match (aside.count, aside.more) {
        (1, false) => "1 change".to_owned(),
        (0, true) => "changes".to_owned(),
        (count, false) => format!("{count} changes"),
        (count, true) => format!("more than {count} changes"),
    }
}

/// Why a date is odd.
pub(super) fn reason(odd: Odd) -> String {
    match odd {
        Odd::Future { by_ms } => {
            format!("dated {} after now: a clock was that far ahead", span(by_ms))
        }
        Odd::Ahead { by_ms } => {
            format!("its author's clock was {} ahead of the others'", span(by_ms))
        }
        Odd::Behind { by_ms } => {
            format!("its author's clock was {} behind what it had already seen", span(by_ms))
        }
        Odd::Late { published_ms } => {
            format!("written offline; published {}", rfc3339(published_ms))
        }
    }
}

impl Drive {
    /// What `status` tells of members and clocks.
    pub(super) fn member_notices(&self) -> Vec<Notice> {
        let members = self.journal.members();
        let mut out = Vec::new();
        out.extend(self.gone().map(|how| self.gone_notice(how)));
        out.extend(self.own_aside_notice());
        let is_owner = self.own_role() == Some(Role::Owner);
        for member in &members {
            out.extend(self.fork_notice(member));
            if is_owner {
                out.extend(self.owner_notices(member));
            }
        }
        if is_owner {
            out.extend(self.strangers_notice(&members));
        }
        out.extend(self.clock_notices(is_owner));
        out
    }

    fn gone_notice(&self, how: Gone) -> Notice {
        let what = match how {
            Gone::Removed => {
                "this device was removed from the drive: what others write no longer comes"
                    .to_owned()
            }
            Gone::Forgotten => {
                format!(
                    "{FORGOTTEN}; what it wrote counts nowhere, and what others write no longer comes"
                )
            }
        };
        Notice {
            what,
            since: rfc3339(self.clock.wall_ms()),
            remedy: format!("what is here stays here (`atelier export`); {JOIN_AGAIN}"),
        }
    }

    /// Devices with entries here that are no members and were not removed: somebody let them in who had been removed.
    fn strangers_notice(&self, members: &[Member]) -> Option<Notice> {
        let mut strangers: BTreeSet<DeviceId> =
            self.journal.frontier().tips.into_iter().map(|tip| tip.device).collect();
        for known in members.iter().map(|m| m.device).chain(self.journal.members_behind_gaps()) {
            strangers.remove(&known);
        }
        let (first, others) = (strangers.first()?, strangers.len() - 1);
        let more = if others > 0 { format!(" (and {others} more)") } else { String::new() };
        Some(Notice {
            what: format!(
                "device {first}{more} was let in by somebody who had been removed meanwhile: what it wrote does not count"
            ),
            since: rfc3339(self.clock.wall_ms()),
            remedy: "if you know it, invite it again (`atelier invite PATH`): it joins as a new device and brings its files; `atelier history FILE` names versions of it that are here".into(),
        })
    }

    /// When an entry was written, by its author's clock.
    fn saved_at(&self, entry: &EntryId) -> u64 {
        let Some(bytes) = self.journal.entry(entry) else { return 0 };
        journal::codec::decode(&bytes).map_or(0, |parts| parts.entry.saved_at_ms)
    }

    fn fork_notice(&self, member: &Member) -> Option<Notice> {
        let fork = member.flags.forked?;
        let since_ms = self.saved_at(&fork.one).max(self.saved_at(&fork.other));
        Some(Notice {
            what: format!(
                "{} has written two histories (a restored backup or a copied disk): entries {} and {}",
                member.name, fork.one, fork.other
            ),
            since: rfc3339(since_ms),
            remedy:
                "nothing is lost: both are kept; if its owner restored no backup, remove the device"
                    .into(),
        })
    }

    fn owner_notices(&self, member: &Member) -> Vec<Notice> {
        let mut out = Vec::new();
        let now = || rfc3339(self.clock.wall_ms());
        if member.flags.overused_invite && !member.removed {
            out.push(Notice {
                what: format!("{} joined with a ticket that had been used already", member.name),
                since: now(),
                remedy: format!(
                    "if you do not know it: `atelier members PATH remove {}`",
                    member.device
                ),
            });
        }
        match (self.aside(member.device), member.removed) {
            (Some((count, since)), removed) => {
                let what = match removed {
                    true => format!(
                        "{} was removed; what the removal had not seen is kept aside: {}",
                        member.name, count
                    ),
                    false => format!(
                        "what {} wrote before it heard that it was made a reader is kept aside: {}",
                        member.name, count
                    ),
                };
                let remedy = format!(
                    "`atelier members PATH take-back {}` lets them count; --dry-run shows them",
                    member.device
                );
                out.push(Notice { what, since, remedy });
            }
            (None, false) if member.flags.ignored_operations => out.push(Notice {
                what: format!("{} wrote changes that its role does not allow", member.name),
                since: now(),
                remedy: "they are kept and have no effect; ask what happened".into(),
            }),
            (None, _) => {}
        }
        out
    }

    /// How much of a device's work is kept aside, in words, and since when, if any.
    fn aside(&self, device: DeviceId) -> Option<(String, String)> {
        let found = self.journal.set_aside_count(device, COUNTED_MAX);
        let aside = found.unwrap_or_else(|error| {
            tracing::error!(%error, "what is kept aside cannot be read");
            None
        })?;
        Some((changes(&aside), rfc3339(aside.since_ms.min(self.clock.wall_ms()))))
    }

    /// Whose own work is gone from its mount must hear where it is.
    fn own_aside_notice(&self) -> Option<Notice> {
        let own = self.journal.member(self.signer.device())?;
        let (count, since) = self.aside(own.device)?;
        let why = match own.removed {
            true => "removed from the drive",
            false => "made a reader",
        };
        Some(Notice {
            what: format!(
                "what this device wrote before others heard of it does not count, it had been {why}: {}",
                count
            ),
            since,
            remedy: format!(
                "it is kept (`atelier history FILE` names it); an owner can let it count: `atelier members PATH take-back {}`",
                own.device
            ),
        })
    }

    /// Of devices that are no members owners hear what is dated ahead of now: all that follows is dated so, too.
    fn clock_notices(&self, is_owner: bool) -> Vec<Notice> {
        let own = self.signer.device();
        let mut out = Vec::new();
        let others_ahead_ms = self.journal.others_ahead_ms();
        let is_odd = |ms: i64| ms.unsigned_abs() > journal::date::ODD_MS;
        let own_odd_ms = others_ahead_ms.filter(|ms| is_odd(*ms));
        if let Some(ahead_ms) = own_odd_ms {
            let which = if ahead_ms > 0 { "behind" } else { "ahead of" };
            out.push(Notice {
                what: format!(
                    "this device's clock is {} {which} the other members'",
                    span(ahead_ms.unsigned_abs())
                ),
                since: rfc3339(self.clock.wall_ms()),
                remedy: "set the clock that is wrong; until then only the dates shown are off"
                    .into(),
            });
        }
        let clocks = self.journal.odd_clocks(self.clock.now()).unwrap_or_else(|error| {
            tracing::error!(%error, "dates cannot be looked at");
            Vec::new()
        });
        for clock in clocks {
            let is_future = matches!(clock.odd, Odd::Future { .. });
            // By a clock that is behind, everybody else's work is dated ahead; by one that is ahead, its own.
            let follows = own_odd_ms.is_some_and(|ms| ms > 0 || clock.device == own);
            if (clock.device == own && !is_future) || (is_future && follows) {
                continue;
            }
            let is_member = self.journal.member(clock.device).is_some_and(|m| !m.removed);
            if is_member || (is_future && is_owner) {
                out.push(self.clock_notice(&clock, others_ahead_ms.is_some()));
            }
        }
        out
    }

    /// `sure`: other clocks have been seen since the start, so that it is known whose is wrong.
    fn clock_notice(&self, clock: &OddClock, sure: bool) -> Notice {
        let member = self.journal.member(clock.device);
        let name = match &member {
            Some(member) if member.removed => format!("{}, which was removed,", member.name),
            Some(member) => member.name.clone(),
            None => format!("{}, which is no member,", clock.device),
        };
        let (what, remedy) = match clock.odd {
            Odd::Future { by_ms } => (
                format!(
                    "{name} dated its work {} ahead of {}, and all that followed it",
                    span(by_ms),
                    if sure { "now" } else { "this device's clock" }
                ),
                "nothing is lost and order holds; a time in `.snapshots` shows such work only when it has come",
            ),
            Odd::Ahead { by_ms } => (
                format!("the clock of {name} is {} ahead", span(by_ms)),
                "set its clock; until then only the dates of its saves are off",
            ),
            Odd::Behind { by_ms } => (
                format!(
                    "{name} saves with a clock {} behind what it has already seen",
                    span(by_ms)
                ),
                "check its clock; until then only the dates of its saves are off",
            ),
            Odd::Late { .. } => (reason(clock.odd), ""),
        };
        Notice { what, since: rfc3339(clock.saved_at_ms), remedy: remedy.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_told_in_their_largest_unit() {
        assert_eq!(span(3_650 * 86_400_000), "10 years");
        assert_eq!(span(3 * 86_400_000), "3 days");
        assert_eq!(span(86_400_000), "24 hours");
        assert_eq!(span(11 * 60_000), "11 minutes");
        assert_eq!(span(90_000), "90 s");
    }

    #[test]
    fn changes_beyond_what_is_counted_are_said_to_be_more() {
        let of = |count, more| changes(&AsideCount { count, more, since_ms: 0 });
        assert_eq!(of(1, false), "1 change");
        assert_eq!(of(2, false), "2 changes");
        assert_eq!(of(1, true), "more than 1 changes");
        assert_eq!(of(10_000, true), "more than 10000 changes");
        assert_eq!(of(0, true), "changes");
    }

    #[test]
    fn a_reason_names_what_is_wrong_and_by_how_much() {
        let day = 86_400_000;
        assert!(reason(Odd::Ahead { by_ms: 5 * day }).contains("5 days ahead"));
        assert!(reason(Odd::Behind { by_ms: 5 * day }).contains("5 days behind"));
        assert!(reason(Odd::Future { by_ms: 5 * day }).contains("5 days after now"));
        assert!(reason(Odd::Late { published_ms: 0 }).contains("1970-01-01"));
    }
}
