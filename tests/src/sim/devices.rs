//! Devices start, stop, die and come back; what they write and take in is brought to the ledger.
//!
//! Leaves out: connections ([`super::network`]).
//!
//! Invariants:
//! - a start is the product's own recovery over whatever the disk has left;
//! - what a call promised before a crash is there after it (C1), unless the disk came from a backup or rotted.

use std::sync::Arc;

use journal::kv::mem::MemKv;
use journal::op::Value;
use journal::state::State;
use journal::{AppendError, EntryId, Journal, Op, OpenError};

use super::disk::Mark;
use super::fail::{Broken, ensure};
use super::host::{self, Host, Parts, Told};
use super::ledger::Who;
use super::rng::Rng;
use super::world::{Event, World};

/// Most chunks brought in at one go.
const FETCH_MAX: usize = 8;

/// How a device stops.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stop {
    /// Its process dies; the kernel keeps what it wrote.
    Process,
    /// The power goes.
    Power,
}

impl World {
    /// Starts a device that has been admitted.
    pub(crate) fn start(&mut self, who: Who) -> Result<(), Broken> {
        if self.devices[who].runs() || !self.devices[who].joined {
            return Ok(());
        }
        self.devices[who].restarting = false;
        self.devices[who].disk.revive();
        let device = &self.devices[who];
        let (disk, state) = (device.disk.clone(), device.state.clone());
        let opened = match device.begun {
            true => host::open(&disk, state),
            false => self.adopt(who),
        };
        let journal = match opened {
            Ok(journal) => journal,
            Err(error) => return self.start_failed(who, &error),
        };
        self.devices[who].begun = true;
        let store = match self.plan.contents.then(|| host::open_store(&disk, self.id_key())) {
            None => None,
            Some(Ok(store)) => Some(store),
            Some(Err(error)) => {
                let full = matches!(error, cas::OpenError::Full);
                let excused = full || disk.is_dead() || self.devices[who].rotted;
                ensure("C6", excused, || {
                    format!("the store of device {who} does not open: {error}")
                })?;
                return self.start_later(who);
            }
        };
        if disk.is_dead() {
            return self.start_later(who);
        }
        let device = &self.devices[who];
        let (signer, through) = (device.signer.clone(), device.through);
        let parts = Parts { journal, store };
        let verified = Arc::clone(&self.verified);
        let host = Arc::new(Host::new(parts, signer, through, self.signatures(), verified));
        self.devices[who].host = Some(Arc::clone(&host));
        self.devices[who].epoch += 1;
        self.check_started(who, &host)?;
        self.seat_up(who);
        self.want_contents(who);
        self.redial(who);
        Ok(())
    }

    fn adopt(&self, who: Who) -> Result<Journal, OpenError> {
        let device = &self.devices[who];
        let (storage, state) = (Arc::new(device.disk.log()), device.state.clone());
        let begun = Journal::begin_with(storage, State::Memory(state), &self.genesis, None);
        begun.map_err(|error| match error {
            journal::CreateError::Open(error) => error,
            _ => OpenError::Missing { path: "log".into() },
        })
    }

    fn start_failed(&mut self, who: Who, error: &OpenError) -> Result<(), Broken> {
        let device = &self.devices[who];
        let excused = device.disk.is_dead() || !device.begun || is_full(error);
        self.say(|| format!("d{who} does not start: {error}"));
        ensure("C6", excused, || format!("the journal of device {who} does not open: {error:?}"))?;
        self.start_later(who)
    }

    fn start_later(&mut self, who: Who) -> Result<(), Broken> {
        if self.devices[who].disk.is_dead() && self.rng.chance(50) {
            let mut rng = self.rng.clone();
            self.devices[who].disk.lose_power(&mut rng);
            self.devices[who].state = MemKv::default();
            self.rng = rng;
        }
        if !self.devices[who].begun {
            self.marks.hit("recovery: joined again after a crash in the join");
            self.devices[who].state = MemKv::default();
        }
        self.devices[who].restarting = true;
        let delay = self.rng.range(500, 3000);
        self.after(delay, Event::Start(who));
        Ok(())
    }

    /// Compares what a start found with what was promised before.
    fn check_started(&mut self, who: Who, host: &Host) -> Result<(), Broken> {
        // What was written and never promised may have survived: it is known once it is looked at.
        self.learn_all(who, host)?;
        let held = self.ledger.closure(&host.journal.frontier());
        let before = std::mem::take(&mut self.devices[who].held);
        if self.devices[who].disk.take_torn() {
            self.marks.hit("recovery: torn end cut off");
        }
        let device_odd = self.devices[who].rotted || self.devices[who].forgot;
        if !device_odd {
            let lost = before.iter().find(|at| !held.has(*at));
            ensure("C1", lost.is_none(), || {
                let id = lost.map(|at| self.ledger.entries[at].entry.id());
                format!("device {who} had taken in or written {id:?} and lost it in a crash")
            })?;
        }
        self.devices[who].forgot = false;
        if let Some(store) = &host.store
            && !self.devices[who].rotted
        {
            let lost = self.devices[who].promised.iter().find(|id| store.get(id).is_err());
            ensure("C1", lost.is_none(), || {
                format!("device {who} had made chunk {lost:?} durable and lost it")
            })?;
        }
        for at in held.iter() {
            self.ledger.entries[at].holders |= 1 << who;
        }
        self.devices[who].held = held;
        self.check_changed(who)
    }

    /// Makes everything a journal holds known to the ledger.
    fn learn_all(&mut self, who: Who, host: &Host) -> Result<(), Broken> {
        let tips = host.journal.frontier().tips;
        let mut queue: Vec<EntryId> = tips.iter().map(|tip| tip.entry).collect();
        while let Some(id) = queue.last().copied() {
            if self.ledger.number(&id).is_some() {
                queue.pop();
                continue;
            }
            let bytes = host.journal.entry(&id).ok_or_else(|| Broken {
                code: "C1",
                what: format!("device {who} says that it holds {id:?} and cannot give it"),
            })?;
            let entry = self.verified.verify(&bytes).map_err(|error| Broken {
                code: "J1",
                what: format!("device {who} holds an entry that does not verify: {error}"),
            })?;
            let unknown = |parent: &EntryId| self.ledger.number(parent).is_none();
            let before = queue.len();
            queue.extend(entry.entry().parents().filter(unknown));
            if queue.len() == before {
                self.ledger.learn(entry, self.now)?;
            }
        }
        Ok(())
    }

    /// Ends a device's process, and its power with it if so.
    pub(crate) fn stop(&mut self, who: Who, how: Stop) {
        if !self.devices[who].runs() {
            return;
        }
        self.seat_down(who);
        let peers: Vec<Who> = self.devices[who].sessions.keys().copied().collect();
        for peer in peers {
            self.end_session(who, peer);
        }
        let device = &mut self.devices[who];
        (device.host, device.work, device.fetching) = (None, None, false);
        device.epoch += 1;
        device.loaded.clear();
        if how == Stop::Power {
            device.state = MemKv::default();
            let mut rng = self.rng.clone();
            device.disk.lose_power(&mut rng);
            self.rng = rng;
            self.marks.hit("recovery: state made anew from the log");
        } else {
            self.marks.hit("recovery: restarted, state kept");
        }
        if !self.devices[who].restarting {
            self.devices[who].restarting = true;
            let delay = self.rng.range(200, 5000);
            self.after(delay, Event::Start(who));
        }
    }

    /// Buries devices that died within a write.
    pub(crate) fn bury(&mut self) -> Result<(), Broken> {
        for who in 0..self.devices.len() {
            if self.devices[who].disk.is_dead() && self.devices[who].runs() {
                let how = self.devices[who].dies;
                self.marks.hit(match how {
                    Stop::Process => "fault: process crash within a write",
                    Stop::Power => "fault: loss of power within a write",
                });
                self.say(|| format!("d{who} dies within a write ({how:?})"));
                self.stop(who, how);
            }
        }
        Ok(())
    }

    /// Brings what calls did to the ledger.
    pub(crate) fn absorb(&mut self, who: Who) -> Result<(), Broken> {
        let Some(host) = self.devices[who].host.clone() else { return Ok(()) };
        let mut changed = false;
        for told in host.take_told() {
            match told {
                Told::Applied(received) => {
                    changed = changed || !received.applied.is_empty();
                    if !received.wants.is_empty() {
                        self.marks.hit("recovery: entries waited for missing ones");
                    }
                    if !received.refused.is_empty() || !received.wants.is_empty() {
                        let (refused, wants) = (&received.refused, &received.wants);
                        self.whisper(|| format!("d{who} refuses {refused:?}, wants {wants:?}"));
                    }
                    self.marks
                        .add("recovery: damaged entry written anew", received.mended.len() as u64);
                    for id in &received.applied {
                        self.take(who, &host, id)?;
                    }
                }
                Told::Wrote(authored) => {
                    changed = true;
                    for id in &authored.ids {
                        self.check_clock(who, &host, id)?;
                        self.take(who, &host, id)?;
                    }
                }
                Told::Late => self.marks.hit("exchange: late entry written"),
                Told::Failed => self.call_failed(who),
            }
        }
        if changed && !self.devices[who].disk.is_dead() {
            self.check_changed(who)?;
            self.tell_lock_members(who);
            self.want_contents(who);
        }
        Ok(())
    }

    /// An entry is in a journal now.
    fn take(&mut self, who: Who, host: &Host, id: &EntryId) -> Result<(), Broken> {
        let number = match self.ledger.number(id) {
            Some(number) => number,
            None => {
                let Some(bytes) = host.journal.entry(id) else {
                    return Err(Broken {
                        code: "C1",
                        what: format!("device {who} took {id:?} in and cannot give it"),
                    });
                };
                let entry = self.verified.verify(&bytes).map_err(|error| Broken {
                    code: "J1",
                    what: format!("device {who} took in an entry that does not verify: {error}"),
                })?;
                self.ledger.learn(entry, self.now)?
            }
        };
        let mut held = std::mem::take(&mut self.devices[who].held);
        let result = self.ledger.hold(who, &mut held, number);
        self.devices[who].held = held;
        result
    }

    /// A failed write: the daemon says so and has to be started again.
    fn call_failed(&mut self, who: Who) {
        let (syncs, full) = self.devices[who].disk.take_failures();
        self.marks.add("fault: sync failed", syncs.0);
        self.marks.add("fault: append failed", syncs.1);
        self.marks.add("fault: disk full", full);
        if syncs.0 + syncs.1 > 0 && !self.devices[who].restarting {
            self.devices[who].restarting = true;
            let delay = self.rng.range(10, 2000);
            self.after(delay, Event::Start(who));
            self.devices[who].fails = true;
        }
    }

    /// Seals what somebody did a moment ago.
    pub(crate) fn seal(&mut self, who: Who) -> Result<(), Broken> {
        let (Some(host), Some(work)) = (self.host(who), self.devices[who].work.take()) else {
            return Ok(());
        };
        let before = self.before_seal(who, &host, &work.expect);
        let sealed = host.seal(work.ops.clone());
        self.absorb(who)?;
        let what = &work.what;
        match sealed {
            Ok(authored) => {
                self.say(|| format!("d{who} {what}: entry {:?}", authored.id));
                self.check_sealed(who, &host, &work.expect, before, &authored)?;
                if host.store.is_some() {
                    let chunks = chunks_of(&work.ops);
                    let own: Vec<_> = chunks
                        .into_iter()
                        .filter(|id| self.devices[who].wrote.contains(&mark(id)))
                        .collect();
                    self.devices[who].promised.extend(own);
                }
                self.announce(who)
            }
            Err(error) => {
                self.say(|| format!("d{who} {what}: {error}"));
                let excused = match &error {
                    AppendError::NotMember | AppendError::Role { .. } => true,
                    AppendError::Full | AppendError::Poisoned | AppendError::Io(_) => true,
                    // The tree changed between the act and its seal.
                    AppendError::Unfit { .. } => true,
                    _ => self.devices[who].disk.is_dead(),
                };
                ensure("N-seal", excused, || format!("device {who} cannot seal {what}: {error}"))
            }
        }
    }

    /// Contents that entries name and that are not here are wanted.
    pub(crate) fn want_contents(&mut self, who: Who) {
        let Some(host) = self.devices[who].host.clone() else { return };
        let Some(store) = &host.store else { return };
        let mut wanted = Vec::new();
        for at in self.devices[who].held.iter() {
            for op in &self.ledger.entries[at].entry.entry().ops {
                if let Op::Put { value: Value::File(file), .. } = op
                    && !store.has(&file.content.id.root())
                {
                    wanted.push(file.content);
                }
            }
        }
        let any = !wanted.is_empty();
        *host.wanted.lock() = wanted;
        if any && !self.devices[who].fetching {
            self.devices[who].fetching = true;
            let (epoch, delay) = (self.devices[who].epoch, self.rng.range(5, 300));
            self.after(delay, Event::Fetch { who, epoch });
        }
    }

    /// Brings some chunks from whoever is connected and has them.
    pub(crate) fn fetch(&mut self, who: Who) -> Result<(), Broken> {
        self.devices[who].fetching = false;
        let Some(host) = self.host(who) else { return Ok(()) };
        let Some(store) = host.store.clone() else { return Ok(()) };
        let peers: Vec<Who> = self.devices[who].sessions.keys().copied().collect();
        let wanted: Vec<_> = host.wanted.lock().iter().map(|c| c.id.root()).take(64).collect();
        let mut got = 0;
        for id in wanted {
            let from = peers.iter().filter_map(|p| self.devices[*p].host.as_ref()?.store.clone());
            let found = from.filter_map(|theirs| theirs.get_stored(&id).ok()).next();
            if let Some(chunk) = found
                && got < FETCH_MAX
                && store.put_stored(id, &chunk).is_ok()
            {
                got += 1;
            }
        }
        if got > 0 {
            self.marks.add("contents: chunks fetched", got as u64);
            host.wanted.lock().retain(|content| !store.has(&content.id.root()));
            if !host.wanted.lock().is_empty() {
                self.devices[who].fetching = true;
                let epoch = self.devices[who].epoch;
                self.after(20, Event::Fetch { who, epoch });
            }
            self.announce(who)?;
        }
        Ok(())
    }

    /// All faults stop: disks work, links flow, everybody is up and awake.
    pub(crate) fn heal(&mut self) -> Result<(), Broken> {
        self.say(|| "everything works again".into());
        self.healing = true;
        self.net.blocked.clear();
        self.flow_all();
        for who in 0..self.devices.len() {
            self.devices[who].asleep_until = 0;
            self.wake(who);
            self.devices[who].disk.trouble(|t| *t = Default::default());
            if self.devices[who].fails {
                self.stop(who, Stop::Process);
            }
            self.start(who)?;
        }
        self.redial_all();
        Ok(())
    }

    /// Chunks of what is put.
    pub(crate) fn content_marks(&self, id: &EntryId) -> Vec<Mark> {
        let known = self.ledger.get(id);
        known
            .map(|k| chunks_of(&k.entry.entry().ops).iter().map(mark).collect())
            .unwrap_or_default()
    }

    pub(crate) fn chance_of(&self, salt: u64) -> Rng {
        Rng::of(self.plan.seed, salt)
    }
}

fn is_full(error: &OpenError) -> bool {
    match error {
        OpenError::Full => true,
        OpenError::Io(error) => error.is_full(),
        _ => false,
    }
}

fn chunks_of(ops: &[Op]) -> Vec<cas::ChunkId> {
    let file = |op: &Op| match op {
        Op::Put { value: Value::File(file), .. } => Some(file.content.id.root()),
        _ => None,
    };
    ops.iter().filter_map(file).collect()
}

pub(crate) fn mark(id: &cas::ChunkId) -> Mark {
    *id.as_bytes().first_chunk().expect("an id is longer")
}
