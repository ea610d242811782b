//! The lock tables of three devices, searched through: every order of messages, claims and faults within bounds.
//!
//! The tables are those of the product. Around them stand what the product takes from outside: streams that keep order
//! and break at one end first, clocks that go 1 % wrong, devices that crash, start anew and sleep. Each [`Bounds`] says
//! how much of what may happen; within it the search is complete.
//!
//! Leaves out: the messages' bytes, threads.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use journal::id::{DeviceId, DirId};
use journal::name::{EntryName, Register};
use stateright::{Checker as _, HasDiscoveries, Model, Property};

use crate::limits;
use crate::locks::{Began, Belief, Effect, LockClaim, LockOutcome, Now, Rule, Scope, Spot, Table};
use crate::testing::Rng;
use crate::wire::locks::LockMessage;

mod promises;
mod searches;

const DEVICES: usize = 3;
const DIR: DirId = DirId::from_bytes([9; 32]);
/// How long a claim waits for the silent.
const PATIENCE_MS: u64 = 300;
/// When the search begins, by the right clock.
const START_MS: u64 = 1_000_000;

fn device(n: usize) -> DeviceId {
    DeviceId::from_bytes([n as u8 + 1; 32])
}

fn index(device: &DeviceId) -> usize {
    usize::from(device.as_bytes()[0]) - 1
}

fn register(file: u8) -> Register {
    Register::new(DIR, EntryName::new(if file == 0 { "a" } else { "b" }).unwrap())
}

/// What is claimed: one of two files, or the directory of both.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum What {
    File(u8),
    Both,
}

impl What {
    fn scope(self) -> Scope {
        match self {
            What::File(file) => Scope::Name(register(file)),
            What::Both => Scope::Below(DIR),
        }
    }
}

/// How the devices begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Begin {
    /// All know each other, and grant.
    Together,
    /// Nobody is connected; all grant.
    Apart,
    /// All know each other, and the first holds the first file.
    Held,
    /// Only the first and the third know each other, and the first holds the first file.
    HeldApart,
}

/// How much may happen in one search.
#[derive(Clone, Debug)]
struct Bounds {
    begin: Begin,
    what: &'static [What],
    /// Streams (from, to) on which what is said may be under way; on the others it arrives at once.
    slow: &'static [(usize, usize)],
    /// Devices that claim.
    claimants: &'static [usize],
    /// With which logical times: any order of them.
    priorities: &'static [u64],
    claims: u8,
    releases: u8,
    /// How long each pause may be; all of them are at most `pauses`.
    pause_ms: &'static [u64],
    pauses: u8,
    breaks: u8,
    connects: u8,
    crashes: u8,
    sleeps: u8,
    broken: Option<Rule>,
}

const EVERYWHERE: &[(usize, usize)] = &[(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)];

const CALM: Bounds = Bounds {
    slow: EVERYWHERE,
    begin: Begin::Together,
    what: &[What::File(0)],
    claimants: &[0, 1, 2],
    priorities: &[1, 2],
    claims: 2,
    releases: 0,
    pause_ms: &[],
    pauses: 0,
    breaks: 0,
    connects: 0,
    crashes: 0,
    sleeps: 0,
    broken: None,
};

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Body {
    Awake,
    /// Since this time, by the right clock.
    Asleep(u64),
    /// Since this time.
    Dead(u64),
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Host {
    table: Table,
    body: Body,
    runs: u64,
    /// Streams of which this end still thinks that they stand.
    open: BTreeSet<usize>,
    /// What it held when it fell asleep for longer than the lease.
    slept_on: Vec<u64>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Left {
    claims: u8,
    releases: u8,
    pauses: u8,
    breaks: u8,
    connects: u8,
    crashes: u8,
    sleeps: u8,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct World {
    t_ms: u64,
    hosts: Vec<Host>,
    /// (from, to): what is under way. No entry: no stream in that direction.
    lines: BTreeMap<(usize, usize), VecDeque<LockMessage>>,
    left: Left,
    /// Who claimed what, ever.
    claimed: BTreeSet<(usize, What)>,
    /// (from, to): when something of a dead device arrived.
    last_words: BTreeMap<(usize, usize), u64>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Act {
    Claim(usize, What, u64),
    Release(usize, What),
    Deliver(usize, usize),
    Pause(u64),
    /// The first notices that its stream to the second is gone.
    Break(usize, usize),
    Connect(usize, usize),
    Crash(usize),
    Start(usize),
    Sleep(usize),
    Wake(usize),
}

/// Each clock is wrong by as much as leases allow for; the wall clocks are of no use at all.
fn now_of(host: usize, t_ms: u64) -> Now {
    let boot_ms = match host {
        0 => t_ms + t_ms / 100,
        1 => t_ms - t_ms / 100,
        _ => t_ms,
    };
    let wall_ms = if t_ms.is_multiple_of(2) { 0 } else { u64::MAX / 4 };
    Now { boot_ms, wall_ms }
}

impl Bounds {
    fn table(&self, host: usize, run: u64, t_ms: u64) -> Table {
        let mut table = Table::new(device(host), run, now_of(host, t_ms)).breaking(self.broken);
        let others: BTreeSet<DeviceId> = (0..DEVICES).filter(|n| *n != host).map(device).collect();
        table.handle_members(now_of(host, t_ms), others.clone(), others);
        table
    }

    fn begin(&self) -> World {
        let hosts = (0..DEVICES)
            .map(|n| Host {
                // Long enough ago that all grant.
                table: self.table(n, 1, START_MS - 2 * limits::LOCK_LEASE_MS),
                body: Body::Awake,
                runs: 1,
                open: BTreeSet::new(),
                slept_on: Vec::new(),
            })
            .collect();
        let mut world = World {
            t_ms: START_MS,
            hosts,
            lines: BTreeMap::new(),
            left: Left {
                claims: self.claims,
                releases: self.releases,
                pauses: self.pauses,
                breaks: self.breaks,
                connects: self.connects,
                crashes: self.crashes,
                sleeps: self.sleeps,
            },
            claimed: BTreeSet::new(),
            last_words: BTreeMap::new(),
        };
        for n in 0..DEVICES {
            world.hosts[n].table.handle_time(now_of(n, START_MS));
            world.carry_out(n);
        }
        let pairs: &[(usize, usize)] = match self.begin {
            Begin::Together | Begin::Held => &[(0, 1), (0, 2), (1, 2)],
            Begin::HeldApart => &[(0, 2)],
            Begin::Apart => &[],
        };
        for (a, b) in pairs {
            world.connect(*a, *b);
        }
        world.deliver_quick(&[]);
        if matches!(self.begin, Begin::Held | Begin::HeldApart) {
            world.claim(0, What::File(0), 1);
            world.deliver_quick(&[]);
        }
        world
    }
}

impl World {
    fn now(&self, host: usize) -> Now {
        now_of(host, self.t_ms)
    }

    fn is_awake(&self, host: usize) -> bool {
        self.hosts[host].body == Body::Awake
    }

    fn is_alive(&self, host: usize) -> bool {
        !matches!(self.hosts[host].body, Body::Dead(_))
    }

    fn carry_out(&mut self, host: usize) {
        while let Some(effect) = self.hosts[host].table.poll_effect() {
            match effect {
                Effect::Send { to, message } => {
                    // Into a stream whose other end is gone: nowhere.
                    if let Some(line) = self.lines.get_mut(&(host, index(&to))) {
                        line.push_back(message);
                    }
                }
                Effect::Judge { to, id, .. } => {
                    let now = self.now(host);
                    self.hosts[host].table.handle_judged(now, to, id, false);
                }
                Effect::Lost(_) | Effect::Decided { .. } | Effect::Changed(_) => {}
            }
        }
    }

    fn connect(&mut self, a: usize, b: usize) {
        // An end that had not noticed that the stream before is gone does so now, and says nothing more on it.
        for (host, other) in [(a, b), (b, a)] {
            self.lines.remove(&(host, other));
            if self.hosts[host].open.contains(&other) {
                self.break_end(host, other);
            }
        }
        for (host, other) in [(a, b), (b, a)] {
            self.lines.insert((host, other), VecDeque::new());
            self.hosts[host].open.insert(other);
        }
        for (host, other) in [(a, b), (b, a)] {
            let now = self.now(host);
            self.hosts[host].table.handle_connected(now, device(other));
            self.carry_out(host);
        }
    }

    fn claim(&mut self, host: usize, what: What, priority: u64) {
        self.claimed.insert((host, what));
        let scope = what.scope();
        let claim = LockClaim { scope, above: vec![DIR], bases: Vec::new(), priority };
        let now = self.now(host);
        let began = self.hosts[host].table.claim(now, claim, PATIENCE_MS);
        self.carry_out(host);
        assert_ne!(began, Began::Decided(LockOutcome::Closed), "nothing closes a table");
    }

    fn break_end(&mut self, host: usize, other: usize) {
        self.hosts[host].open.remove(&other);
        self.lines.remove(&(other, host));
        let now = self.now(host);
        self.hosts[host].table.handle_disconnected(now, device(other));
        self.carry_out(host);
    }

    fn deliver(&mut self, from: usize, to: usize) -> Option<()> {
        let message = self.lines.get_mut(&(from, to))?.pop_front()?;
        if !self.is_alive(from) {
            self.last_words.insert((from, to), self.t_ms);
        }
        let now = self.now(to);
        let handled = self.hosts[to].table.handle_message(now, device(from), message);
        assert_eq!(handled, Ok(()), "an honest device breaks the protocol");
        self.carry_out(to);
        Some(())
    }

    /// What is under way on the streams that are not slow arrives.
    fn deliver_quick(&mut self, slow: &[(usize, usize)]) {
        let next = |world: &Self| {
            let quick = |ends: &(usize, usize)| !slow.contains(ends) && world.is_awake(ends.1);
            let mut lines = world.lines.iter().filter(|(_, line)| !line.is_empty());
            lines.find(|(ends, _)| quick(ends)).map(|(ends, _)| *ends)
        };
        while let Some((from, to)) = next(self) {
            self.deliver(from, to);
        }
    }

    fn pause(&mut self, pause_ms: u64, slow: &[(usize, usize)]) {
        let end_ms = self.t_ms + pause_ms;
        while self.t_ms < end_ms {
            self.t_ms = end_ms.min(self.t_ms + limits::LOCK_TICK_MS);
            for host in 0..DEVICES {
                if self.is_awake(host) {
                    let now = self.now(host);
                    self.hosts[host].table.handle_time(now);
                    self.carry_out(host);
                }
            }
            self.deliver_quick(slow);
        }
    }

    fn beliefs(&self) -> Vec<(usize, Belief)> {
        let alive = (0..DEVICES).filter(|host| self.is_alive(*host));
        alive
            .flat_map(|host| {
                let beliefs = self.hosts[host].table.beliefs(self.now(host));
                beliefs.into_iter().map(move |belief| (host, belief))
            })
            .collect()
    }

    /// Pairs of beliefs of two devices that exclude each other.
    fn clashes(&self) -> Vec<(usize, Belief, usize, Belief)> {
        let beliefs = self.beliefs();
        let mut clashes = Vec::new();
        for (n, (a, first)) in beliefs.iter().enumerate() {
            for (b, second) in beliefs.iter().skip(n + 1) {
                if a != b && first.overlaps(second) {
                    clashes.push((*a, first.clone(), *b, second.clone()));
                }
            }
        }
        clashes
    }

    fn is_under_way(&self, a: usize, b: usize) -> bool {
        [(a, b), (b, a)].iter().any(|ends| self.lines.get(ends).is_some_and(|l| !l.is_empty()))
    }

    fn have_met(&self, a: usize, b: usize) -> bool {
        let met = |x: usize, y: usize| self.hosts[x].table.met().contains(&device(y));
        met(a, b) && met(b, a) && self.is_awake(a) && self.is_awake(b)
    }

    /// Everything that was said has arrived.
    fn is_silent(&self) -> bool {
        self.lines.values().all(VecDeque::is_empty)
    }
}

impl Model for Bounds {
    type State = World;
    type Action = Act;

    fn init_states(&self) -> Vec<World> {
        vec![self.begin()]
    }

    fn actions(&self, world: &World, acts: &mut Vec<Act>) {
        let left = &world.left;
        let hosts = 0..DEVICES;
        for host in hosts.clone().filter(|host| world.is_awake(*host)) {
            for what in self.what {
                if left.claims > 0 && self.claimants.contains(&host) {
                    let claim = |priority: &u64| Act::Claim(host, *what, *priority);
                    acts.extend(self.priorities.iter().map(claim));
                }
                let held = world.hosts[host].table.beliefs(world.now(host));
                if left.releases > 0 && held.iter().any(|held| held.scope == what.scope()) {
                    acts.push(Act::Release(host, *what));
                }
            }
            if left.crashes > 0 {
                acts.push(Act::Crash(host));
            }
            if left.sleeps > 0 {
                acts.push(Act::Sleep(host));
            }
        }
        for ((from, to), line) in &world.lines {
            if !line.is_empty() && world.is_awake(*to) {
                acts.push(Act::Deliver(*from, *to));
            }
        }
        if left.pauses > 0 {
            acts.extend(self.pause_ms.iter().map(|ms| Act::Pause(*ms)));
        }
        for a in hosts.clone() {
            for b in hosts.clone().filter(|b| *b != a && world.is_awake(a)) {
                let (here, there) =
                    (world.hosts[a].open.contains(&b), world.hosts[b].open.contains(&a));
                // After the first end it is a matter of time.
                if here && (left.breaks > 0 || !there || !world.is_alive(b)) {
                    acts.push(Act::Break(a, b));
                }
                if a < b && left.connects > 0 && world.is_awake(b) && !(here && there) {
                    acts.push(Act::Connect(a, b));
                }
            }
        }
        for host in hosts {
            match world.hosts[host].body {
                Body::Awake => {}
                Body::Asleep(_) => acts.push(Act::Wake(host)),
                Body::Dead(_) => acts.push(Act::Start(host)),
            }
        }
    }

    fn next_state(&self, world: &World, act: Act) -> Option<World> {
        let mut world = world.clone();
        match act {
            Act::Claim(host, what, priority) => {
                world.left.claims -= 1;
                world.claim(host, what, priority);
            }
            Act::Release(host, what) => {
                world.left.releases -= 1;
                let now = world.now(host);
                world.hosts[host].table.release(now, &what.scope());
                world.carry_out(host);
            }
            Act::Deliver(from, to) => world.deliver(from, to)?,
            Act::Pause(ms) => {
                world.left.pauses -= 1;
                world.pause(ms, self.slow);
            }
            Act::Break(a, b) => {
                let there = world.hosts[b].open.contains(&a) && world.is_alive(b);
                world.left.breaks -= u8::from(there);
                world.break_end(a, b);
            }
            Act::Connect(a, b) => {
                world.left.connects -= 1;
                world.connect(a, b);
            }
            Act::Crash(host) => {
                world.left.crashes -= 1;
                world.hosts[host].body = Body::Dead(world.t_ms);
                world.hosts[host].open.clear();
                // What it sent before may still arrive; nothing arrives at it.
                world.lines.retain(|(_, to), _| *to != host);
            }
            Act::Start(host) => {
                let runs = world.hosts[host].runs + 1;
                let table = self.table(host, runs, world.t_ms);
                let open = BTreeSet::new();
                world.hosts[host] =
                    Host { table, body: Body::Awake, runs, open, slept_on: Vec::new() };
                world.carry_out(host);
            }
            Act::Sleep(host) => {
                world.left.sleeps -= 1;
                world.hosts[host].body = Body::Asleep(world.t_ms);
            }
            Act::Wake(host) => {
                let Body::Asleep(since_ms) = world.hosts[host].body else { return None };
                let slept_ms = world.now(host).boot_ms - now_of(host, since_ms).boot_ms;
                if slept_ms >= limits::LOCK_LEASE_MS {
                    let held = world.hosts[host].table.beliefs(now_of(host, since_ms));
                    world.hosts[host].slept_on = held.iter().map(|belief| belief.id).collect();
                }
                world.hosts[host].body = Body::Awake;
                let now = world.now(host);
                world.hosts[host].table.handle_time(now);
                world.carry_out(host);
            }
        }
        world.deliver_quick(self.slow);
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        promises::all()
    }
}
