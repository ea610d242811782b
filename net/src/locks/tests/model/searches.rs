//! The searches, each complete within its bounds; which rule is needed for which promise; and long walks.
//!
//! Leaves out: what may happen and what it does ([`super`]).

use super::promises::{BOUNDED, L2, L3, L4, L6, L8, ONE_PROMISE};
use super::*;

/// The searches: (name, bounds).
fn searches() -> Vec<(&'static str, Bounds)> {
    const FILES: &[What] = &[What::File(0), What::File(1)];
    const ALL: &[What] = &[What::File(0), What::Both];
    // Between the first, who often holds, and the third, who grants.
    const GRANTOR: &[(usize, usize)] = &[(0, 2), (2, 0)];
    const CLAIMANTS: &[(usize, usize)] = &[(0, 1), (1, 0)];
    const SILENT: &[(usize, usize)] = &[(0, 1), (1, 0), (0, 2)];
    const PAUSES: Bounds = Bounds {
        begin: Begin::Held,
        slow: GRANTOR,
        claimants: &[1],
        priorities: &[2],
        claims: 1,
        pause_ms: &[5_000],
        pauses: 4,
        ..CALM
    };
    vec![
        ("contention", Bounds { claims: 3, ..CALM }),
        ("two files", Bounds { what: FILES, releases: 1, ..CALM }),
        (
            "directories",
            Bounds { what: ALL, claimants: &[0, 1], releases: 1, slow: CLAIMANTS, ..CALM },
        ),
        (
            "silence",
            Bounds {
                slow: SILENT,
                claimants: &[0, 1],
                pause_ms: &[PATIENCE_MS + 10],
                pauses: 1,
                ..CALM
            },
        ),
        ("partition", Bounds { breaks: 1, ..PAUSES }),
        ("late", Bounds { breaks: 1, slow: &[(0, 1)], ..PAUSES }),
        ("reunion", Bounds { breaks: 1, connects: 1, pauses: 3, slow: &[(0, 2)], ..PAUSES }),
        (
            "healing",
            Bounds {
                begin: Begin::Apart,
                claimants: &[0, 1],
                connects: 3,
                slow: CLAIMANTS,
                ..CALM
            },
        ),
        ("death", Bounds { crashes: 1, slow: &[(0, 1)], ..PAUSES }),
        (
            "new start",
            Bounds {
                begin: Begin::HeldApart,
                what: FILES,
                priorities: &[1, 2],
                crashes: 1,
                connects: 3,
                pauses: 0,
                ..PAUSES
            },
        ),
        ("sleep", Bounds { sleeps: 1, ..PAUSES }),
    ]
}

/// What a search finds to be broken, or whether it finds that very thing.
fn search(
    name: &str,
    broken: Option<Rule>,
    wanted: Option<&'static str>,
) -> BTreeSet<&'static str> {
    let (_, bounds) = searches().into_iter().find(|(known, _)| *known == name).unwrap();
    let mut model = Bounds { broken, ..bounds };
    let more = std::env::var("LOCK_MODEL_MORE").ok().and_then(|more| more.parse::<u8>().ok());
    if let Some(more) = more.filter(|_| broken.is_none()) {
        for bound in [&mut model.claims, &mut model.pauses, &mut model.breaks, &mut model.crashes] {
            *bound += if *bound > 0 { more } else { 0 };
        }
    }
    let start = std::time::Instant::now();
    let end = match wanted {
        Some(property) => HasDiscoveries::AnyOf([property].into()),
        None => HasDiscoveries::AnyFailures,
    };
    // Depth first: what waits to be looked at stays small.
    let checker = model.checker().threads(2).finish_when(end).spawn_dfs().join();
    let found: BTreeSet<&'static str> = checker
        .discoveries()
        .into_iter()
        .filter(|(name, _)| name.starts_with('L'))
        .map(|(name, path)| {
            if broken.is_none() {
                for act in path.into_actions() {
                    eprintln!("  {act:?}");
                }
            }
            name
        })
        .collect();
    eprintln!(
        "{name} without {broken:?}: {} states, {} deep, {:?}: {found:?}",
        checker.unique_state_count(),
        checker.max_depth(),
        start.elapsed()
    );
    found
}

#[test]
fn contention_is_decided() {
    assert_eq!(search("contention", None, None), BTreeSet::new());
}

#[test]
fn two_files_do_not_hinder_each_other() {
    assert_eq!(search("two files", None, None), BTreeSet::new());
}

#[test]
fn directories_exclude_what_is_below_them() {
    assert_eq!(search("directories", None, None), BTreeSet::new());
}

#[test]
fn silence_is_overcome() {
    assert_eq!(search("silence", None, None), BTreeSet::new());
}

#[test]
fn a_partition_deceives_nobody() {
    assert_eq!(search("partition", None, None), BTreeSet::new());
}

#[test]
fn what_comes_late_deceives_nobody() {
    assert_eq!(search("late", None, None), BTreeSet::new());
}

#[test]
fn a_reunion_deceives_nobody() {
    assert_eq!(search("reunion", None, None), BTreeSet::new());
}

#[test]
fn healing_leaves_one() {
    assert_eq!(search("healing", None, None), BTreeSet::new());
}

#[test]
fn a_death_frees_what_was_held() {
    assert_eq!(search("death", None, None), BTreeSet::new());
}

#[test]
fn a_new_start_deceives_nobody() {
    assert_eq!(search("new start", None, None), BTreeSet::new());
}

#[test]
fn a_sleep_deceives_nobody() {
    assert_eq!(search("sleep", None, None), BTreeSet::new());
}

/// What breaks without each rule, and in which search it shows.
const NEEDED: [(Rule, &str, &str); 12] = [
    (Rule::CountedShorterThanKept, "partition", ONE_PROMISE),
    (Rule::LapsedForGood, "partition", ONE_PROMISE),
    (Rule::OneAtATime, "healing", ONE_PROMISE),
    (Rule::HelloTellsHoldings, "healing", L2),
    (Rule::MeetingIsDecided, "healing", L2),
    (Rule::SilentAreTold, "new start", L8),
    (Rule::Grace, "new start", ONE_PROMISE),
    (Rule::SleepLosesAll, "sleep", L3),
    (Rule::LeaseEnds, "death", L4),
    (Rule::WorseYields, "contention", L6),
    (Rule::BetterWaits, "contention", L6),
    (Rule::SilentAreLeftOut, "silence", BOUNDED),
];

#[test]
fn without_any_of_the_rules_something_breaks() {
    assert_eq!(NEEDED.map(|(rule, ..)| rule).as_slice(), Rule::ALL);
    let mut missed = Vec::new();
    for (rule, name, property) in NEEDED {
        if !search(name, Some(rule), Some(property)).contains(property) {
            missed.push((rule, name, property));
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
}

fn kind(act: &Act) -> u8 {
    match act {
        Act::Claim(..) => 0,
        Act::Release(..) => 1,
        Act::Deliver(..) => 2,
        Act::Pause(_) => 3,
        Act::Break(..) => 4,
        Act::Connect(..) => 5,
        Act::Crash(_) => 6,
        Act::Start(_) => 7,
        Act::Sleep(_) => 8,
        Act::Wake(_) => 9,
    }
}

/// Far longer than any search, but one way each: every kind of act as likely as any other.
#[test]
fn long_walks_keep_every_promise() {
    let bounds = Bounds {
        what: &[What::File(0), What::File(1), What::Both],
        claims: 250,
        releases: 250,
        pause_ms: &[PATIENCE_MS + 10, 1_000, 5_000],
        pauses: 250,
        breaks: 120,
        connects: 250,
        crashes: 60,
        sleeps: 60,
        ..CALM
    };
    let walks = std::env::var("LOCK_MODEL_WALKS").ok().and_then(|n| n.parse().ok()).unwrap_or(30);
    let properties = bounds.properties();
    for seed in 1..=walks {
        // In half of them two of three streams are quick, or hardly anything would ever be decided.
        let slow: &[(usize, usize)] = if seed % 2 == 0 { EVERYWHERE } else { &[(0, 1), (2, 0)] };
        let bounds = Bounds { slow, ..bounds.clone() };
        let mut rng = Rng::new(seed);
        let mut world = bounds.begin();
        let mut walked = Vec::new();
        for _ in 0..600 {
            let mut acts = Vec::new();
            bounds.actions(&world, &mut acts);
            let kinds: BTreeSet<u8> = acts.iter().map(kind).collect();
            let kinds: Vec<u8> = kinds.into_iter().collect();
            let chosen = kinds[rng.below(kinds.len())];
            acts.retain(|act| kind(act) == chosen);
            let act = acts[rng.below(acts.len())].clone();
            let fault = matches!(act, Act::Crash(_) | Act::Sleep(_) | Act::Break(..));
            // Else most of a walk would be faults.
            if fault && rng.below(6) > 0 {
                continue;
            }
            walked.push(act.clone());
            if let Some(next) = bounds.next_state(&world, act) {
                world = next;
            }
            for property in &properties {
                let always = property.expectation == stateright::Expectation::Always;
                if always && !(property.condition)(&bounds, &world) {
                    panic!("seed {seed}: {} after {walked:#?}\n{world:#?}", property.name);
                }
            }
        }
    }
}
