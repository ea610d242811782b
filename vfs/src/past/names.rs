//! Names of versions and of points in time.
//!
//! Leaves out: what is behind them.
//!
//! Invariants:
//! - in one folder no two names are equal: of several versions of one second the first has the plain
//!   name, the others are numbered, and a newer version renames none that is there;
//! - sorted by name, versions stand in the order of their seconds, and the first of a second first;
//! - a name keeps its file's ending and fits every file system.

use std::collections::{BTreeMap, BTreeSet};

use journal::name::{EntryName, NAME_LEN_MAX};

use super::time;

/// Hours for which every hour is a point, and days for which every day is one.
const HOURS: u64 = 24;
const DAYS: u64 = 365;
const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;
/// Longest ending kept when a name has to be cut, bytes.
const ENDING_LEN_MAX: usize = 32;

/// Joins a beginning to a file's name, cutting the name before its ending if it must be cut.
fn join(begin: &str, name: &EntryName) -> EntryName {
    let name_text = name.as_str();
    let dot = name_text.rfind('.').filter(|dot| *dot > 0);
    let dot = dot.filter(|dot| name_text.len() - dot <= ENDING_LEN_MAX);
    let (stem, ending) = name_text.split_at(dot.unwrap_or(name_text.len()));
    let mut len = stem.len().min(NAME_LEN_MAX.saturating_sub(begin.len() + ending.len()));
    while !stem.is_char_boundary(len) {
        len -= 1;
    }
    let stem = stem.get(..len).unwrap_or_default();
    EntryName::new(&format!("{begin}{stem}{ending}")).unwrap_or_else(|_| name.clone())
}

/// Names of the versions of the file `name`, saved at `saved_ms`, oldest first. Sorted by name they are in that order,
/// but for a tenth and later one in a second.
pub(crate) fn versions(name: &EntryName, saved_ms: impl Iterator<Item = u64>) -> Vec<EntryName> {
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    let name_of = |ms| {
        let second = time::second(ms);
        let count = seen.entry(second.clone()).or_default();
        *count += 1;
        match *count {
            1 => join(&format!("{second} "), name),
            n => join(&format!("{second}-{n} "), name),
        }
    };
    saved_ms.map(name_of).collect()
}

/// Names of snapshots, oldest first. Two devices may have used one name; what cannot be a file's name
/// is left out.
pub(crate) fn snapshots<'n>(names: impl Iterator<Item = &'n str>) -> Vec<Option<EntryName>> {
    let mut taken: BTreeSet<String> = BTreeSet::new();
    let mut name_of = |name| {
        let name = EntryName::new(name).ok()?;
        let mut shown = name.clone();
        let mut n = 1_u32;
        // A numbered name may itself have been given to a snapshot.
        while !taken.insert(shown.folded().into_owned()) {
            n += 1;
            shown = EntryName::new(&format!("{name} ({n})")).ok()?;
        }
        Some(shown)
    };
    names.map(&mut name_of).collect()
}

/// The points in time that are listed, newest first, before `now_ms`: each of the last hours, each of
/// the last days.
pub(crate) fn points(now_ms: u64) -> Vec<u64> {
    let hours = (0..HOURS).map(|n| (now_ms / HOUR_MS).saturating_sub(n) * HOUR_MS);
    let days = (0..DAYS).map(|n| (now_ms / DAY_MS).saturating_sub(n) * DAY_MS);
    let mut all: Vec<u64> = hours.chain(days).filter(|ms| *ms > 0).collect();
    all.sort_unstable_by(|a, b| b.cmp(a));
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str, saved: &[u64]) -> Vec<String> {
        let name = EntryName::new(name).unwrap();
        versions(&name, saved.iter().copied()).iter().map(|n| n.as_str().to_owned()).collect()
    }

    #[test]
    fn versions_of_one_second_are_numbered_and_a_newer_one_renames_none() {
        let saved = [1_795_449_845_000, 1_795_449_845_100, 1_795_449_845_999, 1_795_449_846_000];
        let all = named("scene.blend", &saved);
        assert_eq!(
            all,
            [
                "2026-11-23T16.04.05Z scene.blend",
                "2026-11-23T16.04.05Z-2 scene.blend",
                "2026-11-23T16.04.05Z-3 scene.blend",
                "2026-11-23T16.04.06Z scene.blend",
            ]
        );
        assert!(all.is_sorted(), "a file dialog shows them in another order");
        assert_eq!(named("scene.blend", &saved[..2]), all[..2]);
        assert!(all.is_sorted());
    }

    #[test]
    fn snapshots_whose_names_are_found_alike_are_told_apart() {
        let all = ["cut", "e\u{301}", "\u{e9}", "Cut", "cut (2)", "cut"];
        let shown: Vec<String> =
            snapshots(all.into_iter()).into_iter().map(|name| name.unwrap().to_string()).collect();
        assert_eq!(shown, ["cut", "e\u{301}", "\u{e9} (2)", "Cut", "cut (2)", "cut (3)"]);
    }

    #[test]
    fn a_long_name_is_cut_before_its_ending_and_between_characters() {
        let long = format!("{}.blend", "ä".repeat(124));
        let all = named(&long, &[0, 0]);
        assert!(all.iter().all(|name| name.len() <= 255 && name.ends_with("ä.blend")));
        assert_ne!(all[0], all[1]);
        let plain = named(&"x".repeat(255), &[0]);
        assert_eq!(plain[0].len(), 255);
        assert!(named(".profile", &[0])[0].ends_with("Z .profile"));
    }

    #[test]
    fn points_are_hours_then_days_and_each_once() {
        let now = 1_795_449_845_000;
        let all = points(now);
        assert_eq!(all.first(), Some(&1_795_449_600_000));
        assert!(all.is_sorted_by(|a, b| a > b));
        assert_eq!(all.len() as u64, HOURS + DAYS - 1, "midnight is an hour and a day");
        assert_eq!(points(10), Vec::<u64>::new());
    }

    #[test]
    fn two_snapshots_of_one_name_are_both_found() {
        let all = snapshots(["a", "..", "a"].into_iter());
        let all: Vec<_> = all.iter().map(|n| n.as_ref().map(EntryName::as_str)).collect();
        assert_eq!(all, [Some("a"), None, Some("a (2)")]);
    }
}
