//! What is done to a cluster from outside: a list drawn from the seed before the run begins.
//!
//! Leaves out: what becomes of it ([`super::world`]). Each act has chances of its own, so that a list from which acts are
//! taken away does the rest as before: that is what makes a failure short.

use super::rng::Rng;

/// One thing that is done.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Act {
    /// Somebody works.
    User,
    /// Somebody opens a file and saves it much later.
    Load,
    /// A connection breaks.
    Cut,
    /// A connection breaks and one end does not notice.
    HalfOpen,
    /// One direction of a connection stands still.
    Clog,
    /// Directions flow again, one after the other in any order.
    Unclog,
    /// Some cannot reach others, perhaps in one direction only.
    Part,
    /// All can reach all.
    Meet,
    /// Entries arrive twice, out of order, in odd batches.
    Odd,
    /// A process dies between two calls.
    Crash,
    /// A process dies within a write.
    CrashInWrite,
    /// The power goes between two calls.
    Power,
    /// The power goes within a write.
    PowerInWrite,
    /// The next sync fails.
    SyncFails,
    /// The next append fails.
    AppendFails,
    /// A disk fills up.
    Full,
    /// There is room again.
    Room,
    /// A bit rots.
    Rot,
    /// A wall clock jumps.
    Jump,
    /// A device sleeps.
    Sleep,
    /// A backup is made.
    Backup,
    /// A backup is restored.
    Restore,
    /// A disk is cloned: both live on.
    Clone,
    /// A device joins.
    Join,
    /// A member is removed.
    Remove,
    /// A role changes.
    Role,
    /// A removed member, and its work, is taken back in.
    TakeBack,
    /// A member writes what it must not.
    Malice,
    /// A member sends bytes that mean nothing.
    Garbage,
    /// A long time passes.
    Wait,
}

/// All acts but work, with how often they come about beside it, per thousand, when they are on.
const ACTS: [(Act, u64); 29] = [
    (Act::Load, 60),
    (Act::Cut, 60),
    (Act::HalfOpen, 40),
    (Act::Clog, 40),
    (Act::Unclog, 40),
    (Act::Part, 40),
    (Act::Meet, 40),
    (Act::Odd, 30),
    (Act::Crash, 30),
    (Act::CrashInWrite, 30),
    (Act::Power, 30),
    (Act::PowerInWrite, 30),
    (Act::SyncFails, 15),
    (Act::AppendFails, 15),
    (Act::Full, 15),
    (Act::Room, 20),
    (Act::Rot, 10),
    (Act::Jump, 15),
    (Act::Sleep, 20),
    (Act::Backup, 15),
    (Act::Restore, 12),
    (Act::Clone, 5),
    (Act::Join, 25),
    (Act::Remove, 8),
    (Act::Role, 10),
    (Act::TakeBack, 10),
    (Act::Malice, 40),
    (Act::Garbage, 10),
    (Act::Wait, 15),
];

/// One act at a time, with chances of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Step {
    /// Virtual milliseconds since the begin.
    pub at: u64,
    /// What.
    pub act: Act,
    /// Where its chances come from.
    pub salt: u64,
}

/// One run as it is meant.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed of everything.
    pub seed: u64,
    /// Devices there are.
    pub devices: usize,
    /// Those that belong from the begin; the others may join.
    pub joined: usize,
    /// Whether files have bytes in a store, too.
    pub contents: bool,
    /// Whether every device checks signatures itself.
    pub real_signatures: bool,
    /// Longest way of a message, milliseconds.
    pub latency_ms: u64,
    /// Longest call of a host, milliseconds.
    pub call_ms: u64,
    /// Differences of wall clocks, milliseconds.
    pub skews: Vec<i64>,
    /// Whether people take names for themselves, give them back and break each other's hold.
    pub locks: bool,
    /// Whether programs ask for session locks before they write.
    pub session_locks: bool,
    /// A rule of session locks that no device keeps to.
    #[cfg(debug_assertions)]
    pub broken_rule: Option<net::locks::Rule>,
    /// Whether the run goes on until all have come together.
    pub heals: bool,
    /// What is done.
    pub steps: Vec<Step>,
}

impl Plan {
    /// The plan of a seed: with `steps` acts.
    pub fn of(seed: u64, steps: usize) -> Self {
        let mut rng = Rng::of(seed, 1);
        let devices = 2 + [0, 1, 1, 2, 2, 3, 4, 6][rng.below(8)];
        let joined = if rng.chance(70) { devices } else { 1 + rng.below(devices) };
        let mut weights = Vec::new();
        for (act, weight) in ACTS {
            // Swarm: of the faults each seed has some, weakly or strongly, and lacks the others.
            let strength = match rng.below(4) {
                0 | 1 => 0,
                2 => weight,
                _ => weight * 3,
            };
            weights.push((act, strength));
        }
        if joined < devices {
            weights.push((Act::Join, 60));
        }
        let total: u64 = 1000 + weights.iter().map(|(_, weight)| weight).sum::<u64>();
        let mut at = 0;
        let mut list = Vec::new();
        for salt in 0..steps as u64 {
            at += match rng.below(20) {
                0..8 => rng.range(0, 3),
                8..16 => rng.range(3, 60),
                16..19 => rng.range(60, 1000),
                _ => rng.range(1000, 20_000),
            };
            let mut drawn = rng.next() % total;
            let mut act = Act::User;
            for (other, weight) in &weights {
                if drawn < *weight {
                    act = *other;
                    break;
                }
                drawn -= weight;
            }
            if act == Act::Wait {
                at += [600_000, 86_400_000, 7 * 86_400_000][rng.below(3)];
            }
            list.push(Step { at, act, salt: salt + 100 });
        }
        let skew = |rng: &mut Rng| match rng.below(8) {
            0..5 => 0,
            5 => rng.range(0, 80) as i64 - 40,
            6 => rng.range(0, 20_000) as i64 - 10_000,
            _ => (rng.range(0, 2) as i64 - 1) * 3 * 365 * 86_400_000,
        };
        Self {
            seed,
            devices,
            joined,
            contents: rng.chance(40),
            real_signatures: rng.chance(5),
            latency_ms: [2, 20, 20, 200][rng.below(4)],
            call_ms: [0, 2, 2, 40][rng.below(4)],
            skews: (0..devices + 2).map(|_| skew(&mut rng)).collect(),
            // Not drawn: the seeds that once failed go on as they did.
            locks: matches!(seed % 6, 3 | 5),
            session_locks: matches!(seed % 8, 5..),
            #[cfg(debug_assertions)]
            broken_rule: None,
            heals: true,
            steps: list,
        }
    }
}
