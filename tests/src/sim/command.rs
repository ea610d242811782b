//! `sim run|replay|canaries`: the simulator from the command line.
//!
//! Leaves out: deciding anything; this reads arguments, hands seeds to threads and prints.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::fail::Broken;
use super::marks::Marks;
use super::plan::Plan;
use super::run::{keep_panics, run, shortened};
use super::world::Telling;

/// Acts of a seed, unless more or fewer are asked for.
pub const STEPS: usize = 250;
/// Runs spent on making a failing plan short.
const SHORTEN_RUNS: usize = 500;
/// Every so many seeds one is run twice.
const TWICE_EVERY: u64 = 50;
/// Seeds of which a bug must not survive all.
#[cfg(debug_assertions)]
const CANARY_SEEDS: u64 = 1000;

const USAGE: &str =
    "usage: sim run [--seeds A..B] [--steps N] [--threads N] [--minutes M] [--events N] [--go-on] [--locks]
       sim replay SEED [--steps N] [--trace] [--short] [--locks]
       sim canaries [--seeds N] [--steps N] [--threads N] [NAME...]";

struct Options {
    seeds: (u64, u64),
    steps: usize,
    threads: usize,
    minutes: Option<u64>,
    events: Option<u64>,
    go_on: bool,
    trace: bool,
    short: bool,
    /// Programs ask for session locks in every seed.
    locks: bool,
    words: Vec<String>,
}

fn parse(arguments: &[String]) -> Option<Options> {
    let mut options = Options {
        seeds: (0, u64::MAX),
        steps: STEPS,
        threads: 2,
        minutes: None,
        events: None,
        go_on: false,
        trace: false,
        short: false,
        locks: false,
        words: Vec::new(),
    };
    let mut rest = arguments.iter();
    while let Some(word) = rest.next() {
        match word.as_str() {
            "--seeds" => {
                let range = rest.next()?;
                options.seeds = match range.split_once("..") {
                    Some((from, to)) => (from.parse().ok()?, to.parse().ok()?),
                    None => (0, range.parse().ok()?),
                };
            }
            "--steps" => options.steps = rest.next()?.parse().ok()?,
            "--threads" => options.threads = rest.next()?.parse().ok()?,
            "--minutes" => options.minutes = Some(rest.next()?.parse().ok()?),
            "--events" => options.events = Some(rest.next()?.parse().ok()?),
            "--go-on" => options.go_on = true,
            "--trace" => options.trace = true,
            "--short" => options.short = true,
            "--locks" => options.locks = true,
            word if word.starts_with("--") => return None,
            word => options.words.push(word.to_owned()),
        }
    }
    Some(options)
}

/// Runs the command; the exit code: 0 when all held, 1 when something was broken, 2 for wrong arguments.
pub fn main(arguments: &[String]) -> u8 {
    let Some((what, rest)) = arguments.split_first() else {
        eprintln!("{USAGE}");
        return 2;
    };
    let Some(options) = parse(rest) else {
        eprintln!("{USAGE}");
        return 2;
    };
    keep_panics();
    match what.as_str() {
        "run" => run_many(&options),
        "replay" => replay(&options),
        "canaries" => canaries(&options),
        _ => {
            eprintln!("{USAGE}");
            2
        }
    }
}

fn plan_of(seed: u64, options: &Options) -> Plan {
    let plan = Plan::of(seed, options.steps);
    Plan { session_locks: plan.session_locks || options.locks, ..plan }
}

/// What all threads have seen.
#[derive(Default)]
struct Totals {
    marks: Marks,
    failed: Vec<(u64, Broken)>,
    entries: u64,
}

fn run_many(options: &Options) -> u8 {
    let (from, to) = options.seeds;
    println!("seeds from {from}, {} acts each", options.steps);
    let began = Instant::now();
    let limit = options.minutes.map(|m| Duration::from_secs(m * 60));
    let next = AtomicU64::new(from);
    let (events, seeds) = (AtomicU64::new(0), AtomicU64::new(0));
    let stop = AtomicBool::new(false);
    let totals = Mutex::new(Totals::default());
    std::thread::scope(|scope| {
        for _ in 0..options.threads.max(1) {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let enough =
                        options.events.is_some_and(|e| events.load(Ordering::Relaxed) >= e)
                            || limit.is_some_and(|limit| began.elapsed() > limit);
                    if seed >= to || enough {
                        break;
                    }
                    let outcome = run(plan_of(seed, options), Telling::Hash);
                    let mut broken = outcome.broken;
                    if seed.is_multiple_of(TWICE_EVERY) && broken.is_none() {
                        let again = run(plan_of(seed, options), Telling::Hash);
                        if again.trace != outcome.trace {
                            let what = "the same seed went another way".to_owned();
                            broken = Some(Broken { code: "S4", what });
                        }
                    }
                    events.fetch_add(outcome.steps, Ordering::Relaxed);
                    seeds.fetch_add(1, Ordering::Relaxed);
                    let mut totals = totals.lock().unwrap_or_else(PoisonError::into_inner);
                    totals.marks.join(&outcome.marks);
                    totals.entries += outcome.entries as u64;
                    if let Some(broken) = broken {
                        println!("FAILED seed {seed}: {broken}");
                        totals.failed.push((seed, broken));
                        stop.store(!options.go_on, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let totals = totals.into_inner().unwrap_or_else(PoisonError::into_inner);
    let (events, seeds) = (events.into_inner(), seeds.into_inner());
    let seconds = began.elapsed().as_secs_f64();
    for (mark, count) in totals.marks.iter() {
        println!("{count:>12}  {mark}");
    }
    for (mark, count) in totals.marks.below(100) {
        println!("RARE {count:>7}  {mark}");
    }
    println!(
        "{seeds} seeds, {events} events, {} entries in {seconds:.0} s: {:.0} events a second",
        totals.entries,
        events as f64 / seconds
    );
    let mut code = 0;
    for (seed, broken) in totals.failed {
        code = 1;
        if options.go_on {
            println!("FAILED seed {seed}: {broken}");
            continue;
        }
        tell_short(&Plan::of(seed, options.steps), &broken);
    }
    code
}

/// Prints a failing plan without what it does not need.
fn tell_short(plan: &Plan, broken: &Broken) {
    println!("seed {}: {broken}", plan.seed);
    let short = shortened(plan, broken.code, SHORTEN_RUNS);
    println!("{} acts of {} are left:", short.steps.len(), plan.steps.len());
    let outcome = run(short, Telling::Acts);
    outcome.lines.iter().for_each(|line| println!("{line}"));
    if let Some(broken) = outcome.broken {
        println!("{broken}");
    }
}

fn replay(options: &Options) -> u8 {
    let Some(seed) = options.words.first().and_then(|word| word.parse().ok()) else {
        eprintln!("{USAGE}");
        return 2;
    };
    println!("seed {seed}");
    let mut plan = plan_of(seed, options);
    let found = run(plan.clone(), Telling::Hash).broken;
    if options.short
        && let Some(broken) = &found
    {
        plan = shortened(&plan, broken.code, SHORTEN_RUNS);
    }
    println!(
        "{} devices, {} of them from the begin; contents: {}; skews {:?}",
        plan.devices, plan.joined, plan.contents, plan.skews
    );
    let telling = if options.trace { Telling::All } else { Telling::Acts };
    let outcome = run(plan, telling);
    outcome.lines.iter().for_each(|line| println!("{line}"));
    println!("{} events, {} entries, trace {:016x}", outcome.steps, outcome.entries, outcome.trace);
    match outcome.broken {
        Some(broken) => {
            println!("FAILED {broken}");
            1
        }
        None => 0,
    }
}

#[cfg(not(debug_assertions))]
fn canaries(_options: &Options) -> u8 {
    eprintln!("the bugs are only in a build with debug assertions");
    2
}

#[cfg(debug_assertions)]
fn canaries(options: &Options) -> u8 {
    use super::canaries::Bug;
    let named = |bug: &Bug| options.words.is_empty() || options.words.contains(&bug.name());
    let wanted: Vec<Bug> = Bug::all().into_iter().filter(named).collect();
    let seeds = if options.seeds.1 == u64::MAX { CANARY_SEEDS } else { options.seeds.1 };
    println!("seeds from {}, at most {seeds} each", options.seeds.0);
    let next = AtomicU64::new(0);
    let missed = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..options.threads.max(1) {
            scope.spawn(|| {
                while let Some(bug) =
                    wanted.get(next.fetch_add(1, Ordering::Relaxed) as usize).copied()
                {
                    let first = options.seeds.0;
                    let life = super::canaries::hunt(bug, first, seeds, options.steps);
                    let name = bug.name();
                    match life.found {
                        Some((seed, broken)) => println!(
                            "{name}: survived {} seeds, found by {seed}: {}",
                            life.survived, broken.code
                        ),
                        None => {
                            missed.fetch_add(1, Ordering::Relaxed);
                            println!("{name}: NOT FOUND in {seeds} seeds");
                        }
                    }
                }
            });
        }
    });
    u8::from(missed.into_inner() > 0)
}
