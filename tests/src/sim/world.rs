//! One run: devices, links between them, virtual time, and the events that are still to come.
//!
//! ```text
//! plan ─► acts ─► world ─► network (links)      host (the product)   disk
//!                   ├────► devices (start, stop, crash)
//!                   └────► ledger, check, oracle
//! ```
//!
//! Leaves out: threads. A run is one thread and a function of its plan.
//!
//! Invariants:
//! - events are handled in the order of their times and, at one time, in the order in which they came about;
//! - no real clock, no address, no hash order has a say.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use cas::IdKey;
use journal::kv::mem::MemKv;
use journal::signed::VerifiedEntry;
use journal::{DeviceId, GenesisSpec, Journal, Now, Op, Role, Signer};
use net::JournalHost as _;
use net::courier::{Courier, Done, Job, Order};
use net::locks::{LockOutcome, Scope};

use super::devices::Stop;
use super::disk::Disk;
use super::fail::{Broken, ensure};
use super::host::{Host, Signatures, Verified};
use super::ledger::{Held, Ledger, Who};
use super::marks::Marks;
use super::network::Net;
use super::plan::Plan;
use super::rng::Rng;
use super::user::{Loaded, Work};

/// Where the wall clocks begin, milliseconds since 1970.
const EPOCH_MS: u64 = 1_800_000_000_000;
/// Key of the chunk ids.
const ID_KEY: [u8; 32] = [1; 32];

/// One end of a session.
pub(crate) struct Link {
    pub(crate) conn: u64,
    pub(crate) courier: Courier,
    /// Batches whose entries the journal has taken in.
    pub(crate) taken: u64,
    /// Batches that came, and how many of them before the other's offer was complete.
    pub(crate) came: u64,
    pub(crate) offered: Option<u64>,
    /// When it began.
    pub(crate) since: u64,
}

/// One device.
pub(crate) struct Device {
    pub(crate) signer: Signer,
    pub(crate) id: DeviceId,
    pub(crate) disk: Disk,
    pub(crate) host: Option<Arc<Host>>,
    /// Counts starts: what was meant for an earlier process is lost.
    pub(crate) epoch: u64,
    /// What a process leaves of its state when it dies and the machine lives.
    pub(crate) state: MemKv,
    pub(crate) sessions: BTreeMap<Who, Link>,
    pub(crate) skew_ms: i64,
    pub(crate) asleep_until: u64,
    /// What happens as soon as it wakes.
    pub(crate) parked: Vec<Event>,
    /// Admitted by somebody.
    pub(crate) joined: bool,
    /// Has a journal on its disk.
    pub(crate) begun: bool,
    pub(crate) through: Option<DeviceId>,
    pub(crate) backup: Option<Disk>,
    pub(crate) loaded: Loaded,
    pub(crate) work: Option<Work>,
    pub(crate) held: Held,
    /// Contents whose bytes were written here.
    pub(crate) wrote: Vec<super::disk::Mark>,
    /// Writes what it must not.
    pub(crate) evil: bool,
    /// Came from a backup or a copy: its chain may fork, and what it forgot it may write anew.
    pub(crate) odd: bool,
    pub(crate) rotted: bool,
    pub(crate) restarting: bool,
    pub(crate) fetching: bool,
    /// How it stops when its disk dies.
    pub(crate) dies: Stop,
    /// A write failed: it goes on after a restart.
    pub(crate) fails: bool,
    /// Its disk is another one than before: what it held it may not hold now.
    pub(crate) forgot: bool,
    /// Own chunks that a sealed entry names.
    pub(crate) promised: Vec<cas::ChunkId>,
    /// Its part in session locks, while it runs.
    pub(crate) seat: Option<super::locks::Seat>,
    /// When it ran last.
    pub(crate) stopped_at: u64,
}

impl Device {
    pub(crate) fn runs(&self) -> bool {
        self.host.is_some()
    }
}

/// What is to happen.
pub(crate) enum Event {
    Step(usize),
    Dial(Who, Who),
    Accept(u64),
    Deliver {
        conn: u64,
        from: usize,
    },
    /// An end finds out that its connection is gone.
    Notice {
        conn: u64,
        end: usize,
    },
    Run {
        who: Who,
        epoch: u64,
        peer: Who,
        conn: u64,
        order: Order,
        job: Job,
    },
    Finish {
        who: Who,
        epoch: u64,
        peer: Who,
        conn: u64,
        order: Order,
        done: Done,
    },
    Seal {
        who: Who,
        epoch: u64,
    },
    Fetch {
        who: Who,
        epoch: u64,
    },
    Start(Who),
    Wake(Who),
    /// Something is said of locks.
    Word {
        conn: u64,
        from: usize,
    },
    LockTick {
        who: Who,
        epoch: u64,
    },
    Locked {
        who: Who,
        epoch: u64,
        scope: Scope,
        work: Box<Work>,
        outcome: LockOutcome,
    },
    Release {
        who: Who,
        epoch: u64,
        scope: Scope,
    },
    Flow(u64, usize),
}

struct Due {
    at: u64,
    turn: u64,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.turn) == (other.at, other.turn)
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.turn).cmp(&(other.at, other.turn))
    }
}

/// What is kept of a run beside its verdict.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Telling {
    /// Nothing but a hash.
    Hash,
    /// Every act, in words.
    Acts,
    /// Every event, in words.
    All,
}

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    /// Events handled.
    pub steps: u64,
    /// What was broken.
    pub broken: Option<Broken>,
    /// Hash of everything that happened.
    pub trace: u64,
    /// What came about.
    pub marks: Marks,
    /// What was asked to be told.
    pub lines: Vec<String>,
    /// Entries written.
    pub entries: usize,
    /// Virtual milliseconds that it took.
    pub at: u64,
}

/// See the module's words.
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) now: u64,
    turn: u64,
    due: BinaryHeap<Reverse<Due>>,
    pub(crate) rng: Rng,
    pub(crate) devices: Vec<Device>,
    pub(crate) net: Net,
    pub(crate) ledger: Ledger,
    pub(crate) verified: Arc<Verified>,
    pub(crate) genesis: VerifiedEntry,
    /// Secrets of invitations, and who issued them.
    pub(crate) invites: Vec<([u8; 32], Who)>,
    pub(crate) marks: Marks,
    pub(crate) steps: u64,
    pub(crate) healing: bool,
    pub(crate) locks: super::locks::Locks,
    pub(crate) stable: super::check::Stable,
    /// Entries that rotted on some disk.
    pub(crate) rotten: std::collections::BTreeSet<usize>,
    trace: u64,
    telling: Telling,
    pub(crate) lines: Vec<String>,
}

/// Longest time until everything must have met after the faults have stopped, virtual milliseconds.
const HEAL_MS: u64 = 600_000;
/// Most events before that.
const CHAOS_EVENTS: u64 = 1_000_000;
/// Most events until then.
const HEAL_EVENTS: u64 = 400_000;

impl World {
    pub(crate) fn new(plan: Plan, telling: Telling) -> Result<Self, Broken> {
        let first = signer(0);
        let spec = GenesisSpec {
            drive_name: "drive".into(),
            device_name: name_of(0),
            id_key: IdKey::from_bytes(ID_KEY),
            posix_owners: false,
        };
        let now = Now { wall_ms: EPOCH_MS };
        let genesis = Journal::genesis(&first, spec, now).expect("a genesis");
        let mut world = Self {
            now: 0,
            turn: 0,
            due: BinaryHeap::new(),
            rng: Rng::of(plan.seed, 2),
            devices: Vec::new(),
            net: Net::default(),
            ledger: Ledger::default(),
            verified: Arc::default(),
            genesis,
            invites: Vec::new(),
            marks: Marks::default(),
            steps: 0,
            healing: false,
            locks: super::locks::Locks::default(),
            stable: super::check::Stable::default(),
            rotten: std::collections::BTreeSet::new(),
            trace: plan.seed,
            telling,
            lines: Vec::new(),
            plan,
        };
        world.ledger.learn(world.genesis.clone(), 0)?;
        for who in 0..world.plan.devices {
            let device = world.device(signer(who), who);
            world.devices.push(device);
        }
        world.begin()?;
        Ok(world)
    }

    fn device(&self, signer: Signer, who: Who) -> Device {
        Device {
            id: signer.device(),
            signer,
            disk: Disk::new(self.plan.seed ^ (who as u64) << 32),
            host: None,
            epoch: 0,
            state: MemKv::default(),
            sessions: BTreeMap::new(),
            skew_ms: self.plan.skews.get(who).copied().unwrap_or_default(),
            asleep_until: 0,
            parked: Vec::new(),
            joined: false,
            begun: false,
            through: None,
            backup: None,
            loaded: Loaded::new(),
            work: None,
            held: Held::default(),
            wrote: Vec::new(),
            evil: false,
            odd: false,
            rotted: false,
            restarting: false,
            fetching: false,
            dies: Stop::Process,
            fails: false,
            forgot: false,
            promised: Vec::new(),
            seat: None,
            stopped_at: 0,
        }
    }

    /// Another live copy of a device's disk.
    pub(crate) fn clone_device(&mut self, of: Who) -> Who {
        let who = self.devices.len();
        let mut device = self.device(self.devices[of].signer.clone(), who);
        device.disk = self.devices[of].disk.copy();
        (device.joined, device.begun, device.odd) = (true, self.devices[of].begun, true);
        (device.evil, device.rotted) = (self.devices[of].evil, self.devices[of].rotted);
        device.through = self.devices[of].through;
        device.wrote = self.devices[of].wrote.clone();
        device.wrote.retain(|mark| device.disk.is_durable(mark));
        self.devices[of].odd = true;
        self.devices.push(device);
        who
    }

    /// The first device and those that belong from the begin.
    fn begin(&mut self) -> Result<(), Broken> {
        self.devices[0].joined = true;
        self.start(0)?;
        let count = self.plan.joined;
        let secret = self.invite_secret(0);
        let roles = [Role::Editor, Role::Editor, Role::Owner];
        let role = roles[self.rng.below(3)];
        let key = Signer::invite_public(&secret);
        let expires = EPOCH_MS + 1000 * 86_400_000;
        let mut ops = vec![Op::Invite { key, role, expires, uses: count as u32 }];
        let drive = self.genesis.id().into();
        for who in 1..count {
            let device = self.devices[who].id;
            let proof = journal::member::admit_proof(&secret, &drive, &device);
            ops.push(Op::Admit { invite: key, device, name: name_of(who), proof });
        }
        self.invites.push((secret, 0));
        let host = self.host(0).expect("the first device runs");
        host.set_wall(self.wall(0));
        host.author(ops).expect("the first entry");
        self.absorb(0)?;
        for who in 1..count {
            self.devices[who].joined = true;
            self.devices[who].through = Some(self.devices[0].id);
            self.start(who)?;
        }
        Ok(())
    }

    pub(crate) fn invite_secret(&self, number: u64) -> [u8; 32] {
        let mut rng = Rng::of(self.plan.seed, 1_000_000 + number);
        let mut secret = [0; 32];
        secret.chunks_mut(8).for_each(|part| part.copy_from_slice(&rng.next().to_le_bytes()));
        secret
    }

    pub(crate) fn id_key(&self) -> IdKey {
        IdKey::from_bytes(ID_KEY)
    }

    pub(crate) fn signatures(&self) -> Signatures {
        match self.plan.real_signatures {
            true => Signatures::Everywhere,
            false => Signatures::Once,
        }
    }

    /// What the wall clock of `who` shows.
    pub(crate) fn wall(&self, who: Who) -> u64 {
        (EPOCH_MS + self.now).saturating_add_signed(self.devices[who].skew_ms)
    }

    /// The running process of `who`, its clock set.
    pub(crate) fn host(&self, who: Who) -> Option<Arc<Host>> {
        let host = self.devices[who].host.clone()?;
        host.set_wall(self.wall(who));
        Some(host)
    }

    pub(crate) fn after(&mut self, delay_ms: u64, event: Event) {
        self.turn += 1;
        let due = Due { at: self.now + delay_ms, turn: self.turn, event };
        self.due.push(Reverse(due));
    }

    /// How long a call of a host takes.
    pub(crate) fn call_ms(&mut self) -> u64 {
        let most = if self.healing { 2 } else { self.plan.call_ms };
        self.rng.range(0, most)
    }

    /// How long a message is under way.
    pub(crate) fn latency_ms(&mut self) -> u64 {
        let most = if self.healing { 20 } else { self.plan.latency_ms };
        self.rng.range(1, most)
    }

    pub(crate) fn mix(&mut self, value: u64) {
        self.trace = (self.trace.rotate_left(7) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    /// Says an act.
    pub(crate) fn say(&mut self, what: impl FnOnce() -> String) {
        if self.telling != Telling::Hash {
            let line = format!("{:>9} ms  {}", self.now, what());
            self.lines.push(line);
        }
    }

    /// Says an event.
    pub(crate) fn whisper(&mut self, what: impl FnOnce() -> String) {
        if self.telling == Telling::All {
            let line = format!("{:>9} ms      {}", self.now, what());
            self.lines.push(line);
        }
    }

    /// The whole run.
    pub(crate) fn run(&mut self) -> Result<(), Broken> {
        for at in 0..self.plan.steps.len() {
            let due = self.plan.steps[at].at;
            self.after(due.saturating_sub(self.now), Event::Step(at));
        }
        let last = self.plan.steps.last().map_or(0, |step| step.at);
        while self.due.peek().is_some_and(|next| next.0.at <= last) {
            self.next()?;
            ensure("N-busy", self.steps < CHAOS_EVENTS, || "nothing comes to rest".into())?;
        }
        if !self.plan.heals {
            return Ok(());
        }
        self.heal()?;
        let (until, most) = (self.now + HEAL_MS, self.steps + HEAL_EVENTS);
        let mut looks = 0;
        loop {
            looks += 1;
            let over = self.now > until || self.steps > most;
            let last = over || self.due.is_empty();
            if (looks & 15 == 0 || last) && self.has_converged() && !self.finds_rot()? {
                break;
            }
            if over || self.due.is_empty() {
                return Err(self.diverged());
            }
            self.next()?;
        }
        self.check_end()
    }

    fn next(&mut self) -> Result<(), Broken> {
        let Some(Reverse(Due { at, turn, event })) = self.due.pop() else { return Ok(()) };
        self.now = at.max(self.now);
        self.steps += 1;
        self.mix(at ^ turn << 20);
        let who = self.whom(&event);
        if let Some(who) = who
            && self.devices[who].asleep_until > self.now
        {
            self.devices[who].parked.push(event);
            return Ok(());
        }
        match event {
            Event::Step(at) => self.act(self.plan.steps[at])?,
            Event::Dial(a, b) => self.dial(a, b),
            Event::Accept(conn) => self.accept(conn)?,
            Event::Deliver { conn, from } => self.deliver(conn, from)?,
            Event::Notice { conn, end } => self.notice(conn, end),
            Event::Run { who, epoch, peer, conn, order, job } => {
                self.run_call(who, epoch, peer, conn, order, job)?;
            }
            Event::Finish { who, epoch, peer, conn, order, done } => {
                self.finish_call(who, epoch, peer, conn, order, done)?;
            }
            Event::Seal { who, epoch } if self.devices[who].epoch == epoch => self.seal(who)?,
            Event::Fetch { who, epoch } if self.devices[who].epoch == epoch => self.fetch(who)?,
            Event::Seal { .. } | Event::Fetch { .. } => {}
            Event::Word { conn, from } => self.deliver_word(conn, from)?,
            Event::LockTick { who, epoch } if self.devices[who].epoch == epoch => {
                self.lock_tick(who)?;
            }
            Event::Locked { who, epoch, scope, work, outcome }
                if self.devices[who].epoch == epoch =>
            {
                if let Some(work) = self.decided(who, scope, *work, outcome) {
                    self.begin_work(who, work, 0)?;
                }
            }
            Event::Release { who, epoch, scope } if self.devices[who].epoch == epoch => {
                self.release(who, &scope);
            }
            Event::LockTick { .. } | Event::Locked { .. } | Event::Release { .. } => {}
            Event::Start(who) => {
                if std::mem::take(&mut self.devices[who].fails) {
                    self.stop(who, Stop::Process);
                    self.devices[who].restarting = false;
                }
                self.start(who)?;
            }
            Event::Wake(who) => self.wake(who),
            Event::Flow(conn, from) => self.flow(conn, from),
        }
        self.bury()?;
        self.check_locks()
    }

    /// A device wakes, if its time has come.
    pub(crate) fn wake(&mut self, who: Who) {
        if self.devices[who].asleep_until <= self.now {
            self.seat_wakes(who);
            for event in std::mem::take(&mut self.devices[who].parked) {
                self.after(0, event);
            }
            self.redial(who);
        }
    }

    /// The device that an event happens at.
    fn whom(&self, event: &Event) -> Option<Who> {
        match event {
            Event::Run { who, .. }
            | Event::Finish { who, .. }
            | Event::Seal { who, .. }
            | Event::Fetch { who, .. }
            | Event::LockTick { who, .. }
            | Event::Locked { who, .. }
            | Event::Release { who, .. }
            | Event::Start(who) => Some(*who),
            Event::Deliver { conn, from } | Event::Word { conn, from } => {
                self.net.end(*conn, 1 - from)
            }
            Event::Notice { conn, end } => self.net.end(*conn, *end),
            Event::Accept(conn) => self.net.end(*conn, 1),
            _ => None,
        }
    }

    /// Makes one call of a host. It is made even when its session has ended meanwhile: threads do not hear of that.
    fn run_call(
        &mut self,
        who: Who,
        epoch: u64,
        peer: Who,
        conn: u64,
        order: Order,
        job: Job,
    ) -> Result<(), Broken> {
        let Some(host) = self.host(who).filter(|_| self.devices[who].epoch == epoch) else {
            return Ok(());
        };
        let prepares = matches!(job, Job::Prepare);
        let link = self.devices[who].sessions.get(&peer).filter(|link| link.conn == conn);
        let behind = link.is_some_and(|link| Some(link.taken) < link.offered);
        ensure("N-late", !prepares || !behind, || {
            format!("device {who} judges its work before the offer of {peer} is taken in")
        })?;
        let of = self.devices[peer].id;
        let done = net::courier::run_job(&*host, of, job);
        self.absorb(who)?;
        if self.devices[who].disk.is_dead() {
            return Ok(());
        }
        if prepares && matches!(done, Done::Prepared(Ok(()))) {
            self.check_prepared(who)?;
        }
        let delay = self.call_ms();
        self.after(delay, Event::Finish { who, epoch, peer, conn, order, done });
        Ok(())
    }

    /// Brings a call's answer back to its session.
    fn finish_call(
        &mut self,
        who: Who,
        epoch: u64,
        peer: Who,
        conn: u64,
        order: Order,
        done: Done,
    ) -> Result<(), Broken> {
        if self.devices[who].epoch != epoch {
            return Ok(());
        }
        let live = self.devices[who].sessions.get_mut(&peer).filter(|link| link.conn == conn);
        let Some(link) = live else {
            // The session is gone; what the call did to the journal concerns the others all the same.
            if matches!(done, Done::Received { .. } | Done::Prepared(_)) {
                self.announce(who)?;
            }
            return Ok(());
        };
        match &done {
            Done::Received { received: Ok(_), .. } => link.taken += 1,
            Done::Collected(collected)
                if collected
                    .entries
                    .iter()
                    .any(|(id, _)| collected.unacknowledged.contains(id)) =>
            {
                self.marks.hit("exchange: held back until the offer is in");
            }
            _ => {}
        }
        let (changed, handled) = link.courier.handle_done(order, done);
        if changed == net::courier::Changed::Yes {
            self.announce(who)?;
        }
        match handled {
            Ok(()) => self.pump(who, peer),
            Err(fault) => {
                self.whisper(|| format!("d{who} ends the session with d{peer}: {fault:?}"));
                let theirs = matches!(fault, net::courier::Fault::Violation(_));
                if theirs {
                    self.marks.hit("exchange: session ended by the other's fault");
                }
                let spoilt = self.devices[peer].evil || self.devices[who].evil;
                ensure("N-fault", !theirs || spoilt, || {
                    format!("device {who} finds fault with {peer}, which is honest: {fault:?}")
                })?;
                self.end_session(who, peer);
                Ok(())
            }
        }
    }

    /// The journal of `who` holds something new: all its sessions look.
    pub(crate) fn announce(&mut self, who: Who) -> Result<(), Broken> {
        let peers: Vec<Who> = self.devices[who].sessions.keys().copied().collect();
        for peer in peers {
            if let Some(link) = self.devices[who].sessions.get_mut(&peer) {
                link.courier.handle_changed();
            }
            self.pump(who, peer)?;
        }
        Ok(())
    }

    /// Members as `who` sees them.
    pub(crate) fn sees_member(&self, who: Who, other: Who) -> bool {
        let other = self.devices[other].id;
        self.host(who).is_some_and(|host| host.is_member(other))
    }

    pub(crate) fn outcome(self, broken: Option<Broken>) -> Outcome {
        Outcome {
            steps: self.steps,
            broken,
            trace: self.trace,
            marks: self.marks,
            lines: self.lines,
            entries: self.ledger.entries.len(),
            at: self.now,
        }
    }
}

/// The key of the device with this number.
pub(crate) fn signer(who: Who) -> Signer {
    Signer::derive(&[who as u8 + 1; 32], &[7; 32])
}

/// Its name.
pub(crate) fn name_of(who: Who) -> String {
    ["Ann", "Bob", "Cat", "Dan", "Eve", "Fay", "Gus", "Hal", "Ida", "Joe"][who % 10].to_owned()
}
