//! Dividing operations among entries when they do not fit one.
//!
//! Leaves out: signing and writing them ([`super::commit`]).
//!
//! Invariants:
//! - operations tied by a rename or a save dance share an entry: a `Gone` and what stands where it
//!   went, and all that replace one version;
//! - within an entry operations keep the order they were given in.

use std::collections::BTreeMap;

use crate::codec::SIGNATURE_LEN;
use crate::entry::{ENTRY_LEN_MAX, OPS_MAX, SEEN_MAX};
use crate::id::{ID_LEN, VersionId};
use crate::name::Register;
use crate::op::{Arrival, Op, Value};
use crate::records::RegKey;

/// Bytes an entry needs beside its operations: header, ids, the longest list of seen heads.
const OVERHEAD_LEN: usize = 512 + SIGNATURE_LEN + SEEN_MAX * ID_LEN;
/// Bytes of operations that fit one entry.
pub(super) const OPS_LEN_MAX: usize = ENTRY_LEN_MAX - OVERHEAD_LEN;

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Tie {
    Register(RegKey),
    Version(VersionId),
}

fn ties(op: &Op) -> Vec<Tie> {
    let register = |dir, name: &crate::name::EntryName| {
        Tie::Register(RegKey::of(&Register::new(dir, name.clone())))
    };
    let mut out = Vec::new();
    let versions = |ids: &[VersionId], out: &mut Vec<Tie>| {
        out.extend(ids.iter().copied().map(Tie::Version));
    };
    match op {
        Op::Put { dir, name, value, bases } => {
            out.push(register(*dir, name));
            if let Value::Gone { moved_to: Some((dir, name)) } = value {
                out.push(register(*dir, name));
            }
            versions(bases, &mut out);
        }
        Op::MkDir { parent, name, bases, .. } => {
            out.push(register(*parent, name));
            versions(bases, &mut out);
        }
        Op::Move { from, to, bases, .. } => {
            out.push(register(to.0, &to.1));
            versions(&[*from], &mut out);
            versions(bases, &mut out);
        }
        Op::Exchange { a, b } => {
            for side in [a, b] {
                out.push(register(side.dir, &side.name));
                versions(&side.bases, &mut out);
                if let Arrival::Dir { from, .. } = &side.comes {
                    versions(&[*from], &mut out);
                }
            }
        }
        Op::Resolve { dir, name, drop } => {
            out.push(register(*dir, name));
            versions(drop, &mut out);
        }
        _ => {}
    }
    out
}

fn find(parents: &mut [usize], mut at: usize) -> usize {
    while let Some(up) = parents.get(at).copied().filter(|up| *up != at) {
        let above = parents.get(up).copied().unwrap_or(up);
        if let Some(slot) = parents.get_mut(at) {
            *slot = above;
        }
        at = above;
    }
    at
}

/// Indices of operations, entry by entry; none when tied ones do not fit one entry.
pub(super) fn split(ops: &[Op]) -> Option<Vec<Vec<usize>>> {
    let len = |op: &Op| postcard::experimental::serialized_size(op).unwrap_or(ENTRY_LEN_MAX);
    let lens: Vec<usize> = ops.iter().map(len).collect();
    if ops.len() <= OPS_MAX && lens.iter().sum::<usize>() <= OPS_LEN_MAX {
        return Some(vec![(0..ops.len()).collect()]);
    }
    let mut parents: Vec<usize> = (0..ops.len()).collect();
    let mut owner: BTreeMap<Tie, usize> = BTreeMap::new();
    for (at, op) in ops.iter().enumerate() {
        for tie in ties(op) {
            let other = *owner.entry(tie).or_insert(at);
            let (a, b) = (find(&mut parents, at), find(&mut parents, other));
            // The earlier one leads, so that groups come in the order they begin.
            if let Some(slot) = parents.get_mut(a.max(b)) {
                *slot = a.min(b);
            }
        }
    }
    let mut groups: BTreeMap<usize, (Vec<usize>, usize)> = BTreeMap::new();
    for (at, len) in lens.iter().enumerate() {
        let group = groups.entry(find(&mut parents, at)).or_default();
        group.0.push(at);
        group.1 += len;
    }
    let (mut out, mut entry, mut entry_len) = (Vec::new(), Vec::new(), 0);
    for (indices, len) in groups.into_values() {
        if indices.len() > OPS_MAX || len > OPS_LEN_MAX {
            return None;
        }
        if entry.len() + indices.len() > OPS_MAX || entry_len + len > OPS_LEN_MAX {
            out.push(std::mem::take(&mut entry));
            entry_len = 0;
        }
        entry.extend(indices);
        entry_len += len;
    }
    out.push(entry);
    out.iter_mut().for_each(|entry| entry.sort_unstable());
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{DirId, EntryId};
    use crate::name::EntryName;
    use crate::op::SymlinkValue;

    fn put(name: &str, len: usize, bases: Vec<VersionId>) -> Op {
        let value = Value::Symlink(SymlinkValue {
            target: vec![b'x'; len],
            mtime: Default::default(),
            owner: None,
        });
        Op::Put { dir: DirId::ROOT, name: EntryName::new(name).unwrap(), value, bases }
    }

    #[test]
    fn what_fits_stays_together() {
        let ops: Vec<Op> = (0..100).map(|n| put(&n.to_string(), 10, vec![])).collect();
        assert_eq!(split(&ops), Some(vec![(0..100).collect::<Vec<_>>()]));
    }

    #[test]
    fn entries_stay_within_their_limits_and_lose_nothing() {
        for (count, len) in [(10_000, 5), (300, 4000)] {
            let ops: Vec<Op> = (0..count).map(|n| put(&n.to_string(), len, vec![])).collect();
            let entries = split(&ops).unwrap();
            assert!(entries.len() > 1);
            let mut all: Vec<usize> = entries.concat();
            all.sort_unstable();
            assert_eq!(all, (0..count).collect::<Vec<_>>());
            for entry in entries {
                let size = |at: &usize| postcard::experimental::serialized_size(&ops[*at]).unwrap();
                assert!(entry.len() <= OPS_MAX);
                assert!(entry.iter().map(size).sum::<usize>() <= OPS_LEN_MAX);
            }
        }
    }

    #[test]
    fn both_ends_of_a_rename_share_an_entry() {
        let base = VersionId::new(EntryId::from_bytes([1; 32]), 0);
        let mut ops: Vec<Op> = (0..5000).map(|n| put(&n.to_string(), 5, vec![])).collect();
        let gone = Value::Gone { moved_to: Some((DirId::ROOT, EntryName::new("b").unwrap())) };
        let name = EntryName::new("a").unwrap();
        ops.insert(0, Op::Put { dir: DirId::ROOT, name, value: gone, bases: vec![base] });
        ops.push(put("b", 5, vec![]));
        ops.push(put("c", 5, vec![base]));
        let entries = split(&ops).unwrap();
        let home = entries.iter().find(|entry| entry.contains(&0)).unwrap();
        assert!(home.contains(&5001) && home.contains(&5002));
    }

    #[test]
    fn a_group_larger_than_an_entry_is_refused() {
        let base = VersionId::new(EntryId::from_bytes([1; 32]), 0);
        let ops: Vec<Op> = (0..5000).map(|n| put(&n.to_string(), 5, vec![base])).collect();
        assert_eq!(split(&ops), None);
    }
}
