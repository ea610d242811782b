//! A member that writes what it must not: entries its program would never make, and bytes that mean nothing.
//!
//! Leaves out: strangers; they get no further than the door, which is not simulated.
//!
//! Invariants:
//! - what is not valid by itself or by its past is noted in the ledger: no honest device may take it in.

use std::collections::BTreeSet;
use std::sync::Arc;

use journal::entry::Entry;
use journal::hlc::{Hlc, WALL_LAST_MS};
use journal::op::{DirAttr, FileValue, Timestamp, Xattrs};
use journal::signed::VerifiedEntry;
use journal::{DirId, EntryId, EntryName, Frontier, Op, Role, Value, VersionId};
use net::JournalHost as _;
use net::wire::{Entries, Have, Message};

use super::fail::Broken;
use super::ledger::Who;
use super::rng::Rng;
use super::world::World;

const YEAR_MS: u64 = 365 * 86_400_000;

/// What is wrong with an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Malice {
    Fork,
    WrongBases,
    UnknownReferences,
    FarFuture,
    ManyOps,
    BadSignature,
    WrongChain,
    Unfit,
    BeyondItsRole,
    DatedBack,
}

const ALL: [Malice; 10] = [
    Malice::Fork,
    Malice::WrongBases,
    Malice::UnknownReferences,
    Malice::FarFuture,
    Malice::ManyOps,
    Malice::BadSignature,
    Malice::WrongChain,
    Malice::Unfit,
    Malice::BeyondItsRole,
    Malice::DatedBack,
];

fn made_up(rng: &mut Rng) -> EntryId {
    let mut id = [0; 32];
    id.chunks_mut(8).for_each(|part| part.copy_from_slice(&rng.next().to_le_bytes()));
    EntryId::from_bytes(id)
}

impl World {
    /// The last device that belongs from the begin: the one that goes bad, if any does.
    fn evil_one(&self) -> Option<Who> {
        let who = self.plan.joined.checked_sub(1).filter(|who| *who > 0)?;
        let device = &self.devices[who];
        (device.runs() && device.asleep_until <= self.now && !device.fails).then_some(who)
    }

    fn file(&self, rng: &mut Rng) -> Value {
        let text = format!("evil {}", rng.below(50)).into_bytes();
        let chunk = cas::ChunkId::of(&self.id_key(), &text);
        let content =
            journal::op::Content { id: cas::ContentId::chunk(chunk), len: text.len() as u64 };
        let (mode, mtime, xattrs) = (0o644, Timestamp::default(), Xattrs::new());
        Value::File(FileValue { content, mode, mtime, xattrs, owner: None })
    }

    fn some_version(&self, who: Who, rng: &mut Rng) -> VersionId {
        let all: Vec<usize> = self.devices[who].held.iter().collect();
        let at = rng.pick(&all).copied().unwrap_or_default();
        VersionId::new(self.ledger.entries[at].entry.id(), rng.below(2) as u32)
    }

    fn some_dir(&self, who: Who, rng: &mut Rng) -> DirId {
        let made = |at: usize| {
            let ops = &self.ledger.entries[at].entry.entry().ops;
            ops.iter().find_map(|op| match op {
                Op::MkDir { dir, .. } => Some(*dir),
                _ => None,
            })
        };
        let all: Vec<DirId> = self.devices[who].held.iter().filter_map(made).collect();
        rng.pick(&all).copied().unwrap_or(DirId::ROOT)
    }

    fn evil_ops(&self, who: Who, kind: Malice, rng: &mut Rng) -> Vec<Op> {
        let name = |rng: &mut Rng| {
            let names = ["x", "y", "p", "q"];
            EntryName::new(names[rng.below(names.len())]).expect("a name")
        };
        let dir = if rng.chance(50) { DirId::ROOT } else { self.some_dir(who, rng) };
        match kind {
            Malice::WrongBases => {
                let mut bases: Vec<VersionId> =
                    (0..rng.below(4)).map(|_| self.some_version(who, rng)).collect();
                bases.push(VersionId::new(made_up(rng), 0));
                vec![Op::Put { dir, name: name(rng), value: self.file(rng), bases }]
            }
            Malice::ManyOps => (0..400)
                .map(|n| Op::Put {
                    dir: DirId::ROOT,
                    name: EntryName::new(&format!("many {}", n % 40)).expect("a name"),
                    value: Value::Gone { moved_to: None },
                    bases: Vec::new(),
                })
                .collect(),
            Malice::Unfit => {
                let (dir, from) = (self.some_dir(who, rng), self.some_version(who, rng));
                let to = (self.some_dir(who, rng), name(rng));
                let attr = DirAttr::default();
                let odd = DirId::from_bytes(*made_up(rng).as_bytes());
                let parent = self.some_dir(who, rng);
                let mut ops = vec![
                    Op::MkDir { parent, name: name(rng), dir: odd, attr, bases: Vec::new() },
                    Op::Put { dir: odd, name: name(rng), value: self.file(rng), bases: Vec::new() },
                ];
                if dir != DirId::ROOT {
                    ops.push(Op::Move { dir, from, to, bases: Vec::new() });
                }
                ops
            }
            Malice::BeyondItsRole => {
                let device = self.devices[0].id;
                let frontier = vec![self.genesis.id()];
                vec![
                    Op::Remove { device, frontier: frontier.clone() },
                    Op::SetRole { device: self.devices[who].id, role: Role::Owner, frontier },
                    Op::Put { dir, name: name(rng), value: self.file(rng), bases: Vec::new() },
                ]
            }
            _ => {
                let bases = vec![self.some_version(who, rng)];
                vec![Op::Put { dir, name: name(rng), value: self.file(rng), bases }]
            }
        }
    }

    /// Writes one bad entry and lets it out, to everybody or to one.
    pub(crate) fn malice(&mut self, rng: &mut Rng) -> Result<(), Broken> {
        let Some(who) = self.evil_one() else { return Ok(()) };
        self.devices[who].evil = true;
        let kind = ALL[rng.below(ALL.len())];
        let id = self.devices[who].id;
        let own: Vec<usize> = self.devices[who]
            .held
            .iter()
            .filter(|at| self.ledger.entries[*at].entry.entry().device == id)
            .collect();
        let prev = match kind {
            Malice::Fork => rng.pick(&own).copied(),
            _ => own.iter().max_by_key(|at| self.ledger.entries[**at].entry.entry().seq).copied(),
        };
        let all: Vec<usize> = self.devices[who].held.iter().collect();
        let mut seen: BTreeSet<EntryId> = BTreeSet::new();
        for _ in 0..rng.below(3) {
            let at = rng.pick(&all).copied().unwrap_or_default();
            seen.insert(self.ledger.entries[at].entry.id());
        }
        if prev.is_none() {
            seen.insert(self.genesis.id());
        }
        let parents = seen.iter().filter_map(|p| self.ledger.number(p)).chain(prev);
        let after = parents.map(|at| self.ledger.entries[at].entry.entry().hlc).max();
        let after = after.unwrap_or_default();
        let wall = self.wall(who);
        let last = Hlc::from_ms(WALL_LAST_MS);
        let mut hlc = match kind {
            Malice::FarFuture if rng.chance(30) => {
                let end = [u64::MAX, u64::MAX - 1, last.get(), last.get() + 1, after.get() + 1];
                Some(Hlc::from_raw(end[rng.below(end.len())]))
            }
            Malice::FarFuture => Hlc::next(after, wall + rng.range(1, 200) * YEAR_MS),
            Malice::DatedBack => Hlc::next(after, 0),
            _ => Hlc::next(after, wall.min(self.wall(0))),
        }
        .unwrap_or(after);
        let prev_entry = prev.map(|at| &self.ledger.entries[at].entry);
        let mut seq = prev_entry.map_or(0, |entry| entry.entry().seq + 1);
        if kind == Malice::WrongChain {
            match rng.below(2) {
                0 if seq > 0 => seq += 1 + rng.below(3) as u64,
                _ => hlc = Hlc::from_raw(after.get().saturating_sub(rng.range(0, 100_000))),
            }
        }
        if kind == Malice::UnknownReferences {
            seen.insert(made_up(rng));
        }
        let entry = Entry {
            drive: self.genesis.id().into(),
            device: id,
            seq,
            prev: prev_entry.map(VerifiedEntry::id),
            seen: seen.into_iter().collect(),
            late: match rng.chance(20) && prev.is_some() {
                true => vec![made_up(rng)],
                false => Vec::new(),
            },
            hlc,
            saved_at_ms: wall,
            ops: self.evil_ops(who, kind, rng),
        };
        let Ok(signed) = VerifiedEntry::sign(entry, &self.devices[who].signer) else {
            return Ok(());
        };
        let mut bytes: Arc<[u8]> = Arc::clone(signed.bytes());
        if kind == Malice::BadSignature {
            let mut spoilt = bytes.to_vec();
            let at = rng.below(spoilt.len());
            spoilt[at] ^= 1 << rng.below(8);
            bytes = spoilt.into();
        }
        // What leaps over the last wall clock there can be, or does not go on at all.
        let leaps = hlc <= after || (hlc > last && hlc.get() - after.get() > 1);
        if leaps {
            self.ledger.invalid.insert(signed.id());
        }
        if matches!(kind, Malice::BadSignature | Malice::WrongChain) {
            let spoilt = journal::signed::entry_id_unchecked(&bytes);
            let valid_part = spoilt == Some(signed.id()) && kind == Malice::BadSignature;
            if !valid_part {
                self.ledger.invalid.extend(spoilt);
            }
        }
        self.marks.hit(match kind {
            Malice::Fork => "fault: malice: fork",
            Malice::WrongBases => "fault: malice: wrong bases",
            Malice::UnknownReferences => "fault: malice: unknown references",
            Malice::FarFuture => "fault: malice: far future",
            Malice::ManyOps => "fault: malice: very many operations",
            Malice::BadSignature => "fault: malice: bad signature",
            Malice::WrongChain => "fault: malice: wrong chain or clock",
            Malice::Unfit => "fault: malice: unfit operations",
            Malice::BeyondItsRole => "fault: malice: beyond its role",
            Malice::DatedBack => "fault: malice: dated back",
        });
        let victim = match rng.chance(50) {
            true => who,
            false => rng.below(self.devices.len()),
        };
        self.say(|| {
            format!("d{who} forges {:?} ({kind:?}) and gives it to d{victim}", signed.id())
        });
        if victim != who && rng.chance(50) {
            // In place of what the session would send: the receiver finds fault or takes it.
            let batch = 1 + rng.below(3) as u64;
            let frontier = Frontier::default();
            let message = Message::Entries(Entries { batch, frontier, entries: vec![bytes] });
            self.inject(who, victim, message.encode());
            return Ok(());
        }
        let Some(host) = self.host(victim).filter(|_| !self.devices[victim].fails) else {
            return Ok(());
        };
        // A failed call is told to the world as any other.
        let _ = host.receive(id, &[bytes]);
        self.absorb(victim)?;
        self.announce(victim)
    }

    /// Sends bytes that mean nothing, or a message out of place.
    pub(crate) fn garbage(&mut self, rng: &mut Rng) {
        let Some(who) = self.evil_one() else { return };
        self.devices[who].evil = true;
        let peers: Vec<Who> = self.devices[who].sessions.keys().copied().collect();
        let Some(peer) = rng.pick(&peers).copied() else { return };
        let frame = match rng.below(6) {
            0 => {
                let len = 1 + rng.below(200);
                let mut bytes = (len as u32).to_le_bytes().to_vec();
                bytes.extend((0..len).map(|_| rng.next() as u8));
                bytes
            }
            1 => Message::Have(Have { upto: rng.next() >> rng.below(64), frontier: self.lie(rng) })
                .encode(),
            2 => Message::Want((0..rng.below(256)).map(|_| made_up(rng)).collect()).encode(),
            3 => Message::Probe(rng.next()).encode(),
            4 => Message::Offered.encode(),
            _ => {
                let (batch, frontier) = (rng.next(), self.lie(rng));
                let entries = vec![Arc::from(vec![rng.next() as u8; rng.below(300)])];
                Message::Entries(Entries { batch, frontier, entries }).encode()
            }
        };
        self.marks.hit("fault: garbage on the wire");
        self.say(|| format!("d{who} sends {} odd bytes to d{peer}", frame.len()));
        for _ in 0..1 + rng.below(12) {
            self.inject(who, peer, frame.clone());
        }
    }

    /// A frontier of tips that nobody has.
    fn lie(&self, rng: &mut Rng) -> Frontier {
        let tip = |rng: &mut Rng| journal::Tip {
            device: self.devices[rng.below(self.devices.len())].id,
            seq: rng.next() >> rng.below(64),
            entry: made_up(rng),
        };
        Frontier { tips: (0..rng.below(5)).map(|_| tip(rng)).collect() }
    }
}
