//! The rule, case by case.

use proptest::prelude::*;

use super::*;

const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;
/// Noon of a day.
const START: u64 = 20_000 * DAY + 12 * HOUR;

/// A drive in which something is written every day of these years.
fn busy() -> DriveTime {
    DriveTime::new(&(19_000..22_000).collect())
}

fn rules(now_ms: u64) -> Rules {
    Rules::new(&[], busy(), now_ms)
}

fn replaced(made_ms: u64, replaced_ms: u64) -> Facts {
    let replaced = Replaced { first_ms: replaced_ms, known_ms: replaced_ms };
    Facts { made_ms, replaced: Some(replaced), snapshots_ms: vec![] }
}

fn set(from_ms: u64, keep_all_s: u64, keep_daily_s: u64) -> Reign {
    Reign { from_ms, policy: Policy { keep_all_s, keep_daily_s } }
}

#[test]
fn by_default_all_for_30_days_then_the_last_of_each_day_for_a_year() {
    let of_the_day = replaced(START, START + HOUR);
    let over_midnight = replaced(START, START + 13 * HOUR);
    for (days, all, daily) in [
        (0, true, true),
        (29, true, true),
        (31, false, true),
        (364, false, true),
        (367, false, false),
    ] {
        let rules = rules(START + days * DAY);
        assert_eq!(rules.kept(&of_the_day), all, "after {days} days");
        assert_eq!(rules.owed(&of_the_day), all, "after {days} days");
        assert_eq!(rules.kept(&over_midnight), daily, "after {days} days");
        assert_eq!(rules.owed(&over_midnight), daily, "after {days} days");
    }
}

#[test]
fn age_counts_from_the_moment_of_replacement() {
    // Three years in force, and replaced yesterday.
    let old = replaced(START, START + 1_000 * DAY);
    assert!(rules(START + 1_001 * DAY).kept(&old));
    assert!(!rules(START + 1_370 * DAY).kept(&old));
}

#[test]
fn what_nobody_replaced_stays() {
    let head = Facts { made_ms: 0, ..Facts::default() };
    let rules = Rules::new(&[set(0, 0, 0)], busy(), START);
    assert!(rules.kept(&head) && rules.owed(&head));
}

#[test]
fn a_version_replaced_in_the_future_is_current() {
    let facts = replaced(START, START + 90 * DAY);
    let rules = Rules::new(&[set(0, 0, 0)], busy(), START + DAY);
    assert!(rules.kept(&facts) && rules.owed(&facts));
}

#[test]
fn keeping_nothing_lets_go_at_once() {
    let facts = replaced(START, START + HOUR);
    let rules = Rules::new(&[set(START, 0, 0)], busy(), START + HOUR);
    assert!(!rules.kept(&facts) && !rules.owed(&facts));
}

#[test]
fn what_a_policy_let_go_of_is_owed_never_again_but_kept_if_a_later_one_says_so() {
    let facts = replaced(START, START + HOUR);
    let strict = set(START + DAY, 0, 0);
    let lax = set(START + 2 * DAY, 365 * 86_400, 365 * 86_400);
    let between = Rules::new(&[strict, lax], busy(), START + 3 * DAY);
    assert!(!between.owed(&facts));
    assert!(between.kept(&facts), "an owner who corrects a mistake in time loses nothing");
    // Not yet replaced while the strict one held: it never let go of it.
    let later = replaced(START, START + 2 * DAY + HOUR);
    assert!(between.owed(&later) && between.kept(&later));
}

#[test]
fn a_snapshot_keeps_for_ever_and_is_owed_if_it_came_in_time() {
    let mut facts = replaced(START, START + HOUR);
    let rules = rules(START + 500 * DAY);
    assert!(!rules.kept(&facts));
    facts.snapshots_ms = vec![START + 2 * DAY];
    assert!(rules.kept(&facts) && rules.owed(&facts));
    facts.snapshots_ms = vec![START + 450 * DAY];
    assert!(rules.kept(&facts), "of a device that was away and still has it");
    assert!(!rules.owed(&facts), "nobody waits for what others were free to remove");
}

#[test]
fn a_clock_that_jumps_ages_nothing_by_more_than_a_week() {
    // Nothing was written since the version was replaced; then somebody's clock says it is ten years later.
    let time = DriveTime::new(&(19_000..=20_000).collect());
    let facts = replaced(START, START + HOUR);
    let jumped = Rules::new(&[], time, START + 3_650 * DAY);
    assert!(jumped.kept(&facts) && jumped.owed(&facts));
    // It even writes then.
    let mut days: BTreeSet<u32> = (19_000..=20_000).collect();
    days.extend([23_650, 23_651]);
    let jumped = Rules::new(&[], DriveTime::new(&days), START + 3_651 * DAY);
    assert!(jumped.kept(&facts), "a jump is a week, then a day is a day");
    // Had it been in use all the time, it would be gone.
    let used = DriveTime::new(&(19_000..24_000).collect());
    assert!(!Rules::new(&[], used, START + 3_650 * DAY).kept(&facts));
}

#[test]
fn a_replacement_that_was_dated_back_lets_go_of_nothing_here() {
    let replaced = Replaced { first_ms: START, known_ms: START + 800 * DAY };
    let facts = Facts { made_ms: START - 1, replaced: Some(replaced), snapshots_ms: vec![] };
    let rules = rules(START + 801 * DAY);
    assert!(rules.kept(&facts));
    assert!(!rules.owed(&facts));
}

proptest! {
    #[test]
    fn what_is_owed_is_kept_and_never_comes_back(
        made in 0..400u64,
        lasted in 0..400u64,
        known in 0..100u64,
        policies in proptest::collection::vec((0..900u64, 0..60u64, 0..500u64), 0..4),
        snapshots in proptest::collection::vec(0..900u64, 0..3),
        days in proptest::collection::btree_set(20_000..20_900u32, 1..60),
        mut moments in proptest::collection::vec(0..1_000u64, 2..6),
    ) {
        let ms = |day: u64| START + day * DAY + day;
        let mut set: Vec<Reign> =
            policies.iter().map(|(from, all, daily)| self::set(ms(*from), all * 86_400, daily * 86_400)).collect();
        set.sort_by_key(|reign| reign.from_ms);
        let first_ms = ms(made + lasted);
        let facts = Facts {
            made_ms: ms(made),
            replaced: Some(Replaced { first_ms, known_ms: first_ms + known * DAY }),
            snapshots_ms: snapshots.iter().map(|day| ms(*day)).collect(),
        };
        moments.sort_unstable();
        let time = DriveTime::new(&days);
        // What was not owed at one moment is not owed at a later one, whatever owners say since.
        let mut over = false;
        for moment in moments {
            let now = ms(moment);
            let known: Vec<Reign> = set.iter().copied().filter(|reign| reign.from_ms < now).collect();
            let made = facts.snapshots_ms.iter().copied().filter(|at| *at < now).collect();
            let facts = Facts { snapshots_ms: made, ..facts.clone() };
            let rules = Rules::new(&known, time.clone(), now);
            let owed = rules.owed(&facts);
            prop_assert!(!owed || rules.kept(&facts));
            prop_assert!(!(owed && over), "it came back");
            over |= !owed;
        }
    }
}
