//! The fold: bytes become a script of entries of any kind, sound and odd, each signed by a device that may or may not be a
//! member. Two journals get the same entries in different orders and must show the same; a third folds its log anew.
//!
//! Leaves out: what the tree should be (the journal's own tests have an oracle).

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use arbitrary::{Arbitrary, Result, Unstructured};
use cas::id::{ChunkId, ContentId, IdKey};
use journal::entry::Entry;
use journal::hlc::Hlc;
use journal::kv::mem::MemKv;
use journal::member::admit_proof;
use journal::op::{
    Arrival, Content, DirAttr, ExchangeSide, FileValue, Named, SymlinkValue, Timestamp, Xattrs,
};
use journal::signed::VerifiedEntry;
use journal::state::State;
use journal::{
    DeviceId, DirId, DriveId, EntryId, EntryName, GenesisSpec, Journal, Now, Op, Policy, Role,
    Signer, Value, VersionId,
};

use super::bytes::plain_ops;
use super::memory::Memory;

/// Entries of one script at most.
const ENTRIES_MAX: usize = 40;
/// Operations of one entry at most.
const OPS_MAX: usize = 4;
const DEVICES: u8 = 5;
const INVITE_SECRET: [u8; 32] = [42; 32];
const NAMES: [&str; 8] = ["a", "b", "A", "a\u{301}", "\u{e1}", "c.tar.gz", "d", "x.blend"];

fn signer(device: u8) -> Signer {
    Signer::derive(&[device; 32], &[7; 32])
}

/// The id of one of the devices.
pub(super) fn device(number: u8) -> DeviceId {
    signer(number).device()
}

/// The world a script is played in.
struct Script {
    drive: DriveId,
    all: Vec<VerifiedEntry>,
    dirs: Vec<DirId>,
    versions: Vec<VersionId>,
    checkouts: Vec<(DirId, EntryName, VersionId)>,
    last: BTreeMap<u8, EntryId>,
}

fn genesis() -> VerifiedEntry {
    let spec = GenesisSpec {
        drive_name: "drive".into(),
        device_name: "Ann".into(),
        id_key: IdKey::from_bytes([1; 32]),
        posix_owners: false,
    };
    Journal::genesis(&signer(0), spec, Now { wall_ms: 1 })
        .unwrap_or_else(|error| panic!("no genesis: {error}"))
}

fn memory_journal(genesis: &VerifiedEntry) -> (Journal, Arc<Memory>) {
    let storage = Arc::new(Memory::default());
    let state = State::Memory(MemKv::default());
    let journal = Journal::begin_with(storage.clone(), state, genesis, None)
        .unwrap_or_else(|error| panic!("no journal: {error}"));
    (journal, storage)
}

impl Script {
    fn begin() -> Self {
        let genesis = genesis();
        let drive = DriveId::from(genesis.id());
        let mut script = Self {
            drive,
            last: BTreeMap::from([(0, genesis.id())]),
            all: vec![genesis],
            dirs: vec![DirId::ROOT],
            versions: Vec::new(),
            checkouts: Vec::new(),
        };
        let invite = Signer::invite_public(&INVITE_SECRET);
        let mut ops =
            vec![Op::Invite { key: invite, role: Role::Owner, expires: u64::MAX >> 16, uses: 2 }];
        ops.extend((1..3).map(|number| script.admit(number)));
        script.push(0, ops, Vec::new(), Vec::new(), Step::Next);
        script
    }

    fn admit(&self, number: u8) -> Op {
        let device = device(number);
        Op::Admit {
            invite: Signer::invite_public(&INVITE_SECRET),
            device,
            name: format!("D{number}"),
            proof: admit_proof(&INVITE_SECRET, &self.drive, &device),
        }
    }

    fn find(&self, id: EntryId) -> Option<&VerifiedEntry> {
        self.all.iter().find(|entry| entry.id() == id)
    }

    fn push(
        &mut self,
        number: u8,
        ops: Vec<Op>,
        mut seen: Vec<EntryId>,
        late: Vec<EntryId>,
        step: Step,
    ) {
        let prev = match step {
            Step::Next | Step::Back => self.last.get(&number).copied(),
            // A second branch of the chain.
            Step::Fork(from) => Some(from),
        };
        seen.sort();
        seen.dedup();
        seen.retain(|id| Some(*id) != prev);
        if prev.is_none() && seen.is_empty() {
            seen.extend(self.all.get(1).map(VerifiedEntry::id));
        }
        let parents = prev.iter().chain(&seen);
        let after = parents.filter_map(|id| Some(self.find(*id)?.entry().hlc)).max();
        let hlc = match step {
            Step::Back => after.unwrap_or(Hlc::from_ms(1)),
            Step::Next | Step::Fork(_) => {
                let causes = after.unwrap_or(Hlc::from_ms(0));
                Hlc::next(causes, u64::from(number)).unwrap_or(causes)
            }
        };
        let seq = prev.and_then(|id| Some(self.find(id)?.entry().seq + 1)).unwrap_or(0);
        let drive = self.drive;
        let entry = Entry {
            drive,
            device: device(number),
            seq,
            prev,
            seen,
            late,
            hlc,
            saved_at_ms: 1 + self.all.len() as u64,
            ops,
        };
        let Ok(entry) = VerifiedEntry::sign(entry, &signer(number)) else { return };
        self.last.insert(number, entry.id());
        for (index, op) in entry.entry().ops.iter().enumerate() {
            self.versions.push(VersionId::new(entry.id(), index as u32));
            match op {
                Op::MkDir { dir, .. } => self.dirs.push(*dir),
                Op::Checkout { dir, name } => {
                    let version = VersionId::new(entry.id(), index as u32);
                    self.checkouts.push((*dir, name.clone(), version));
                }
                _ => {}
            }
        }
        self.all.push(entry);
    }

    /// One more entry, as the bytes say.
    fn step(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let number = u.int_in_range(0..=DEVICES - 1)?;
        let mut ops = Vec::new();
        for _ in 0..u.int_in_range(0..=OPS_MAX)? {
            ops.push(self.op(u)?);
        }
        let mut seen = Vec::new();
        for _ in 0..u.int_in_range(0..=3)? {
            seen.push(self.entry_id(u)?);
        }
        let mut late = Vec::new();
        if u.ratio(1, 6)? {
            late.push(self.entry_id(u)?);
        }
        let step = match u.int_in_range(0..=9)? {
            0 => Step::Fork(self.entry_id(u)?),
            1 => Step::Back,
            _ => Step::Next,
        };
        self.push(number, ops, seen, late, step);
        Ok(())
    }

    /// An entry that is there, mostly.
    fn entry_id(&self, u: &mut Unstructured<'_>) -> Result<EntryId> {
        if u.ratio(1, 20)? {
            return Ok(EntryId::from_bytes([u8::arbitrary(u)?; 32]));
        }
        // Late ones more often: far back, little is concurrent.
        let back = u.int_in_range(0..=7usize)?;
        let at = self.all.len().saturating_sub(1 + back);
        Ok(self.all.get(at).or(self.all.first()).map_or(EntryId::from_bytes([0; 32]), |e| e.id()))
    }

    fn version(&self, u: &mut Unstructured<'_>) -> Result<VersionId> {
        match u.ratio(1, 12)? || self.versions.is_empty() {
            true => Ok(VersionId::new(self.entry_id(u)?, u32::from(u8::arbitrary(u)?) % 6)),
            false => u.choose(&self.versions).copied(),
        }
    }

    fn bases(&self, u: &mut Unstructured<'_>) -> Result<Vec<VersionId>> {
        (0..u.int_in_range(0..=3)?).map(|_| self.version(u)).collect()
    }

    fn dir(&self, u: &mut Unstructured<'_>) -> Result<DirId> {
        match u.ratio(1, 20)? {
            true => Ok(DirId::from_bytes([u8::arbitrary(u)?; 32])),
            false => u.choose(&self.dirs).copied(),
        }
    }

    fn lock(&self, u: &mut Unstructured<'_>) -> Result<Op> {
        if self.checkouts.is_empty() || u.ratio(1, 3)? {
            let (dir, name) = (self.dir(u)?, name(u)?);
            return Ok(match u.ratio(1, 8)? {
                true => Op::Break { dir, name, checkout: self.version(u)? },
                false => Op::Checkout { dir, name },
            });
        }
        let (dir, name, checkout) = u.choose(&self.checkouts)?.clone();
        Ok(match u.ratio(1, 2)? {
            true => Op::GiveBack { dir, name, checkout },
            false => Op::Break { dir, name, checkout },
        })
    }

    fn op(&self, u: &mut Unstructured<'_>) -> Result<Op> {
        let side = |u: &mut Unstructured<'_>| {
            let comes = match u.ratio(1, 2)? {
                true => Arrival::Dir { dir: self.dir(u)?, from: self.version(u)? },
                false => Arrival::Value(value(u)?),
            };
            Ok(ExchangeSide { dir: self.dir(u)?, name: name(u)?, comes, bases: self.bases(u)? })
        };
        Ok(match u.int_in_range(0..=18)? {
            0..=3 => Op::Put {
                dir: self.dir(u)?,
                name: name(u)?,
                value: value(u)?,
                bases: self.bases(u)?,
            },
            4 => Op::Put {
                dir: self.dir(u)?,
                name: name(u)?,
                value: Value::Gone { moved_to: Some((self.dir(u)?, name(u)?)) },
                bases: self.bases(u)?,
            },
            5 | 6 => {
                let (parent, name) = (self.dir(u)?, name(u)?);
                let away = if u.ratio(1, 4)? { self.bases(u)? } else { Vec::new() };
                let dir = DirId::derive(&self.drive, &parent, &name, &away);
                Op::MkDir { parent, name, dir, attr: DirAttr::default(), bases: away }
            }
            7..=9 => Op::Move {
                dir: self.dir(u)?,
                from: self.version(u)?,
                to: (self.dir(u)?, name(u)?),
                bases: self.bases(u)?,
            },
            10 => Op::Exchange { a: side(u)?, b: side(u)? },
            11 => Op::Resolve { dir: self.dir(u)?, name: name(u)?, drop: self.bases(u)? },
            12 => Op::SetDir { dir: self.dir(u)?, attr: DirAttr::default() },
            13 => self.admit(u.int_in_range(1..=DEVICES - 1)?),
            14 => {
                let device = device(u.int_in_range(0..=DEVICES - 1)?);
                let frontier = vec![self.entry_id(u)?];
                match u.int_in_range(0..=3)? {
                    0 => Op::Remove { device, frontier },
                    1 => Op::SetRole { device, role: Role::Reader, frontier },
                    2 => Op::SetRole { device, role: Role::Owner, frontier: Vec::new() },
                    _ => Op::Rename { what: Named::Device(device), name: "other".into() },
                }
            }
            15 => match u.int_in_range(0..=3)? {
                0 => Op::Retain(Policy { keep_all_s: 1, keep_daily_s: 2 }),
                at => {
                    plain_ops().into_iter().nth(at - 1).unwrap_or(Op::Snapshot { name: "s".into() })
                }
            },
            _ => self.lock(u)?,
        })
    }
}

/// Where an entry stands in its chain.
enum Step {
    /// After the last.
    Next,
    /// After the last, with a time that has passed.
    Back,
    /// After an earlier one, perhaps somebody else's.
    Fork(EntryId),
}

fn name(u: &mut Unstructured<'_>) -> Result<EntryName> {
    EntryName::new(u.choose(&NAMES)?).map_err(|_| arbitrary::Error::IncorrectFormat)
}

fn value(u: &mut Unstructured<'_>) -> Result<Value> {
    Ok(match u.int_in_range(0..=5)? {
        0 => Value::Gone { moved_to: None },
        1 => Value::Symlink(SymlinkValue {
            target: vec![b'a' + u8::arbitrary(u)? % 3],
            mtime: Timestamp::default(),
            owner: None,
        }),
        _ => {
            let text = [u8::arbitrary(u)? % 5];
            let id = ContentId::chunk(ChunkId::of(&IdKey::from_bytes([1; 32]), &text));
            let mode = if u.ratio(1, 4)? { 0o600 } else { 0o644 };
            let content = Content { id, len: 1 };
            let (mtime, xattrs) = (Timestamp::default(), Xattrs::new());
            Value::File(FileValue { content, mode, mtime, xattrs, owner: None })
        }
    })
}

fn script_of(input: &[u8]) -> Script {
    let mut u = Unstructured::new(input);
    let mut script = Script::begin();
    while !u.is_empty() && script.all.len() < ENTRIES_MAX && script.step(&mut u).is_ok() {}
    script
}

fn feed(journal: &Journal, entries: &[&VerifiedEntry]) {
    let bytes: Vec<Arc<[u8]>> = entries.iter().map(|entry| Arc::clone(entry.bytes())).collect();
    if let Err(error) = journal.receive(&bytes, Now { wall_ms: 1 }) {
        panic!("the journal takes nothing in: {error}");
    }
}

/// Again and again until nothing more is taken: what comes before its author's admission is taken when it comes again.
fn feed_all(journal: &Journal, batches: &[Vec<&VerifiedEntry>]) {
    loop {
        let before = journal.frontier();
        batches.iter().for_each(|batch| feed(journal, batch));
        if journal.frontier() == before {
            return;
        }
    }
}

pub(super) fn two_orders(input: &[u8]) {
    let script = script_of(input);
    let Some((genesis, rest)) = script.all.split_first() else { return };
    let (one, _) = memory_journal(genesis);
    feed_all(&one, &[rest.iter().collect::<Vec<_>>()]);
    let (other, _) = memory_journal(genesis);
    // Another order, which the input decides too, one by one and each twice.
    let mut order: Vec<&VerifiedEntry> = rest.iter().collect();
    let salt = blake3::hash(input);
    order.sort_by_key(|entry| {
        *blake3::keyed_hash(salt.as_bytes(), entry.id().as_bytes()).as_bytes()
    });
    feed_all(&other, &order.iter().map(|entry| vec![*entry]).collect::<Vec<_>>());
    assert_eq!(one.frontier(), other.frontier(), "not the same entries");
    assert_eq!(one.counts(), other.counts(), "the order of arrival matters");
    assert_eq!(one.tree_hash(), other.tree_hash(), "the order of arrival matters");
    assert_eq!(one.members(), other.members(), "the order of arrival matters");
    assert_eq!(one.conflicts().ok(), other.conflicts().ok(), "the order of arrival matters");
    let (hash, counts) = (one.tree_hash(), one.counts());
    assert_eq!(one.checkouts().ok(), other.checkouts().ok(), "the order of arrival matters");
    for (.., checkout) in &script.checkouts {
        let fates = [&one, &other].map(|journal| journal.checkout_fate(*checkout).ok());
        assert_eq!(fates[0], fates[1], "the order of arrival matters");
    }
    one.rebuild_state().unwrap_or_else(|error| panic!("it cannot be folded anew: {error}"));
    assert_eq!(
        (one.tree_hash(), one.counts()),
        (hash, counts),
        "folding anew gives something else"
    );
}

/// Scripts long enough to reach far.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    (0..12u8)
        .map(|seed| {
            let mut bytes = vec![0; 700];
            blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
            bytes
        })
        .collect()
}

/// The entries of one script.
pub(super) fn some_entries() -> Vec<VerifiedEntry> {
    static SOME: LazyLock<Vec<VerifiedEntry>> = LazyLock::new(|| {
        let script = script_of(&seeds().swap_remove(0));
        script.all.into_iter().take(12).collect()
    });
    SOME.clone()
}

/// A journal of them, with its disk.
pub(super) fn stored_journal() -> (Journal, Arc<Memory>) {
    let entries = some_entries();
    let (journal, storage) = memory_journal(&genesis());
    feed(&journal, &entries.iter().skip(1).collect::<Vec<_>>());
    (journal, storage)
}

/// The same without.
pub(super) fn journal_of_some() -> Journal {
    stored_journal().0
}
