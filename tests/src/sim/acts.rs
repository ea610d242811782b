//! What the acts of a plan do to the world.
//!
//! Leaves out: drawing the list ([`super::plan`]). An act whose subject is not there does nothing.

use journal::{Frontier, Op, Role, Signer};
use net::JournalHost as _;

use super::devices::{Stop, mark};
use super::fail::Broken;
use super::ledger::Who;
use super::plan::{Act, Step};
use super::rng::Rng;
use super::user::{User, Work};
use super::world::{Event, World, name_of};

/// Most devices at once, copies counted.
const DEVICES_MAX: usize = 10;
/// Room left on a disk that fills up, bytes.
const ROOM_MAX: u64 = 3000;

impl World {
    fn one_running(&self, rng: &mut Rng) -> Option<Who> {
        let up = |who: &Who| {
            self.devices[*who].runs()
                && self.devices[*who].asleep_until <= self.now
                && !self.devices[*who].fails
        };
        let all: Vec<Who> = (0..self.devices.len()).filter(up).collect();
        rng.pick(&all).copied()
    }

    fn one_conn(&self, rng: &mut Rng) -> Option<u64> {
        rng.pick(&self.net.live()).copied()
    }

    /// Carries out one act.
    pub(crate) fn act(&mut self, step: Step) -> Result<(), Broken> {
        let mut rng = self.chance_of(step.salt);
        match step.act {
            Act::User => self.user(&mut rng),
            Act::Load => self.load(&mut rng),
            Act::Cut | Act::HalfOpen => {
                self.break_conn(step.act, &mut rng);
                Ok(())
            }
            Act::Clog | Act::Unclog => {
                self.clogs(step.act, &mut rng);
                Ok(())
            }
            Act::Part => {
                self.part(&mut rng);
                Ok(())
            }
            Act::Meet => {
                self.say(|| "all can reach all".into());
                self.net.blocked.clear();
                self.flow_all();
                self.redial_all();
                Ok(())
            }
            Act::Odd => self.odd(&mut rng),
            Act::Crash | Act::Power | Act::CrashInWrite | Act::PowerInWrite => {
                self.crash(step.act, &mut rng);
                Ok(())
            }
            Act::SyncFails | Act::AppendFails | Act::Full | Act::Room => {
                self.trouble(step.act, &mut rng);
                Ok(())
            }
            Act::Rot => {
                self.rot(&mut rng);
                Ok(())
            }
            Act::Jump => {
                self.jump(&mut rng);
                Ok(())
            }
            Act::Sleep => {
                self.sleep(&mut rng);
                Ok(())
            }
            Act::Backup | Act::Restore | Act::Clone => {
                self.backups(step.act, &mut rng);
                Ok(())
            }
            Act::Join => self.join(&mut rng),
            Act::Remove | Act::Role | Act::TakeBack => self.members(step.act, &mut rng),
            Act::Malice => self.malice(&mut rng),
            Act::Garbage => {
                self.garbage(&mut rng);
                Ok(())
            }
            Act::Wait => {
                self.say(|| "a long time has passed".into());
                Ok(())
            }
        }
    }

    fn user(&mut self, rng: &mut Rng) -> Result<(), Broken> {
        let Some(who) = self.one_running(rng) else { return Ok(()) };
        if self.devices[who].work.is_some() {
            self.seal(who)?;
        }
        let Some(host) = self.host(who) else { return Ok(()) };
        let mut loaded = std::mem::take(&mut self.devices[who].loaded);
        let key = self.id_key();
        let mut user = User {
            journal: &host.journal,
            rng: rng.clone(),
            key,
            loaded: &mut loaded,
            locks: self.plan.locks.then_some(self.devices[who].id),
            bytes: Vec::new(),
        };
        let work = user.act();
        let bytes = std::mem::take(&mut user.bytes);
        self.devices[who].loaded = loaded;
        let Some(work) = work else { return Ok(()) };
        if let Some(store) = &host.store {
            for text in &bytes {
                match store.put(text) {
                    Ok(id) => self.devices[who].wrote.push(mark(&id)),
                    // The save fails; nothing was promised.
                    Err(_) => {
                        host_failed(self, who);
                        return Ok(());
                    }
                }
            }
        }
        let delay = if rng.chance(50) { 0 } else { rng.range(0, 100) };
        match self.lock_first(who, work, rng) {
            Some(work) => self.begin_work(who, work, delay),
            None => Ok(()),
        }
    }

    /// Work is done now and sealed a little later.
    pub(crate) fn begin_work(&mut self, who: Who, work: Work, delay: u64) -> Result<(), Broken> {
        if self.devices[who].work.is_some() {
            self.seal(who)?;
        }
        if !self.devices[who].runs() {
            return Ok(());
        }
        self.devices[who].work = Some(work);
        match delay {
            0 => self.seal(who),
            _ => {
                let epoch = self.devices[who].epoch;
                self.after(delay, Event::Seal { who, epoch });
                Ok(())
            }
        }
    }

    fn load(&mut self, rng: &mut Rng) -> Result<(), Broken> {
        let Some(who) = self.one_running(rng) else { return Ok(()) };
        let Some(host) = self.host(who) else { return Ok(()) };
        let mut loaded = std::mem::take(&mut self.devices[who].loaded);
        let (rng, key) = (rng.clone(), self.id_key());
        let journal = &host.journal;
        let (loaded_now, locks, bytes) = (&mut loaded, None, Vec::new());
        let what = User { journal, rng, key, loaded: loaded_now, locks, bytes }.load();
        self.devices[who].loaded = loaded;
        if let Some(what) = what {
            self.say(|| format!("d{who} {what}"));
        }
        Ok(())
    }

    fn break_conn(&mut self, act: Act, rng: &mut Rng) {
        let Some(id) = self.one_conn(rng) else { return };
        let soon = rng.range(0, 50);
        let late = rng.range(1000, 16_000);
        let notices = match act {
            Act::HalfOpen if rng.chance(50) => [soon, late],
            Act::HalfOpen => [late, soon],
            _ => [soon, rng.range(0, 50)],
        };
        self.marks.hit(match act {
            Act::HalfOpen => "fault: half-open connection",
            _ => "fault: connection cut",
        });
        let ends = (self.net.end(id, 0), self.net.end(id, 1));
        self.say(|| format!("the connection {ends:?} breaks, noticed after {notices:?} ms"));
        self.cut(id, notices);
    }

    /// Clogs a random part of all directions one by one, and lets them flow in another order.
    fn clogs(&mut self, act: Act, rng: &mut Rng) {
        let mut all: Vec<(u64, usize)> =
            self.net.live().into_iter().flat_map(|id| [(id, 0), (id, 1)]).collect();
        rng.shuffle(&mut all);
        let some = 1 + rng.below(all.len().max(1));
        for (id, from) in all.into_iter().take(some) {
            if act == Act::Clog {
                self.marks.hit("fault: direction clogged");
                let (a, b) = (self.net.end(id, from), self.net.end(id, 1 - from));
                self.say(|| format!("nothing flows from {a:?} to {b:?}"));
                self.clog(id, from);
            }
            let delay = rng.range(0, if act == Act::Clog { 20_000 } else { 100 });
            self.after(delay, Event::Flow(id, from));
        }
    }

    fn part(&mut self, rng: &mut Rng) {
        let count = self.devices.len();
        let one_way = rng.chance(40);
        let side: Vec<bool> = (0..count).map(|_| rng.chance(50)).collect();
        for a in 0..count {
            for b in 0..count {
                if side[a] != side[b] && (!one_way || side[a]) {
                    self.net.blocked.insert((a, b));
                }
            }
        }
        if one_way {
            self.marks.hit("fault: partition, asymmetric");
        } else {
            self.marks.hit("fault: partition");
        }
        self.say(|| format!("the sides {side:?} are parted, one way: {one_way}"));
        // Pings find out.
        for id in self.net.live() {
            let (Some(a), Some(b)) = (self.net.end(id, 0), self.net.end(id, 1)) else { continue };
            if side[a] != side[b] {
                let notices = [rng.range(3000, 16_000), rng.range(3000, 16_000)];
                if rng.chance(80) {
                    self.cut(id, notices);
                }
            }
        }
    }

    /// Entries that are out already reach a device again, twice, in any order and batches.
    fn odd(&mut self, rng: &mut Rng) -> Result<(), Broken> {
        let (Some(from), Some(to)) = (self.one_running(rng), self.one_running(rng)) else {
            return Ok(());
        };
        let mut some: Vec<usize> = self.devices[from]
            .held
            .iter()
            .filter(|at| {
                let own = self.ledger.entries[*at].entry.entry().device == self.devices[from].id;
                !own || self.ledger.is_elsewhere(from, *at)
            })
            .filter(|_| rng.chance(50))
            .collect();
        let twice: Vec<usize> = some.iter().filter(|_| rng.chance(30)).copied().collect();
        some.extend(twice);
        rng.shuffle(&mut some);
        self.marks.hit("fault: entries delivered oddly");
        let count = some.len();
        self.say(|| format!("{count} entries of d{from} reach d{to} in no order"));
        let peer = self.devices[from].id;
        for batch in some.chunks(1 + rng.below(30)) {
            let Some(host) = self.host(to) else { break };
            let bytes: Vec<_> = batch.iter().map(|at| self.ledger.bytes(*at)).collect();
            // A failed call is told to the world as any other.
            let _ = host.receive(peer, &bytes);
            self.absorb(to)?;
            if self.devices[to].disk.is_dead() {
                return Ok(());
            }
        }
        self.announce(to)
    }

    fn crash(&mut self, act: Act, rng: &mut Rng) {
        let Some(who) = self.one_running(rng) else { return };
        let how = match act {
            Act::Crash | Act::CrashInWrite => Stop::Process,
            _ => Stop::Power,
        };
        match act {
            Act::Crash | Act::Power => {
                self.marks.hit(match how {
                    Stop::Process => "fault: process crash",
                    Stop::Power => "fault: loss of power",
                });
                self.say(|| format!("d{who} stops ({how:?})"));
                self.stop(who, how);
            }
            _ => {
                let calls = rng.range(0, 6);
                self.devices[who].dies = how;
                self.devices[who].disk.trouble(|t| t.dies_in = Some(calls));
                self.say(|| format!("d{who} will die after {calls} writes ({how:?})"));
            }
        }
    }

    fn trouble(&mut self, act: Act, rng: &mut Rng) {
        let Some(who) = self.one_running(rng) else { return };
        let disk = self.devices[who].disk.clone();
        match act {
            Act::SyncFails => disk.trouble(|t| t.syncs = 1),
            Act::AppendFails => disk.trouble(|t| t.appends = 1),
            Act::Full => {
                let room = disk.used() + rng.range(0, ROOM_MAX) as usize;
                disk.trouble(|t| t.room = Some(room));
            }
            _ => {
                (0..self.devices.len()).for_each(|w| {
                    self.devices[w].disk.trouble(|t| t.room = None);
                });
                // Who gave up for want of room connects again.
                self.redial_all();
            }
        }
        self.say(|| format!("the disk of d{who}: {act:?}"));
    }

    /// A bit of an entry's frame flips, where another disk has the entry and always will.
    fn rot(&mut self, rng: &mut Rng) {
        // Otherwise the good copy may go, or be out of reach: who misses an admission after a restart knows no member.
        let forgets = |act| matches!(act, Act::Restore | Act::Remove);
        if self.plan.steps.iter().any(|step| forgets(step.act)) {
            return;
        }
        let Some(who) = self.one_running(rng) else { return };
        let others: Vec<Who> = (0..self.devices.len())
            .filter(|o| self.devices[*o].id != self.devices[who].id && self.sees_member(who, *o))
            .filter(|o| !self.devices[*o].rotted && self.devices[*o].begun)
            .collect();
        let good = |at: &usize| {
            let mark = &self.ledger.entries[*at].mark;
            let elsewhere = others.iter().any(|o| self.devices[*o].disk.is_durable(mark));
            let ops = &self.ledger.entries[*at].entry.entry().ops;
            let admits = ops.iter().any(|op| matches!(op, Op::Genesis { .. } | Op::Admit { .. }));
            !admits && !self.rotten.contains(at) && elsewhere
        };
        let all: Vec<usize> = self.devices[who].held.iter().filter(good).collect();
        let Some(at) = rng.pick(&all).copied() else { return };
        let mark = self.ledger.entries[at].mark;
        if self.devices[who].disk.rot(&mark, rng) {
            self.marks.hit("fault: rot");
            self.rotten.insert(at);
            (self.devices[who].rotted, self.devices[who].odd) = (true, true);
            let id = self.ledger.entries[at].entry.id();
            self.say(|| format!("a bit of {id:?} rots on the disk of d{who}"));
        }
    }

    fn jump(&mut self, rng: &mut Rng) {
        let Some(who) = self.one_running(rng) else { return };
        const YEAR_MS: i64 = 365 * 86_400_000;
        let by = match rng.below(4) {
            0 => rng.range(0, 10 * YEAR_MS as u64) as i64 - 5 * YEAR_MS,
            1 => rng.range(0, 7_200_000) as i64 - 3_600_000,
            2 => -self.devices[who].skew_ms,
            _ => rng.range(0, 200) as i64 - 100,
        };
        self.devices[who].skew_ms += by;
        self.marks.hit("fault: clock jumped");
        self.say(|| format!("the clock of d{who} jumps by {by} ms"));
    }

    fn sleep(&mut self, rng: &mut Rng) {
        let Some(who) = self.one_running(rng) else { return };
        let time = [500, 20_000, 3_600_000][rng.below(3)];
        let time = rng.range(1, time);
        self.seat_sleeps(who);
        self.devices[who].asleep_until = self.now + time;
        self.marks.hit("fault: suspended");
        self.say(|| format!("d{who} sleeps for {time} ms"));
        // The others' pings go unanswered.
        if time > 16_000 {
            let peers: Vec<(Who, u64)> =
                self.devices[who].sessions.iter().map(|(p, link)| (*p, link.conn)).collect();
            for (_, conn) in peers {
                let notices = [rng.range(3000, 16_000), rng.range(3000, 16_000)];
                self.cut(conn, notices);
            }
        }
        self.after(time, Event::Wake(who));
    }

    fn backups(&mut self, act: Act, rng: &mut Rng) {
        let Some(who) = self.one_running(rng) else { return };
        match act {
            Act::Backup => {
                self.devices[who].backup = Some(self.devices[who].disk.copy());
                self.say(|| format!("a backup of d{who} is made"));
            }
            Act::Restore => {
                let Some(backup) = self.devices[who].backup.clone() else { return };
                self.marks.hit("fault: backup restored");
                self.say(|| format!("the backup of d{who} is restored"));
                self.stop(who, Stop::Power);
                let device = &mut self.devices[who];
                device.disk = backup.copy();
                (device.odd, device.forgot) = (true, true);
                device.promised.clear();
                // What it wrote since is not its own any more: it may come back as anybody's.
                device.wrote.retain(|mark| device.disk.is_durable(mark));
            }
            _ => {
                if self.devices.len() >= DEVICES_MAX || !self.devices[who].begun {
                    return;
                }
                let copy = self.clone_device(who);
                self.marks.hit("fault: disk cloned");
                self.say(|| format!("the disk of d{who} is cloned: d{copy}"));
                self.after(rng.range(1, 5000), Event::Start(copy));
            }
        }
    }

    fn one_owner(&self, rng: &mut Rng) -> Option<Who> {
        let owner = |who: &Who| {
            let device = &self.devices[*who];
            let member = device.host.as_ref().and_then(|h| h.journal.member(device.id));
            device.asleep_until <= self.now
                && !device.fails
                && member.is_some_and(|m| !m.removed && m.role == Role::Owner)
        };
        let all: Vec<Who> = (0..self.devices.len()).filter(owner).collect();
        rng.pick(&all).copied()
    }

    fn join(&mut self, rng: &mut Rng) -> Result<(), Broken> {
        let Some(who) = (0..self.devices.len()).find(|who| !self.devices[*who].joined) else {
            return Ok(());
        };
        if rng.chance(50) {
            self.invite(rng)?;
        }
        let Some((secret, issuer)) = rng.pick(&self.invites).copied() else { return Ok(()) };
        let Some(through) = self.one_running(rng) else { return Ok(()) };
        let withdrawn = if rng.chance(30) { self.demote(issuer, through)? } else { None };
        let Some(host) = self.host(through) else { return Ok(()) };
        let (drive, device) = (self.genesis.id().into(), self.devices[who].id);
        let proof = journal::member::admit_proof(&secret, &drive, &device);
        let key = Signer::invite_public(&secret);
        let admitted = host.admit(key, device, name_of(who), proof);
        self.absorb(through)?;
        if self.devices[through].disk.is_dead() {
            return Ok(());
        }
        self.say(|| format!("d{who} joins through d{through}: {admitted:?}"));
        self.announce(through)?;
        if let Some(by) = withdrawn {
            self.announce(by)?;
        }
        if admitted.is_err() {
            return Ok(());
        }
        self.marks.hit("members: joined");
        self.devices[who].joined = true;
        self.devices[who].through = Some(self.devices[through].id);
        if rng.chance(20) {
            let calls = rng.range(0, 3);
            self.devices[who].disk.trouble(|t| t.dies_in = Some(calls));
        }
        self.start(who)
    }

    /// Some owner makes the issuer of an invitation an editor, which voids it; `through` has not heard of that when it
    /// admits somebody. Who did.
    fn demote(&mut self, issuer: Who, through: Who) -> Result<Option<Who>, Broken> {
        let Some(host) = self.host(0).filter(|_| issuer != 0 && through != 0) else {
            return Ok(None);
        };
        if self.devices[0].asleep_until > self.now || self.devices[0].fails {
            return Ok(None);
        }
        let device = self.devices[issuer].id;
        let frontier = frontier_of(&host.journal.frontier(), device);
        let wrote = host.author(vec![Op::SetRole { device, role: Role::Editor, frontier }]);
        self.absorb(0)?;
        if wrote.is_err() {
            return Ok(None);
        }
        self.marks.hit("members: invitation void at its use");
        self.say(|| format!("d0 makes d{issuer} an editor, while d{through} admits by its word"));
        Ok(Some(0))
    }

    fn invite(&mut self, rng: &mut Rng) -> Result<(), Broken> {
        let Some(owner) = self.one_owner(rng) else { return Ok(()) };
        let secret = self.invite_secret(rng.next());
        let key = Signer::invite_public(&secret);
        let role = [Role::Reader, Role::Editor, Role::Editor, Role::Owner][rng.below(4)];
        let Some(host) = self.host(owner) else { return Ok(()) };
        let lasts = [60_000, 86_400_000, 100 * 86_400_000][rng.below(3)];
        let expires = host.now().wall_ms + lasts;
        let uses = 1 + rng.below(2) as u32;
        let wrote = host.author(vec![Op::Invite { key, role, expires, uses }]);
        self.absorb(owner)?;
        if wrote.is_ok() {
            self.invites.push((secret, owner));
            self.say(|| format!("d{owner} invites {uses} as {role:?}"));
            self.announce(owner)?;
        }
        Ok(())
    }

    fn members(&mut self, act: Act, rng: &mut Rng) -> Result<(), Broken> {
        let Some(owner) = self.one_owner(rng) else { return Ok(()) };
        // The drive's first device stays: it is by its eyes that the end is judged.
        let other = 1 + rng.below(self.plan.devices - 1);
        if self.devices[other].id == self.devices[0].id || other == owner {
            return Ok(());
        }
        let device = self.devices[other].id;
        let Some(host) = self.host(owner) else { return Ok(()) };
        let tips = host.journal.frontier();
        let mut frontier = frontier_of(&tips, device);
        if rng.chance(40) {
            // Some of its last work is not wanted.
            for id in &mut frontier {
                for _ in 0..rng.below(3) {
                    let prev = self.ledger.get(id).and_then(|known| known.entry.entry().prev);
                    *id = prev.unwrap_or(*id);
                }
            }
        }
        let (op, mark) = match act {
            Act::Remove => (Op::Remove { device, frontier }, "members: removed"),
            Act::Role => {
                let role = [Role::Reader, Role::Editor, Role::Owner][rng.below(3)];
                (Op::SetRole { device, role, frontier }, "members: role changed")
            }
            _ => {
                let role = [Role::Editor, Role::Owner][rng.below(2)];
                let back = Op::SetRole { device, role, frontier: Vec::new() };
                (back, "members: taken back in")
            }
        };
        let wrote = host.author(vec![op.clone()]);
        self.absorb(owner)?;
        if wrote.is_ok() {
            self.marks.hit(mark);
            self.say(|| format!("d{owner} about d{other}: {op:?}"));
            self.announce(owner)?;
            self.redial_all();
        }
        Ok(())
    }
}

fn frontier_of(all: &Frontier, device: journal::DeviceId) -> Vec<journal::EntryId> {
    all.tips.iter().filter(|tip| tip.device == device).map(|tip| tip.entry).collect()
}

/// A store that failed is opened again after a restart.
fn host_failed(world: &mut World, who: Who) {
    if !world.devices[who].disk.is_dead() && !world.devices[who].restarting {
        world.devices[who].restarting = true;
        world.devices[who].fails = true;
        world.after(500, Event::Start(who));
    }
}
