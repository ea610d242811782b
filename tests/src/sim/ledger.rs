//! What really happened, seen from above: every entry of the run, who holds it, and what must hold of it.
//!
//! Leaves out: the tree ([`super::oracle`]) and the devices' insides. What is known here comes from the entries' own
//! bytes and from what calls returned.
//!
//! Checked here, after every change of a journal: J1 J9 T1 H1 H3, and causal delivery.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use journal::signed::VerifiedEntry;
use journal::{DeviceId, EntryId, Frontier};

use super::disk::{Mark, entry_mark};
use super::fail::{Broken, ensure};

/// A device of the run, by its place in it. Two copies of one disk are two.
pub(crate) type Who = usize;

/// One entry.
pub(crate) struct Known {
    pub(crate) entry: VerifiedEntry,
    pub(crate) mark: Mark,
    pub(crate) parents: Vec<usize>,
    /// Virtual time at which it was first seen.
    pub(crate) at: u64,
    /// Devices that hold it or once did.
    pub(crate) holders: u64,
    /// Whether an own later entry names it late.
    pub(crate) late: bool,
}

/// A set of entries, by their numbers in the ledger.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Held {
    words: Vec<u64>,
    /// Sum of the entries' ids.
    digest: u128,
    len: usize,
}

impl Held {
    pub(crate) fn has(&self, at: usize) -> bool {
        self.words.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 == 1)
    }

    fn add(&mut self, at: usize, id: &EntryId) {
        if self.has(at) {
            return;
        }
        if self.words.len() <= at / 64 {
            self.words.resize(at / 64 + 1, 0);
        }
        self.words[at / 64] |= 1 << (at % 64);
        let part = id.as_bytes().first_chunk::<16>().expect("an id is longer");
        self.digest = self.digest.wrapping_add(u128::from_le_bytes(*part));
        self.len += 1;
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn digest(&self) -> u128 {
        self.digest
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.words.iter().enumerate().flat_map(|(n, word)| {
            (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| n * 64 + bit)
        })
    }
}

/// See the module's words.
#[derive(Default)]
pub(crate) struct Ledger {
    pub(crate) entries: Vec<Known>,
    by_id: BTreeMap<EntryId, usize>,
    /// The tree hash of each set of entries that some device has held.
    hashes: BTreeMap<u128, [u8; 32]>,
    /// Entries that are not what an honest device writes: no other may take them in.
    pub(crate) invalid: BTreeSet<EntryId>,
    /// Devices with more than one entry on one predecessor.
    pub(crate) forked: BTreeSet<DeviceId>,
    followers: BTreeSet<(DeviceId, Option<EntryId>)>,
}

impl Ledger {
    pub(crate) fn number(&self, id: &EntryId) -> Option<usize> {
        self.by_id.get(id).copied()
    }

    pub(crate) fn get(&self, id: &EntryId) -> Option<&Known> {
        self.number(id).map(|at| &self.entries[at])
    }

    /// Notes an entry; its parents must be known.
    pub(crate) fn learn(&mut self, entry: VerifiedEntry, now: u64) -> Result<usize, Broken> {
        let id = entry.id();
        if let Some(at) = self.number(&id) {
            return Ok(at);
        }
        ensure("J1", !self.invalid.contains(&id), || format!("invalid entry {id:?} was taken in"))?;
        let mut parents = Vec::new();
        for parent in entry.entry().parents() {
            let number = self.number(&parent);
            ensure("J-causal", number.is_some(), || {
                format!("entry {id:?} was taken in without {parent:?}, which it has seen")
            })?;
            parents.extend(number);
        }
        let body = entry.entry();
        for parent in parents.iter().map(|at| &self.entries[*at]) {
            ensure("H1", body.hlc > parent.entry.entry().hlc, || {
                format!("{id:?} is not after {:?}, which it has seen", parent.entry.id())
            })?;
        }
        if !self.followers.insert((body.device, body.prev)) {
            self.forked.insert(body.device);
        }
        for start in &body.late {
            let mut at = body.prev.and_then(|prev| self.number(&prev));
            let mut run = Vec::new();
            while let Some(number) = at {
                run.push(number);
                let found = &self.entries[number].entry;
                if found.id() == *start {
                    run.drain(..).for_each(|number| self.entries[number].late = true);
                    break;
                }
                at = found.entry().prev.and_then(|prev| self.number(&prev));
            }
        }
        let number = self.entries.len();
        let mark = entry_mark(entry.bytes());
        let (at, holders, late) = (now, 0, false);
        self.entries.push(Known { entry, mark, parents, at, holders, late });
        self.by_id.insert(id, number);
        Ok(number)
    }

    /// `who` holds `at` now; it must hold what that has seen.
    pub(crate) fn hold(&mut self, who: Who, held: &mut Held, at: usize) -> Result<(), Broken> {
        let known = &mut self.entries[at];
        known.holders |= 1 << who;
        let missing = known.parents.iter().find(|parent| !held.has(**parent)).copied();
        let id = known.entry.id();
        ensure("J-causal", missing.is_none(), || {
            format!("device {who} holds {id:?} and not what that has seen")
        })?;
        held.add(at, &id);
        Ok(())
    }

    /// Everything behind `frontier`.
    pub(crate) fn closure(&self, frontier: &Frontier) -> Held {
        let mut held = Held::default();
        let mut queue: Vec<usize> =
            frontier.tips.iter().filter_map(|tip| self.number(&tip.entry)).collect();
        while let Some(at) = queue.pop() {
            if !held.has(at) {
                held.add(at, &self.entries[at].entry.id());
                queue.extend(&self.entries[at].parents);
            }
        }
        held
    }

    /// Equal sets have equal trees.
    pub(crate) fn same_tree(
        &mut self,
        who: Who,
        held: &Held,
        hash: [u8; 32],
    ) -> Result<(), Broken> {
        let known = *self.hashes.entry(held.digest).or_insert(hash);
        ensure("J9/T1", known == hash, || {
            format!("device {who} shows another tree of {} entries than another one did", held.len)
        })
    }

    /// The entries of a set.
    pub(crate) fn of(&self, held: &Held) -> Vec<VerifiedEntry> {
        held.iter().map(|at| self.entries[at].entry.clone()).collect()
    }

    /// Whether some other device than `who` holds the entry, or once did.
    pub(crate) fn is_elsewhere(&self, who: Who, at: usize) -> bool {
        self.entries[at].holders & !(1 << who) != 0
    }

    /// The bytes of an entry.
    pub(crate) fn bytes(&self, at: usize) -> Arc<[u8]> {
        Arc::clone(self.entries[at].entry.bytes())
    }
}
