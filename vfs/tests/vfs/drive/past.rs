//! The past of the published tree: its batches once more, up to a moment.

use std::collections::BTreeSet;

use journal::hlc::Hlc;
use journal::id::{DirId, EntryId};
use journal::name::{EntryName, Register};
use journal::op::{Op, Value};
use journal::order::OrderKey;
use journal::past::Moment;
use journal::view::{HistoryStanding, HistoryVersion, Once, OnceNode, Standing, ViewNode};
use vfs::{Past, Snapshot, StateError, Told};

use super::{Drive, Head, Published, fold};

impl Drive {
    /// Batches count as published at this time from now on, milliseconds since 1970.
    pub fn set_time(&self, ms: u64) {
        self.0.lock().unwrap().now_ms = ms;
    }

    /// Names what is published now.
    pub fn snapshot(&self, name: &str) {
        let mut published = self.0.lock().unwrap();
        let (entries, ms) = (published.entries, published.now_ms);
        published.snapshots.push((name.to_owned(), entries, ms));
    }

    /// Says that a file's newest version is out of reach, or that none is.
    pub fn arrive(&self, name: Option<&str>) {
        self.0.lock().unwrap().arriving = name.map(str::to_owned);
    }

    fn then(&self, moment: Moment) -> Published {
        let published = self.0.lock().unwrap();
        let mut then = Published::default();
        for (at, (ops, ms)) in published.batches.iter().zip(&published.times).enumerate() {
            let within = match moment {
                Moment::At { ms: last } => *ms <= last,
                Moment::Snapshot(entry) => entry_of(at as u64 + 1) <= entry,
            };
            if within {
                let ops: Vec<Op> = ops.clone();
                then.entries = at as u64;
                then.seal(ops);
            }
        }
        then
    }
}

fn entry_of(number: u64) -> EntryId {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    EntryId::from_bytes(bytes)
}

impl Past for Drive {
    fn generation(&self) -> u64 {
        let published = self.0.lock().unwrap();
        published.entries + published.snapshots.len() as u64
    }

    fn snapshots(&self) -> Result<Vec<Snapshot>, StateError> {
        let published = self.0.lock().unwrap();
        let all = published.snapshots.iter().map(|(name, entries, ms)| Snapshot {
            name: name.clone(),
            moment: Moment::Snapshot(entry_of(*entries)),
            taken_ms: *ms,
        });
        Ok(all.collect())
    }

    fn existed(&self, moment: Moment) -> Result<bool, StateError> {
        Ok(!self.then(moment).batches.is_empty())
    }

    fn differ(&self, one: Moment, other: Moment) -> Result<bool, StateError> {
        Ok(self.then(one).batches.len() != self.then(other).batches.len())
    }

    fn lookup_then(
        &self,
        moment: Moment,
        dir: DirId,
        shown: &EntryName,
    ) -> Result<Option<ViewNode>, StateError> {
        Ok(self.then(moment).lookup(dir, shown))
    }

    fn list_then(&self, moment: Moment, dir: DirId) -> Result<Vec<ViewNode>, StateError> {
        Ok(self.then(moment).view(dir))
    }

    fn once(&self, dir: DirId) -> Result<Vec<OnceNode>, StateError> {
        let names: BTreeSet<EntryName> = {
            let published = self.0.lock().unwrap();
            let registers = published.registers.iter().filter(|((d, _), _)| *d == dir);
            registers.map(|((_, name), _)| EntryName::new(name).unwrap()).collect()
        };
        names.iter().filter_map(|name| self.once_at(dir, name).transpose()).collect()
    }

    fn once_at(&self, dir: DirId, name: &EntryName) -> Result<Option<OnceNode>, StateError> {
        let published = self.0.lock().unwrap();
        let Some(heads) = published.registers.get(&fold(dir, name)) else { return Ok(None) };
        let mut queue: Vec<_> = heads.iter().map(|version| version.id).collect();
        while let Some(version) = queue.pop().and_then(|id| published.versions.get(&id)) {
            let what = match &version.head {
                Head::Dir(dir) => Once::Dir(*dir),
                Head::Value(Value::Gone { .. }) => {
                    queue.extend(&version.bases);
                    continue;
                }
                Head::Value(_) => Once::Leaf,
            };
            return Ok(Some(OnceNode { name: version.name.clone(), what }));
        }
        Ok(None)
    }

    fn history(&self, dir: DirId, name: &EntryName) -> Result<Vec<HistoryVersion>, StateError> {
        let published = self.0.lock().unwrap();
        let heads = published.registers.get(&fold(dir, name));
        let mut queue: Vec<_> = heads.into_iter().flatten().map(|version| version.id).collect();
        let (mut out, mut passed) = (Vec::new(), BTreeSet::new());
        while let Some(version) = queue.pop().and_then(|id| published.versions.get(&id)) {
            if !passed.insert(version.id) {
                continue;
            }
            queue.extend(&version.bases);
            let Head::Value(value) = &version.head else { continue };
            let number = u64::from_be_bytes(version.id.entry.as_bytes()[..8].try_into().unwrap());
            let hlc = Hlc::from_raw(number);
            let (device, entry) = (version.author, version.id.entry);
            out.push(HistoryVersion {
                version: version.id,
                register: Register::new(dir, version.name.clone()),
                value: value.clone(),
                author: version.author,
                saved_at_ms: published.times[number as usize - 1],
                order: OrderKey { published: hlc, hlc, device, entry },
                standing: HistoryStanding::Past,
            });
        }
        out.sort_by_key(|version| std::cmp::Reverse(version.version));
        Ok(out)
    }

    fn told(&self, dir: DirId, shown: &EntryName) -> Result<Option<Told>, StateError> {
        let published = self.0.lock().unwrap();
        let arriving = published.arriving.as_deref() == Some(shown.as_str());
        Ok(published.lookup(dir, shown).map(|node| {
            let author = match node.standing {
                Standing::Copy => "somebody".to_owned(),
                Standing::Official => "me".to_owned(),
            };
            Told { node, arriving, author }
        }))
    }
}
