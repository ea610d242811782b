//! Dates that do not say what they seem to, and why.
//!
//! Leaves out: order, which never depends on a date alone ([`crate::order`]); words for people.
//!
//! Invariants:
//! - a date is odd only when it is off by more than [`ODD_MS`]: clocks differ a little everywhere;
//! - nothing is rejected, delayed or changed for being odd.

use crate::error::StateError;
use crate::id::{DeviceId, EntryId};
use crate::kv::KvRead;
use crate::order::OrderKey;
use crate::records::{EntryRec, corrupt, load_entry, table};

/// How far a date may be off without a word, milliseconds.
pub const ODD_MS: u64 = 10 * 60 * 1_000;

/// Why a date is not what it seems.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Odd {
    /// The logical time in it is after now: somebody's clock was, or claimed to be, that far ahead.
    Future {
        /// By how much.
        by_ms: u64,
    },
    /// Its author's clock was that far ahead of the other members'.
    Ahead {
        /// By how much.
        by_ms: u64,
    },
    /// Its author's clock was that far behind what it had already seen.
    Behind {
        /// By how much.
        by_ms: u64,
    },
    /// It was written long before it reached anybody.
    Late {
        /// When it counts as published.
        published_ms: u64,
    },
}

/// Whether the date `saved_at_ms` of an entry at `order` is odd, seen from `now_ms`.
pub fn odd(saved_at_ms: u64, order: &OrderKey, now_ms: u64) -> Option<Odd> {
    let (hlc_ms, published_ms) = (order.hlc.ms(), order.published.ms());
    let off = |later: u64, earlier: u64| {
        let by_ms = later.saturating_sub(earlier);
        (by_ms > ODD_MS).then_some(by_ms)
    };
    if let Some(by_ms) = off(hlc_ms, now_ms) {
        return Some(Odd::Future { by_ms });
    }
    if let Some(by_ms) = off(saved_at_ms, hlc_ms) {
        return Some(Odd::Ahead { by_ms });
    }
    if let Some(by_ms) = off(hlc_ms, saved_at_ms) {
        return Some(Odd::Behind { by_ms });
    }
    off(published_ms, hlc_ms).map(|_| Odd::Late { published_ms })
}

/// A device whose dates are odd, by the entry that shows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OddClock {
    /// Whose clock.
    pub device: DeviceId,
    /// The entry.
    pub entry: EntryId,
    /// Its date, by its author's clock.
    pub saved_at_ms: u64,
    /// What is odd.
    pub odd: Odd,
}

/// The devices whose last entries have odd dates. Of all that are dated ahead of now the first one alone: the others
/// had to follow it. A few reads a chain.
pub(crate) fn odd_clocks(kv: &dyn KvRead, now_ms: u64) -> Result<Vec<OddClock>, StateError> {
    let (mut out, mut first): (Vec<OddClock>, Option<(OrderKey, OddClock)>) = (Vec::new(), None);
    for (lane, rec) in crate::chain::lanes(kv)? {
        let Some((entry, tip)) = at(kv, lane, rec.len.saturating_sub(1))? else { continue };
        let told = |entry: EntryId, rec: &EntryRec, odd: Odd| OddClock {
            device: rec.device,
            entry,
            saved_at_ms: rec.saved_at_ms,
            odd,
        };
        match odd(tip.saved_at_ms, &tip.order(entry), now_ms) {
            None | Some(Odd::Late { .. }) => {}
            Some(Odd::Future { .. }) => {
                let (mut from, mut to) = (0, rec.len.saturating_sub(1));
                while from < to {
                    let middle = from + (to - from) / 2;
                    let ahead = at(kv, lane, middle)?
                        .is_some_and(|(_, rec)| rec.hlc.ms().saturating_sub(now_ms) > ODD_MS);
                    if ahead { to = middle } else { from = middle + 1 }
                }
                let Some((entry, rec)) = at(kv, lane, from)? else { continue };
                let key = OrderKey { published: rec.hlc, ..rec.order(entry) };
                if first.as_ref().is_none_or(|(least, _)| key < *least) {
                    let by_ms = rec.hlc.ms().saturating_sub(now_ms);
                    first = Some((key, told(entry, &rec, Odd::Future { by_ms })));
                }
            }
            Some(odd) => out.push(told(entry, &tip, odd)),
        }
    }
    out.extend(first.map(|(_, clock)| clock));
    Ok(out)
}

fn at(kv: &dyn KvRead, lane: u32, pos: u32) -> Result<Option<(EntryId, EntryRec)>, StateError> {
    let Some(id) = crate::chain::entry_at(kv, lane, pos)? else { return Ok(None) };
    let rec = load_entry(kv, &id)?.ok_or_else(|| corrupt(&[table::ENTRY]))?;
    Ok(Some((id, rec)))
}
