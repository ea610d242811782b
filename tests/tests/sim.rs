//! Whole clusters from one seed: a short run of the simulator, what once failed, and some of the bugs it must find.
//!
//! Needs nothing of the machine. `make sim` and `make sim-night` run more, `make canaries` looks for every bug.

use anyhow::{Result, ensure};
use tests::sim::Telling;
use tests::sim::plan::Plan;
use tests::sim::regress::CASES;
use tests::sim::run::{keep_panics, run};

/// Seeds of the short run, in two parts that may run side by side.
const SEEDS: [std::ops::Range<u64>; 2] = [0..60, 60..120];
/// Acts of each.
const STEPS: usize = 150;

fn holds(plan: Plan) -> Result<u64> {
    let (seed, steps) = (plan.seed, plan.steps.len());
    println!("seed {seed}");
    let outcome = run(plan, Telling::Hash);
    ensure!(
        outcome.broken.is_none(),
        "seed {seed} with {steps} acts: {}; `sim replay {seed} --steps {steps} --short` tells the story",
        outcome.broken.map(|broken| broken.to_string()).unwrap_or_default()
    );
    Ok(outcome.trace)
}

#[test]
fn clusters_hold_their_invariants() -> Result<()> {
    keep_panics();
    SEEDS[0].clone().try_for_each(|seed| holds(Plan::of(seed, STEPS)).map(|_| ()))
}

#[test]
fn more_clusters_hold_their_invariants() -> Result<()> {
    keep_panics();
    SEEDS[1].clone().try_for_each(|seed| holds(Plan::of(seed, STEPS)).map(|_| ()))
}

#[test]
fn what_once_failed_holds() -> Result<()> {
    keep_panics();
    for case in CASES {
        println!("{}", case.what);
        holds(case.plan())?;
    }
    Ok(())
}

#[test]
fn the_same_seed_goes_the_same_way() -> Result<()> {
    keep_panics();
    for seed in [3, 50, 101] {
        let again = || holds(Plan::of(seed, STEPS));
        let (one, other) = (again()?, again()?);
        ensure!(one == other, "seed {seed} went two ways");
    }
    Ok(())
}

/// Another few each day: all have had their turn within ten days.
#[cfg(debug_assertions)]
#[test]
fn some_bugs_are_found() -> Result<()> {
    use tests::sim::canaries::{Bug, hunt};
    const SEEDS_MAX: u64 = 1000;
    const A_DAY: usize = 5;
    let days =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs() / 86_400;
    keep_panics();
    let all = Bug::all();
    for turn in 0..A_DAY {
        let bug = all[(days as usize * A_DAY + turn) % all.len()];
        let life = hunt(bug, 0, SEEDS_MAX, STEPS);
        println!("{bug:?}: survived {} seeds, then {:?}", life.survived, life.found);
        ensure!(life.found.is_some(), "{bug:?} was not found in {SEEDS_MAX} seeds");
    }
    Ok(())
}
