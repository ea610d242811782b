//! Runs plans, many of them, and makes a failing one short.
//!
//! Leaves out: printing ([`mod@super::command`]).
//!
//! Invariants:
//! - a panic of the product is a failed run, with what it said as the reason;
//! - a shortened plan fails for the same reason as the long one.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::fail::Broken;
use super::plan::{Act, Plan};
use super::world::{Outcome, Telling, World};

thread_local! {
    static SAID: RefCell<Option<String>> = const { RefCell::new(None) };
    static CAUGHT: RefCell<bool> = const { RefCell::new(false) };
}

/// Keeps what a panic says, for runs of this process; other panics are shown as always.
pub fn keep_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if CAUGHT.with_borrow(|caught| *caught) {
            SAID.with_borrow_mut(|said| *said = Some(info.to_string()));
        } else {
            before(info);
        }
    }));
}

/// One run.
pub fn run(plan: Plan, telling: Telling) -> Outcome {
    let seed = plan.seed;
    CAUGHT.with_borrow_mut(|caught| *caught = true);
    let ran = catch_unwind(AssertUnwindSafe(|| {
        let mut world = match World::new(plan, telling) {
            Ok(world) => world,
            Err(broken) => return failed(seed, broken),
        };
        // A panic must not take the story along.
        let broken = match catch_unwind(AssertUnwindSafe(|| world.run())) {
            Ok(Ok(())) => None,
            Ok(Err(broken)) => Some(broken),
            Err(_) => Some(panicked()),
        };
        world.outcome(broken)
    }));
    CAUGHT.with_borrow_mut(|caught| *caught = false);
    ran.unwrap_or_else(|_| failed(seed, panicked()))
}

fn panicked() -> Broken {
    let what = SAID.with_borrow_mut(Option::take).unwrap_or_default();
    Broken { code: "panic", what }
}

fn failed(trace: u64, broken: Broken) -> Outcome {
    let (marks, lines) = Default::default();
    Outcome { steps: 0, broken: Some(broken), trace, marks, lines, entries: 0, at: 0 }
}

/// The plan without what its failure does not need; `runs_max` bounds the search.
pub fn shortened(plan: &Plan, code: &str, runs_max: usize) -> Plan {
    let mut runs = 0;
    let mut fails = |plan: &Plan| {
        runs += 1;
        let broken = run(plan.clone(), Telling::Hash).broken;
        (broken.is_some_and(|broken| broken.code == code), runs >= runs_max)
    };
    let mut best = plan.clone();
    // What was to happen later has no part in it, unless it is that all did not come together in the end.
    let at = run(plan.clone(), Telling::Hash).at;
    best.steps.retain(|step| step.at <= at);
    best.heals = best.steps.len() == plan.steps.len();
    if !fails(&best).0 {
        best = plan.clone();
    }
    if best.heals {
        let mut less = best.clone();
        less.heals = false;
        if fails(&less).0 {
            best = less;
        }
    }
    let mut kinds: Vec<Act> = best.steps.iter().map(|step| step.act).collect();
    kinds.sort_unstable();
    kinds.dedup();
    for kind in kinds {
        let mut less = best.clone();
        less.steps.retain(|step| step.act != kind);
        if less.steps.len() < best.steps.len() {
            let (still, enough) = fails(&less);
            if still {
                best = less;
            }
            if enough {
                return best;
            }
        }
    }
    let mut len = best.steps.len().div_ceil(2);
    while len > 0 {
        let mut at = 0;
        while at < best.steps.len() {
            let mut less = best.clone();
            less.steps.drain(at..(at + len).min(less.steps.len()));
            let (still, enough) = fails(&less);
            match still {
                true => best = less,
                false => at += len,
            }
            if enough {
                return best;
            }
        }
        len /= 2;
    }
    best
}
