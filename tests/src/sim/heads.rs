//! Which versions stand under a name, and which of them everybody is shown there.
//!
//! Leaves out: what operations make ([`super`]), names of copies.

use super::*;

impl Oracle {
    /// What named `id` as a base and takes effect: accepted and not skipped, or not accepted but itself replaced by
    /// accepted work.
    pub(super) fn superseders(&self, id: &VersionId) -> Vec<VersionId> {
        let named = self.supersede.get(id).into_iter().flatten();
        let acts = |by: &&VersionId| match self.accepted(&by.entry) {
            true => !self.versions[by].skipped,
            false => self.superseded(by),
        };
        named.filter(acts).copied().collect()
    }

    pub(super) fn superseded(&self, id: &VersionId) -> bool {
        let (mut queue, mut passed) = (vec![*id], BTreeSet::new());
        while let Some(id) = queue.pop() {
            for by in self.supersede.get(&id).into_iter().flatten() {
                match self.accepted(&by.entry) {
                    true if !self.versions[by].skipped => return true,
                    false if passed.insert(*by) => queue.push(*by),
                    _ => {}
                }
            }
        }
        false
    }

    pub(super) fn ancestors(&self, id: &VersionId) -> BTreeSet<VersionId> {
        let (mut out, mut queue) = (BTreeSet::new(), self.versions[id].replaces.clone());
        while let Some(id) = queue.pop() {
            if out.insert(id) {
                let below = self.versions.get(&id).map(|v| v.replaces.clone());
                queue.extend(below.unwrap_or_default());
            }
        }
        out
    }

    pub(super) fn counts(&self, id: &VersionId) -> bool {
        self.accepted(&id.entry) && !self.versions[id].skipped
    }

    pub(super) fn is_head(&self, id: &VersionId) -> bool {
        self.counts(id) && !self.superseded(id)
    }

    pub(super) fn register(&self, at: &Reg) -> Vec<VersionId> {
        self.registers.get(at).cloned().unwrap_or_default()
    }

    pub(super) fn leaf(&self, id: &VersionId) -> bool {
        matches!(self.versions[id].thing, Thing::File(_) | Thing::Link(_))
    }

    /// Placements of `dir` at `at` that stand, and whether it stands by a void removal only.
    pub(super) fn standing(&self, dir: DirId, at: &Reg) -> (Vec<VersionId>, bool) {
        let is_dir = |id: &VersionId| self.versions[id].thing == Thing::Dir(dir);
        let all: Vec<VersionId> =
            self.register(at).into_iter().filter(|id| is_dir(id) && self.counts(id)).collect();
        let heads: Vec<VersionId> = all.iter().filter(|id| self.is_head(id)).copied().collect();
        let inside: Vec<EntryId> = self
            .versions
            .values()
            .filter(|v| v.reg.as_ref().is_some_and(|r| r.0 == dir) && v.thing != Thing::Nothing)
            .filter(|v| self.accepted(&v.entry))
            .map(|v| v.entry)
            .collect();
        let replaces = |by: &VersionId| {
            let v = &self.versions[by];
            v.thing == Thing::Dir(dir) || (v.left == Some(dir) && v.thing == Thing::Nothing)
        };
        let effective: BTreeSet<EntryId> = all
            .iter()
            .flat_map(|id| self.superseders(id))
            .filter(|by| !replaces(by))
            .map(|by| by.entry)
            .filter(|by| inside.iter().all(|e| self.past[by].contains(e)))
            .collect();
        let void = all.iter().any(|id| {
            !self.superseders(id).iter().any(replaces)
                && !effective.iter().any(|by| self.past[by].contains(&id.entry))
        });
        (heads, void)
    }

    pub(super) fn quiet(&self, h: &VersionId, other: &VersionId) -> bool {
        let (v, o) = (&self.versions[h], &self.versions[other]);
        let (mut kept, mut foreign) = (BTreeSet::new(), BTreeSet::new());
        let mut queue = v.bases.clone();
        while let Some(b) = queue.pop() {
            if self.versions[&b].thing != v.thing {
                foreign.extend(self.leaf(&b).then_some(b));
            } else if kept.insert(b) {
                queue.extend(&self.versions[&b].bases);
            }
        }
        let mut seen = self.ancestors(other);
        seen.insert(*other);
        v.thing != o.thing
            && foreign.is_subset(&seen)
            && self.ancestors(other).iter().any(|x| {
                let past = &self.versions[x];
                past.thing == v.thing
                    && (kept.contains(x) || v.bases.iter().all(|b| past.bases.contains(b)))
            })
    }

    pub(super) fn official(
        &self,
        all: &[VersionId],
        quiet: &[VersionId],
        here: &[DirId],
    ) -> Vec<VersionId> {
        let mut off: Vec<VersionId> = Vec::new();
        for id in all {
            let v = &self.versions[id];
            let elsewhere = match v.thing {
                Thing::Dir(dir) => !here.contains(&dir) && !self.superseded(id),
                _ => false,
            };
            if !self.counts(id) || quiet.contains(id) || elsewhere {
                continue;
            }
            let Some(first) = off.first() else {
                off.push(*id);
                continue;
            };
            let ancestors = self.ancestors(id);
            let first = &self.versions[first].thing;
            let abandoned = off.iter().all(|o| {
                let mut by = self.supersede.get(o).into_iter().flatten();
                let here = |by: &VersionId| self.counts(by) && self.versions[by].reg == v.reg;
                self.superseded(o) && !by.any(here)
            });
            if (*first == Thing::Nothing && v.thing != Thing::Nothing)
                || off.iter().any(|o| {
                    ancestors.contains(o) || (self.leaf(o) && self.leaf(id) && self.quiet(o, id))
                })
                || abandoned
            {
                off = vec![*id];
            } else if *first == v.thing {
                off.push(*id);
            }
        }
        off
    }

    pub(super) fn backup(&self, h: &VersionId) -> bool {
        let v = &self.versions[h];
        self.versions.iter().any(|(id, o)| {
            o.entry == v.entry
                && o.reg.is_some()
                && o.reg != v.reg
                && self.leaf(id)
                && o.thing != v.thing
                && !v.bases.iter().any(|b| {
                    let b = &self.versions[b];
                    b.thing == o.thing && b.reg == v.reg
                })
                && o.bases.iter().any(|b| {
                    let b = &self.versions[b];
                    b.thing == v.thing && b.reg == o.reg
                })
        })
    }
}
