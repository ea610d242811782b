//! What must hold: after every change, at every message that leaves, and in the end.
//!
//! Leaves out: what the ledger holds by itself (J1, J9/T1, H1, causal delivery), the tree's own rules
//! ([`super::oracle`]).
//!
//! T2 oracle; T4 one place, one name; T5 nothing is lost; T6 official stays official; T7 stale bases never overwrite;
//! J2 nothing counts twice; J3 forks are proven; J5 removed members; H3 clocks; C1 C2 C4 durable before promised;
//! N what the exchange promises.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use journal::hlc::Hlc;
use journal::kv::mem::MemKv;
use journal::op::Value;
use journal::state::State;
use journal::{Authored, DirId, EntryId, Frontier, Journal, Op, Standing, VersionId, ViewKind};
use net::wire::Message;

use super::disk::Disk;
use super::fail::{Broken, ensure};
use super::host::Host;
use super::ledger::Who;
use super::oracle::{Node, Oracle, Thing, checkouts_differ, walk};
use super::user::Expect;
use super::world::World;

/// Entries up to which the oracle is asked while a run goes on.
const ORACLE_MAX: usize = 70;
/// Changes between two such looks.
const ORACLE_EVERY: u64 = 150;

/// What everybody had seen as official when all held the same.
#[derive(Default)]
pub(crate) struct Stable {
    digest: u128,
    len: usize,
    official: BTreeMap<(DirId, String), BTreeSet<VersionId>>,
    changes: u64,
}

/// What stood at a name before an act was sealed.
pub(crate) struct Before {
    official: Option<Vec<VersionId>>,
    dir_at: Option<(DirId, VersionId)>,
}

fn official_at(host: &Host, dir: DirId, name: &journal::EntryName) -> Option<Vec<VersionId>> {
    let node = host.journal.lookup(dir, name).ok().flatten()?;
    (node.standing == Standing::Official).then_some(node.merged)
}

/// The versions that an operation replaces.
fn replaced_by(op: &Op) -> Vec<&VersionId> {
    match op {
        Op::Put { bases, .. } | Op::MkDir { bases, .. } => bases.iter().collect(),
        Op::Move { from, bases, .. } => bases.iter().chain([from]).collect(),
        Op::Exchange { a, b } => a.bases.iter().chain(&b.bases).collect(),
        Op::Resolve { drop, .. } => drop.iter().collect(),
        _ => Vec::new(),
    }
}

impl World {
    /// After every change of a journal.
    pub(crate) fn check_changed(&mut self, who: Who) -> Result<(), Broken> {
        let Some(host) = self.devices[who].host.clone() else { return Ok(()) };
        let held = std::mem::take(&mut self.devices[who].held);
        let hash = host.journal.tree_hash();
        let same = self.ledger.same_tree(who, &held, hash);
        let counted = host.journal.counts().entries;
        let len = held.len();
        self.devices[who].held = held;
        same?;
        ensure("J2", counted == len as u64, || {
            format!("device {who} counts {counted} entries and has taken in {len}")
        })?;
        self.mix(u64::from_le_bytes(*hash.first_chunk().expect("a hash is longer")));
        self.check_bounds(who)?;
        self.stable.changes += 1;
        if len <= ORACLE_MAX && self.stable.changes.is_multiple_of(ORACLE_EVERY) {
            self.check_tree(who, &host)?;
        }
        self.check_stable()
    }

    /// The tree is the one the rules describe.
    fn check_tree(&mut self, who: Who, host: &Host) -> Result<Oracle, Broken> {
        let entries = self.ledger.of(&self.devices[who].held);
        let oracle = Oracle::of(&entries);
        let expected = oracle.nodes();
        let shown = walk(&host.journal);
        ensure("T2", shown == expected, || {
            let more: Vec<&Node> = shown.iter().filter(|node| !expected.contains(node)).collect();
            let less: Vec<&Node> = expected.iter().filter(|node| !shown.contains(node)).collect();
            format!("device {who} shows {more:#?} where the rules say {less:#?}")
        })?;
        let differ = checkouts_differ(&host.journal, &oracle);
        ensure("L8", differ.is_none(), || format!("device {who}: {}", differ.unwrap_or_default()))?;
        Ok(oracle)
    }

    /// An own entry's logical time is after all it has seen, and takes wall time only as far as the members' median.
    pub(crate) fn check_clock(&self, who: Who, host: &Host, id: &EntryId) -> Result<(), Broken> {
        let Some(bytes) = host.journal.entry(id) else { return Ok(()) };
        let Ok(entry) = self.verified.verify(&bytes) else { return Ok(()) };
        let causes = entry.entry().parents().filter_map(|p| self.ledger.get(&p));
        let causes = causes.map(|known| known.entry.entry().hlc).max().unwrap_or_default();
        let believed = host.bound.lock().believed_ms(host.now().wall_ms);
        let expected = Hlc::next(causes, believed);
        ensure("H3", Some(entry.entry().hlc) == expected, || {
            let found = entry.entry().hlc;
            format!("device {who} gives {id:?} the time {found:?}, not {expected:?}")
        })
    }

    /// Before the first push whatever nobody else holds must have been named late.
    pub(crate) fn check_prepared(&mut self, who: Who) -> Result<(), Broken> {
        let Some(host) = self.devices[who].host.clone() else { return Ok(()) };
        let (id, first) = (self.devices[who].id, who == 0);
        let device = &self.devices[who];
        if device.disk.is_dead() || device.fails || device.odd || device.evil {
            return Ok(());
        }
        let member = host.journal.member(id);
        if member.is_none_or(|m| m.removed) {
            return Ok(());
        }
        for at in self.devices[who].held.iter() {
            let known = &self.ledger.entries[at];
            let body = known.entry.entry();
            let alone = body.device == id && !body.ops.is_empty() && known.at < self.now;
            if alone && !known.late && !first && !self.ledger.is_elsewhere(who, at) {
                let what = format!(
                    "device {who} pushes {:?}, which nobody holds and no entry names late",
                    known.entry.id()
                );
                return Err(Broken { code: "N-late", what });
            }
        }
        Ok(())
    }

    fn is_durable(&self, disk: &Disk, at: usize) -> bool {
        self.rotten.contains(&at) || disk.is_durable(&self.ledger.entries[at].mark)
    }

    fn check_frontier(&self, who: Who, frontier: &Frontier) -> Result<(), Broken> {
        let disk = &self.devices[who].disk;
        for tip in &frontier.tips {
            let number = self.ledger.number(&tip.entry);
            let durable = number.is_some_and(|at| self.is_durable(disk, at));
            ensure("C4", durable, || {
                format!("device {who} says that it holds {:?}, which is not durable", tip.entry)
            })?;
        }
        Ok(())
    }

    /// Every message that leaves.
    pub(crate) fn check_sent(&mut self, who: Who, peer: Who, frame: &[u8]) -> Result<(), Broken> {
        let message = Message::decode(frame.get(4..).unwrap_or_default());
        let message = message.map_err(|error| Broken {
            code: "N-codec",
            what: format!("device {who} sends what cannot be read: {error}"),
        })?;
        let link = self.devices[who].sessions.get(&peer);
        let taken = link.map_or(0, |link| link.taken);
        let pushing = link.is_some_and(|link| link.courier.session().is_pushing());
        match &message {
            Message::Hello(hello) => self.check_frontier(who, &hello.frontier),
            Message::Have(have) => {
                ensure("N-have", have.upto <= taken, || {
                    let upto = have.upto;
                    format!("device {who} acknowledges batch {upto} of {peer}, took in {taken}")
                })?;
                self.check_frontier(who, &have.frontier)
            }
            Message::Probed(_, frontier) => self.check_frontier(who, frontier),
            Message::Holds(frontier) => self.check_holds(who, frontier),
            Message::Entries(batch) => {
                self.check_frontier(who, &batch.frontier)?;
                for bytes in &batch.entries {
                    self.check_entry_sent(who, bytes, pushing)?;
                }
                Ok(())
            }
            Message::Want(_) => {
                self.marks.hit("exchange: missing entry asked for");
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn check_entry_sent(
        &mut self,
        who: Who,
        bytes: &Arc<[u8]>,
        pushing: bool,
    ) -> Result<(), Broken> {
        let Ok(entry) = self.verified.verify(bytes) else {
            return Err(Broken {
                code: "J1",
                what: format!("device {who} passes on what is not signed"),
            });
        };
        let id = entry.id();
        let Some(at) = self.ledger.number(&id) else {
            let what = format!("device {who} sends {id:?}, which it never took in");
            return Err(Broken { code: "C4", what });
        };
        let device = &self.devices[who];
        ensure("C4", self.is_durable(&device.disk, at), || {
            format!("device {who} sends {id:?}, which is not durable")
        })?;
        let own = entry.entry().device == device.id;
        if own && !pushing && !device.odd && !device.evil {
            ensure("N-offer", self.ledger.is_elsewhere(who, at), || {
                format!("device {who} offers {id:?}, its own, which nobody else holds")
            })?;
        }
        if own && self.plan.contents {
            for mark in self.content_marks(&id) {
                let here = device.wrote.contains(&mark) && !device.rotted;
                ensure("C2", !here || device.disk.is_durable(&mark), || {
                    format!("device {who} sends {id:?}, whose content is not durable")
                })?;
            }
        }
        Ok(())
    }

    /// Who says that it holds every content has it durably.
    fn check_holds(&mut self, who: Who, frontier: &Frontier) -> Result<(), Broken> {
        let device = &self.devices[who];
        if device.rotted || frontier.tips.is_empty() {
            return Ok(());
        }
        for at in self.ledger.closure(frontier).iter() {
            let id = self.ledger.entries[at].entry.id();
            for mark in self.content_marks(&id) {
                ensure("C2", device.disk.is_durable(&mark), || {
                    format!("device {who} says that it holds the content of {id:?} and does not")
                })?;
            }
        }
        self.marks.hit("exchange: all content held");
        Ok(())
    }

    /// What stands where an act is about to be sealed.
    pub(crate) fn before_seal(&self, _who: Who, host: &Host, expect: &Expect) -> Before {
        let official = match expect {
            Expect::Replaces { dir, name, .. }
            | Expect::Beside { dir, name, .. }
            | Expect::Free { dir, name, .. } => official_at(host, *dir, name),
            _ => None,
        };
        let dir_at = match expect {
            // What came in since the act was begun may have moved its target below it, or taken the name.
            Expect::Stands { dir, parent, name, .. } => {
                let fits = !self.is_within(host, *parent, *dir)
                    && host.journal.lookup(*parent, name).ok().flatten().is_none();
                let node = host.journal.dir(*dir).ok().flatten().filter(|_| fits);
                node.map(|node| (node.parent, node.placement))
            }
            _ => None,
        };
        Before { official, dir_at }
    }

    /// What an act must have done for the one who did it, and must not have done to the others.
    pub(crate) fn check_sealed(
        &mut self,
        who: Who,
        host: &Host,
        expect: &Expect,
        before: Before,
        authored: &Authored,
    ) -> Result<(), Broken> {
        let id = self.devices[who].id;
        // Two branches of one chain may each replace the same; who came from a backup may forget what it did.
        if self.ledger.forked.contains(&id) || self.devices[who].odd || self.devices[who].evil {
            return Ok(());
        }
        match expect {
            Expect::Replaces { dir, name, bases } => {
                let official = before.official.unwrap_or_default();
                let Some(new) = authored.versions.first() else { return Ok(()) };
                // What came in since may have been merged with what it had in front of it.
                if !official.is_empty() && official.iter().all(|id| bases.contains(id)) {
                    let now = official_at(host, *dir, name).unwrap_or_default();
                    ensure("T6", now.contains(new), || {
                        format!("device {who} saved {name} over {official:?}, which stays: {now:?}")
                    })?;
                }
            }
            Expect::Beside { dir, name, bases } => {
                let official = before.official.unwrap_or_default();
                let stale = !official.is_empty() && !official.iter().any(|o| bases.contains(o));
                if stale {
                    let now = official_at(host, *dir, name).unwrap_or_default();
                    let stands = official.iter().any(|o| now.contains(o));
                    ensure("T7", stands, || {
                        format!(
                            "device {who} saved {name} from {bases:?} over {official:?}, which it had \
                             never seen: {now:?}"
                        )
                    })?;
                    self.marks.hit("conflict: stale save beside the official");
                }
            }
            Expect::Free { dir, name, before: was } => {
                if before.official.unwrap_or_default().contains(was) {
                    let left = host.journal.lookup(*dir, name).ok().flatten();
                    let still = left.is_some_and(|left| left.version == *was);
                    ensure("T-removed", !still, || {
                        format!("device {who} removed {name}, which is still there")
                    })?;
                }
            }
            Expect::Stands { dir, parent, name, before: was } => {
                if before.dir_at.is_some_and(|(_, placement)| placement == *was) {
                    let now = host.journal.dir(*dir).ok().flatten();
                    let there = now.is_some_and(|n| n.parent == *parent && n.shown == *name);
                    ensure("T-moved", there, || {
                        format!("device {who} moved {dir:?} to {name}, where it does not stand")
                    })?;
                }
            }
            Expect::Nothing => {}
        }
        Ok(())
    }

    /// Whether `dir` is `top`, below it, or below nothing.
    fn is_within(&self, host: &Host, mut dir: DirId, top: DirId) -> bool {
        for _ in 0..1000 {
            match host.journal.dir(dir).ok().flatten() {
                _ if dir == DirId::ROOT => return false,
                Some(node) if dir != top => dir = node.parent,
                _ => return true,
            }
        }
        true
    }

    /// At a moment at which all hold the same: what all had seen as official then and nobody replaced is so still.
    fn check_stable(&mut self) -> Result<(), Broken> {
        let mut digests = self
            .devices
            .iter()
            .filter(|d| d.joined)
            .map(|d| (d.runs() && !d.fails && !d.rotted).then(|| d.held.digest()));
        let first = digests.next().flatten();
        let Some(digest) = first.filter(|first| digests.all(|other| other == Some(*first))) else {
            return Ok(());
        };
        if digest == self.stable.digest {
            return Ok(());
        }
        let Some(host) = self.devices[0].host.clone() else { return Ok(()) };
        let nodes = walk(&host.journal);
        let quiet = !self.devices.iter().any(|d| d.evil || d.odd);
        let fresh: Vec<usize> = self.devices[0].held.iter().collect();
        let ops = fresh.iter().flat_map(|at| &self.ledger.entries[*at].entry.entry().ops);
        let members_changed =
            ops.clone().filter(|op| matches!(op, Op::Remove { .. } | Op::SetRole { .. })).count();
        if quiet && members_changed == 0 && self.stable.len > 0 {
            let replaced: BTreeSet<VersionId> = ops.flat_map(replaced_by).copied().collect();
            for ((dir, name), versions) in &self.stable.official {
                // Of several that were one each may be replaced alone; what is named late while it is on its way has another
                // place from then on.
                let late = |id: &VersionId| self.ledger.get(&id.entry).is_some_and(|k| k.late);
                if versions.iter().any(|id| replaced.contains(id) || late(id)) {
                    continue;
                }
                let here = |n: &&Node| n.reg.0 == *dir && n.reg.1 == *name;
                let demoted = nodes
                    .iter()
                    .filter(here)
                    .find(|n| n.copy && n.merged.iter().any(|id| versions.contains(id)));
                ensure("T6", demoted.is_none(), || {
                    format!("{name} in {dir:?} was official for all and is a copy now: {demoted:?}")
                })?;
            }
        }
        let files = nodes.into_iter().filter(|n| !n.copy && !matches!(n.thing, Thing::Dir(_)));
        self.stable.official = files.map(|n| (n.reg, n.merged.into_iter().collect())).collect();
        (self.stable.digest, self.stable.len) = (digest, self.devices[0].held.len());
        self.marks.hit("all hold the same");
        Ok(())
    }

    /// The members that must meet: those nobody has removed, as the first device sees it.
    fn group(&self) -> Vec<Who> {
        let Some(host) = self.devices[0].host.clone() else { return Vec::new() };
        let member = |id| host.journal.member(id).is_some_and(|m| !m.removed);
        let joined = self.devices.iter().enumerate().filter(|(_, d)| d.joined && member(d.id));
        let all: Vec<Who> = joined.map(|(who, _)| who).collect();
        // Who takes the only others for removed meets nobody, nor do copies of one disk without a third.
        let meets = |who: &Who| {
            let mutual = |other: &Who| {
                self.devices[*other].id != self.devices[*who].id
                    && self.sees_member(*who, *other)
                    && self.sees_member(*other, *who)
            };
            *who == 0 || all.iter().any(mutual)
        };
        all.iter().filter(|who| meets(who)).copied().collect()
    }

    pub(crate) fn has_converged(&self) -> bool {
        let group = self.group();
        let Some(first) = group.first().map(|who| &self.devices[*who]) else { return false };
        let same = |who: &Who| {
            let device = &self.devices[*who];
            let whole = device.host.as_ref().is_some_and(|host| host.journal.damaged().is_empty());
            whole && device.work.is_none() && device.held.digest() == first.held.digest()
        };
        group.iter().all(same)
    }

    /// Whether what rotted is missed somewhere still: it is asked for from then on.
    pub(crate) fn finds_rot(&mut self) -> Result<bool, Broken> {
        let mut found = false;
        for who in self.group() {
            if !self.devices[who].rotted {
                continue;
            }
            let report = self.devices[who].host.as_ref().map(|host| host.verify());
            if matches!(report, Some(Ok(report)) if report.bad > 0) {
                found = true;
                self.announce(who)?;
            }
        }
        Ok(found)
    }

    pub(crate) fn diverged(&self) -> Broken {
        let mut what = "these do not come together:".to_owned();
        for who in self.group() {
            let device = &self.devices[who];
            let (len, runs) = (device.held.len(), device.runs());
            let peers: Vec<String> = device
                .sessions
                .iter()
                .map(|(peer, link)| {
                    let pushing = link.courier.session().is_pushing();
                    format!("d{peer}{}", if pushing { "" } else { " (offering)" })
                })
                .collect();
            let most = self.group().into_iter().max_by_key(|other| self.devices[*other].held.len());
            let most = &self.devices[most.unwrap_or(who)].held;
            let lacks: Vec<String> = most
                .iter()
                .filter(|at| !device.held.has(*at))
                .map(|at| {
                    let known = &self.ledger.entries[at];
                    let parents = known.entry.entry().parents().collect::<Vec<_>>();
                    format!("{:?} after {parents:?}", known.entry.id())
                })
                .collect();
            let waits = device.host.as_ref().map(|h| h.journal.receive(&[], h.now()));
            let waits = waits.and_then(Result::ok).map(|received| received.wants);
            what.push_str(&format!(" [d{who} lacks {lacks:?}, wants {waits:?}]"));
            let peers = peers.join(" ");
            what.push_str(&format!(" [d{who}: {len} entries, runs {runs}, sessions {peers}]"));
            if device.work.is_some() {
                what.push_str(&format!(" [d{who} has work to do]"));
            }
            let damaged = device.host.as_ref().map_or(0, |host| host.journal.damaged().len());
            if damaged > 0 {
                what.push_str(&format!(" [d{who}: {damaged} entries damaged]"));
            }
        }
        Broken { code: "N-converge", what }
    }

    /// When all have come together.
    pub(crate) fn check_end(&mut self) -> Result<(), Broken> {
        let group = self.group();
        let Some(first) = group.first().copied() else { return Ok(()) };
        let Some(host) = self.devices[first].host.clone() else { return Ok(()) };
        let oracle = self.check_tree(first, &host)?;
        self.check_members(&host, &oracle)?;
        self.check_nothing_lost(first, &host, &oracle)?;
        self.note_conflicts(&host, &oracle);
        for who in &group {
            let Some(host) = self.devices[*who].host.clone() else { continue };
            let report = host.verify();
            ensure("C-log", report.as_ref().is_ok_and(|report| report.bad == 0), || {
                format!("the log of device {who} lacks entries: {report:?}")
            })?;
            let device = &self.devices[*who];
            let holes = report.is_ok_and(|report| report.holes > 0);
            ensure("C-log", !holes || device.rotted || device.disk.may_have_holes(), || {
                format!("what a failed write left lies in the log of device {who}")
            })?;
        }
        self.check_locks_agree()?;
        self.check_any_order(first, &host)
    }

    fn check_members(&self, host: &Host, oracle: &Oracle) -> Result<(), Broken> {
        for member in host.journal.members() {
            let expected = oracle.roster.members.iter().find(|m| m.device == member.device);
            let role = expected.map(|m| m.role());
            let found = (!member.removed).then_some(member.role);
            ensure("J5/J6", role == Some(found), || {
                format!("{} is {found:?} where the rules say {role:?}", member.name)
            })?;
            let over = expected.is_some_and(|m| m.overused);
            ensure("J6", member.flags.overused_invite == over, || {
                format!("{} joined by an invite that was used up: {over}", member.name)
            })?;
            let entries = self.ledger.of(&self.devices[0].held);
            let mut followed = BTreeSet::new();
            let of = entries.iter().map(|e| e.entry()).filter(|e| e.device == member.device);
            let forked = of.map(|e| e.prev).filter(|prev| !followed.insert(*prev)).count() > 0;
            ensure("J3", member.flags.forked.is_some() == forked, || {
                let proof = member.flags.forked;
                format!("{}'s chain has a fork: {forked}; its proof is {proof:?}", member.name)
            })?;
        }
        let (found, expected) = (host.journal.members().len(), oracle.roster.members.len());
        ensure("J6", found == expected, || format!("{found} members, not {expected}"))
    }

    /// Every version that was ever published is shown or in history, and what nobody has replaced is shown.
    fn check_nothing_lost(&mut self, who: Who, host: &Host, oracle: &Oracle) -> Result<(), Broken> {
        let mut histories: BTreeMap<(DirId, String), BTreeSet<VersionId>> = BTreeMap::new();
        for entry in self.ledger.of(&self.devices[who].held) {
            for (index, op) in entry.entry().ops.iter().enumerate() {
                let Op::Put { dir, name, value: Value::File(_), .. } = op else { continue };
                let version = VersionId::new(entry.id(), index as u32);
                if !oracle.has(&version) {
                    continue;
                }
                let key = (*dir, name.as_str().to_owned());
                let history = histories.entry(key).or_insert_with(|| {
                    let history = host.journal.history(*dir, name).unwrap_or_default();
                    history.into_iter().map(|h| h.version).collect()
                });
                ensure("T5", history.contains(&version), || {
                    format!("version {version} of {name} in {dir:?} is in no history")
                })?;
            }
        }
        Ok(())
    }

    /// The same entries in any order, some twice, in batches of any size; and folded anew from the log.
    fn check_any_order(&mut self, who: Who, host: &Host) -> Result<(), Broken> {
        let mut rng = self.chance_of(3);
        let entries = self.ledger.of(&self.devices[who].held);
        let mut order: Vec<usize> = (0..entries.len()).collect();
        let twice: Vec<usize> = order.iter().filter(|_| rng.chance(20)).copied().collect();
        order.extend(twice);
        rng.shuffle(&mut order);
        let storage = Arc::new(Disk::new(0).log());
        let state = State::Memory(MemKv::default());
        let begun = Journal::begin_with(storage, state, &self.genesis, None);
        let other = begun.map_err(|error| Broken { code: "C6", what: error.to_string() })?;
        let mut at = 0;
        while at < order.len() {
            let len = 1 + rng.below(20).min(order.len() - at - 1);
            let batch = order[at..at + len].iter().map(|n| entries[*n].clone()).collect();
            let taken = other.receive_verified(batch, Vec::new());
            ensure("T1", taken.as_ref().is_ok_and(|r| r.refused.is_empty()), || {
                format!("entries in another order are not taken in: {taken:?}")
            })?;
            at += len;
        }
        let same = other.tree_hash() == host.journal.tree_hash();
        ensure("T1", same && other.counts() == host.journal.counts(), || {
            "the order of delivery matters".into()
        })?;
        let rebuilt = other.rebuild_state().is_ok();
        let same = rebuilt && other.tree_hash() == host.journal.tree_hash();
        ensure("J8", same, || "folding the log anew gives another tree".into())
    }

    fn note_conflicts(&mut self, host: &Host, oracle: &Oracle) {
        let nodes = walk(&host.journal);
        let mut heads: BTreeMap<&(DirId, String), usize> = BTreeMap::new();
        for node in &nodes {
            *heads.entry(&node.reg).or_default() += 1;
            let dir = matches!(node.thing, Thing::Dir(_));
            match (node.copy, dir) {
                (true, true) => self.marks.hit("conflict: copy of a directory or beside one"),
                (true, false) => self.marks.hit("conflict: copy shown"),
                _ => {}
            }
            if !dir && node.merged.len() > 1 {
                self.marks.hit("conflict: equal heads are one");
            }
        }
        if heads.values().any(|count| *count > 2) {
            self.marks.hit("conflict: three or more heads");
        }
        self.marks.add("conflict: move skipped", oracle.skipped.len() as u64);
        for (mark, count) in oracle.tallies() {
            self.marks.add(mark, count);
        }
        let copies = host.journal.conflicts().unwrap_or_default();
        if copies.iter().any(|c| c.copies.iter().any(|n| matches!(n.kind, ViewKind::Dir { .. }))) {
            self.marks.hit("conflict: copy of a directory or beside one");
        }
    }
}
