//! All claims that a table knows, own and others', and which of them overlap.
//!
//! Leaves out: what follows from an overlap ([`super::table`]).
//!
//! Invariants:
//! - the two indexes say what the claims say;
//! - finding what overlaps costs as much as there is of it, and no walk of all claims.

use std::collections::{BTreeMap, BTreeSet};

use journal::id::{DeviceId, DirId, VersionId};

use super::Scope;

/// Whose claim, and its number there.
pub(super) type Key = (DeviceId, u64);

/// How a claim stands here.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum Standing {
    /// Own, and not decided.
    Asking,
    /// Own, and held.
    Own,
    /// Somebody else's, and granted from here.
    Promised,
    /// Somebody else's, and not (yet) granted from here.
    Waiting,
}

/// Whether its claimant holds it, as far as it said.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum Told {
    /// It asks.
    Asked,
    /// It says that it holds it.
    Held,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Entry {
    pub(super) scope: Scope,
    /// The directories whose locks would cover all of this, its own one first.
    pub(super) chain: Vec<DirId>,
    pub(super) priority: u64,
    pub(super) bases: Vec<VersionId>,
    pub(super) standing: Standing,
    pub(super) told: Told,
    /// When it was taken, by the table's clock; before the machine's start if it is older.
    pub(super) since_ms: i64,
    pub(super) unreachable: u32,
}

/// See the module's words.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Book {
    entries: BTreeMap<Key, Entry>,
    /// Claims of exactly this scope.
    exact: BTreeSet<(Scope, Key)>,
    /// Claims that a lock of this directory would cover.
    under: BTreeSet<(DirId, Key)>,
}

/// `above`, beginning with the directory that the scope is directly in, or is.
pub(super) fn chain(scope: &Scope, above: Vec<DirId>) -> Vec<DirId> {
    let own = match scope {
        Scope::Name(register) => register.dir,
        Scope::Below(dir) => *dir,
    };
    if above.first() == Some(&own) {
        return above;
    }
    let mut chain = vec![own];
    chain.extend(above.into_iter().filter(|dir| *dir != own));
    chain
}

const FIRST: Key = (DeviceId::from_bytes([0; 32]), 0);

impl Book {
    pub(super) fn insert(&mut self, key: Key, entry: Entry) {
        self.remove(&key);
        self.exact.insert((entry.scope.clone(), key));
        for dir in &entry.chain {
            self.under.insert((*dir, key));
        }
        self.entries.insert(key, entry);
    }

    pub(super) fn remove(&mut self, key: &Key) -> Option<Entry> {
        let entry = self.entries.remove(key)?;
        self.exact.remove(&(entry.scope.clone(), *key));
        for dir in &entry.chain {
            self.under.remove(&(*dir, *key));
        }
        Some(entry)
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// Scope and chain must stay as they are.
    pub(super) fn get_mut(&mut self, key: &Key) -> Option<&mut Entry> {
        self.entries.get_mut(key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Key, &Entry)> {
        self.entries.iter()
    }

    /// The claims of one device.
    pub(super) fn of(&self, device: DeviceId) -> impl Iterator<Item = (&Key, &Entry)> {
        self.entries.range((device, 0)..=(device, u64::MAX))
    }

    /// The claim of a device for exactly this scope.
    pub(super) fn exactly(&self, device: DeviceId, scope: &Scope) -> Option<Key> {
        let range = (scope.clone(), (device, 0))..=(scope.clone(), (device, u64::MAX));
        self.exact.range(range).next().map(|(_, key)| *key)
    }

    fn keys_of(&self, scope: Scope) -> impl Iterator<Item = Key> {
        let begin = (scope.clone(), FIRST);
        self.exact.range(begin..).take_while(move |(s, _)| *s == scope).map(|(_, key)| *key)
    }

    /// Claims that cover all of what stands there.
    pub(super) fn covering(&self, scope: &Scope, chain: &[DirId]) -> Vec<Key> {
        let exact = self.keys_of(scope.clone());
        let above = chain.iter().filter(|dir| *scope != Scope::Below(**dir));
        exact.chain(above.flat_map(|dir| self.keys_of(Scope::Below(*dir)))).collect()
    }

    /// Claims that have something in common with it, each once.
    pub(super) fn overlapping(&self, scope: &Scope, chain: &[DirId]) -> Vec<Key> {
        let mut found = self.covering(scope, chain);
        if let Scope::Below(dir) = scope {
            let under = self.under.range((*dir, FIRST)..).take_while(|(d, _)| d == dir);
            found.extend(under.map(|(_, key)| *key));
            found.sort_unstable();
            found.dedup();
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use journal::name::{EntryName, Register};

    fn dir(n: u8) -> DirId {
        DirId::from_bytes([n; 32])
    }

    fn name(n: u8, text: &str) -> Scope {
        Scope::Name(Register::new(dir(n), EntryName::new(text).unwrap()))
    }

    fn key(n: u64) -> Key {
        (DeviceId::from_bytes([7; 32]), n)
    }

    fn put(book: &mut Book, n: u64, scope: Scope, above: &[u8]) {
        let chain = chain(&scope, above.iter().map(|n| dir(*n)).collect());
        let entry = Entry {
            scope,
            chain,
            priority: 1,
            bases: vec![],
            standing: Standing::Promised,
            told: Told::Held,
            since_ms: 0,
            unreachable: 0,
        };
        book.insert(key(n), entry);
    }

    #[test]
    fn a_name_and_a_directory_overlap_when_one_is_above_the_other() {
        // 1 is the root, 2 and 3 stand in it, 4 in 2.
        let mut book = Book::default();
        put(&mut book, 1, name(4, "a"), &[4, 2, 1]);
        put(&mut book, 2, name(3, "a"), &[3, 1]);
        put(&mut book, 3, Scope::Below(dir(4)), &[2, 1]);
        let overlapping = |scope: Scope, above: &[u8]| {
            let chain = chain(&scope, above.iter().map(|n| dir(*n)).collect());
            let mut found = book.overlapping(&scope, &chain);
            found.sort();
            found.into_iter().map(|(_, n)| n).collect::<Vec<_>>()
        };
        assert_eq!(overlapping(name(4, "a"), &[4, 2, 1]), [1, 3]);
        assert_eq!(overlapping(name(4, "b"), &[4, 2, 1]), [3]);
        assert_eq!(overlapping(name(3, "a"), &[3, 1]), [2]);
        assert_eq!(overlapping(Scope::Below(dir(2)), &[1]), [1, 3]);
        assert_eq!(overlapping(Scope::Below(dir(4)), &[4, 2, 1]), [1, 3]);
        assert_eq!(overlapping(Scope::Below(dir(1)), &[]), [1, 2, 3]);
        assert_eq!(overlapping(Scope::Below(dir(5)), &[4, 2, 1]), [3]);
        book.remove(&key(3));
        book.remove(&key(1));
        assert_eq!(book.under.len() + book.exact.len(), 2 + 1);
    }
}
