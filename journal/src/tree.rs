//! Looking at the materialised state: names, directories, conflicts, history.
//!
//! Leaves out: keeping it ([`crate::fold`]).
//!
//! Invariants:
//! - a lookup is a handful of reads whatever the size of the drive; a listing is one scan of the
//!   names that are shown, not of those that once were;
//! - real names win over copies' names.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::ControlFlow;

use crate::chain::sees;
use crate::conflict::{copied_name, is_copy_name};
use crate::error::StateError;
use crate::id::{DirId, DriveId, VersionId};
use crate::kv::{KvRead, keys_with, prefix_end};
use crate::member::Members;
use crate::name::{EntryName, Register};
use crate::op::{Content, FileValue};
use crate::order::OrderKey;
use crate::records::{
    MoveRow, RegKey, RegRec, Shown, ShownKind, VersionRec, What, corrupt, decode, key, load,
    load_dir, load_entry, load_register, load_version, table, version_at_end,
};
use crate::view::{
    Conflict, DirNode, HistoryStanding, HistoryVersion, Once, OnceNode, SkippedMove, Standing,
    ViewKind, ViewNode,
};

/// Most versions one history gives.
const HISTORY_MAX: usize = 10_000;

/// Where to go on listing contents.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ContentCursor(Vec<u8>);

/// A content and a version that names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Named {
    /// The bytes.
    pub content: Content,
    /// The version.
    pub version: VersionId,
}

pub(crate) fn node(
    kv: &(impl KvRead + ?Sized),
    dir: DirId,
    shown: &Shown,
    standing: Standing,
) -> Result<ViewNode, StateError> {
    let missing = || corrupt(&[table::VERSION]);
    let rec = load_version(kv, &shown.version)?.ok_or_else(missing)?;
    let kind = match (shown.kind, rec.what) {
        (ShownKind::Dir(id), _) => {
            ViewKind::Dir { dir: id, attr: load_dir(kv, &id)?.unwrap_or_default().attr }
        }
        (_, What::Symlink(link)) => ViewKind::Symlink(link),
        (_, What::File(file)) => ViewKind::File(match &shown.attrs {
            None => file,
            Some(attrs) => FileValue {
                mode: attrs.mode,
                xattrs: attrs.xattrs.clone(),
                owner: attrs.owner,
                ..file
            },
        }),
        _ => return Err(missing()),
    };
    let register = rec.register.ok_or_else(missing)?;
    Ok(ViewNode {
        shown: shown.shown.clone(),
        register: Register { dir, ..register },
        version: shown.version,
        merged: shown.merged.clone(),
        standing,
        author: rec.author,
        saved_at_ms: rec.saved_at_ms,
        kind,
    })
}

/// The copy shown under the name `reg` is the key of.
fn copy_at(kv: &(impl KvRead + ?Sized), reg: &RegKey) -> Result<Option<ViewNode>, StateError> {
    let row = key(table::COPY, &[reg.as_slice()]);
    let Some((register, version)) = load::<(Register, VersionId)>(kv, &row)? else {
        return Ok(None);
    };
    let Some(rec) = load_register(kv, &RegKey::of(&register))? else { return Ok(None) };
    match rec.copies.iter().find(|copy| copy.version == version) {
        Some(copy) => Ok(Some(node(kv, register.dir, copy, Standing::Copy)?)),
        None => Ok(None),
    }
}

fn shown_at(kv: &(impl KvRead + ?Sized), reg: &RegKey) -> Result<Option<ViewNode>, StateError> {
    let official = load_register(kv, reg)?.and_then(|rec| rec.official);
    match official {
        Some(shown) => Ok(Some(node(kv, reg.dir(), &shown, Standing::Official)?)),
        None => copy_at(kv, reg),
    }
}

/// What is shown under `shown` in `dir`.
pub(crate) fn lookup(
    kv: &(impl KvRead + ?Sized),
    dir: DirId,
    shown: &EntryName,
) -> Result<Option<ViewNode>, StateError> {
    shown_at(kv, &RegKey::new(&dir, shown))
}

/// The nodes of `dir` after the name `after`, at most `limit`.
pub(crate) fn list(
    kv: &(impl KvRead + ?Sized),
    dir: DirId,
    after: Option<&EntryName>,
    limit: usize,
) -> Result<Vec<ViewNode>, StateError> {
    let mut names: BTreeSet<RegKey> = BTreeSet::new();
    for rows in [table::SHOWN, table::COPY] {
        let prefix = key(rows, &[dir.as_bytes()]);
        let from = match after {
            // The least key after that name's own.
            Some(name) => key(rows, &[RegKey::new(&dir, name).as_slice(), &[0]]),
            None => prefix.clone(),
        };
        let mut found = 0;
        if limit == 0 {
            break;
        }
        kv.scan(&from, &prefix_end(&prefix), &mut |k, _| {
            names.insert(RegKey::from_slice(k.get(1..).unwrap_or_default()));
            found += 1;
            Ok(if found < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
    }
    let mut out = Vec::new();
    for reg in names.into_iter().take(limit) {
        out.extend(shown_at(kv, &reg)?);
    }
    Ok(out)
}

/// Heads of the register that say there is nothing.
pub(crate) fn gone_heads(
    kv: &(impl KvRead + ?Sized),
    dir: DirId,
    name: &EntryName,
) -> Result<Vec<VersionId>, StateError> {
    Ok(load_register(kv, &RegKey::new(&dir, name))?.map(|rec| rec.gone).unwrap_or_default())
}

/// Versions with which a directory left the register `reg`, in the history of `bases`.
pub(crate) fn away(
    kv: &(impl KvRead + ?Sized),
    reg: &RegKey,
    bases: &[VersionId],
) -> Result<BTreeSet<VersionId>, StateError> {
    let mut away = BTreeSet::new();
    for base in bases {
        if let Some(rec) = load_version(kv, base)?
            && rec.register.as_ref().is_some_and(|register| RegKey::of(register) == *reg)
        {
            away.extend(rec.away);
        }
    }
    Ok(away)
}

/// The id of a directory made at `name` in `parent` in place of the versions `bases`.
pub(crate) fn new_dir_id(
    kv: &(impl KvRead + ?Sized),
    drive: &DriveId,
    parent: DirId,
    name: &EntryName,
    bases: &[VersionId],
) -> Result<DirId, StateError> {
    let away = away(kv, &RegKey::new(&parent, name), bases)?;
    let away: Vec<VersionId> = away.into_iter().collect();
    Ok(DirId::derive(drive, &parent, name, &away))
}

/// The directory `id`, when it exists. The root stands nowhere.
pub(crate) fn dir(kv: &(impl KvRead + ?Sized), id: DirId) -> Result<Option<DirNode>, StateError> {
    let Some(rec) = load_dir(kv, &id)?.filter(|rec| rec.live) else { return Ok(None) };
    let Some(at) = rec.at else { return Ok(None) };
    let shown = load_register(kv, &RegKey::of(&at))?.unwrap_or_default();
    let mut all = shown.official.into_iter().chain(shown.copies);
    let found = all.find(|s| s.kind == ShownKind::Dir(id));
    let attr = rec.attr;
    Ok(found.map(|s| DirNode { parent: at.dir, shown: s.shown, placement: s.version, attr }))
}

/// Every register that shows copies and every skipped move nobody has dealt with.
pub(crate) fn conflicts(kv: &(impl KvRead + ?Sized)) -> Result<Vec<Conflict>, StateError> {
    let mut out: BTreeMap<RegKey, Conflict> = BTreeMap::new();
    let empty = |register: Register| Conflict { register, copies: Vec::new(), skipped: Vec::new() };
    for row in keys_with(kv, &[table::CONFLICT])? {
        let register: Register = load(kv, &row)?.ok_or_else(|| corrupt(&row))?;
        let reg = RegKey::of(&register);
        let rec = load_register(kv, &reg)?.unwrap_or_default();
        let mut conflict = empty(register);
        for copy in &rec.copies {
            conflict.copies.push(node(kv, reg.dir(), copy, Standing::Copy)?);
        }
        out.insert(reg, conflict);
    }
    for row in keys_with(kv, &[table::SKIPPED])? {
        let version = version_at_end(&row)?;
        let kept = key(table::MOVE_KEPT, &[&version.to_bytes()]);
        let Some(moved) = load::<MoveRow>(kv, &kept)? else { continue };
        let Some(rec) = load_version(kv, &version)? else { continue };
        if is_settled(kv, &version, &moved)? {
            continue;
        }
        for part in moved.parts {
            let reg = RegKey::of(&part.source);
            let conflict = out.entry(reg).or_insert_with(|| empty(part.source));
            conflict.skipped.push(SkippedMove {
                version,
                dir: part.dir,
                to: part.to,
                author: rec.author,
                saved_at_ms: rec.saved_at_ms,
            });
        }
    }
    Ok(out.into_values().collect())
}

/// Whether somebody who knew of a skipped move has moved its directory since or said it is dealt
/// with, or another move has brought about just what it wanted.
fn is_settled(
    kv: &(impl KvRead + ?Sized),
    version: &VersionId,
    moved: &MoveRow,
) -> Result<bool, StateError> {
    for row in keys_with(kv, &key(table::SUPERSEDE, &[&version.to_bytes()]))? {
        let by = version_at_end(&row)?;
        if load_entry(kv, &by.entry)?.is_some_and(|entry| entry.accepted()) {
            return Ok(true);
        }
    }
    let mut elsewhere = false;
    for part in &moved.parts {
        elsewhere = elsewhere || !stands_at(kv, &part.dir, &RegKey::of(&part.to))?;
    }
    if !elsewhere {
        return Ok(true);
    }
    let Some(entry) = load_entry(kv, &version.entry)? else { return Ok(false) };
    for part in &moved.parts {
        let Some(place) = load_dir(kv, &part.dir)?.and_then(|rec| rec.place) else { continue };
        let Some(row) = load::<MoveRow>(kv, &key(table::MOVE, &[&place]))? else { continue };
        if let Some(last) = load_entry(kv, &row.version.entry)?
            && sees(kv, &last, &entry)?
        {
            return Ok(true);
        }
    }
    Ok(false)
}

struct Found {
    version: VersionId,
    rec: VersionRec,
    order: OrderKey,
    accepted: bool,
}

/// The versions behind a name, newest first: those of its register and, through bases, those of
/// the registers it was renamed from.
pub(crate) fn history(
    kv: &(impl KvRead + ?Sized),
    dir: DirId,
    name: &EntryName,
) -> Result<Vec<HistoryVersion>, StateError> {
    let named = RegKey::new(&dir, name);
    let mut regs = vec![named.clone()];
    // A copy's name stands for its register, too; under the name itself may lie what somebody without a say wrote.
    if let Some(copy) = copy_at(kv, &named)?
        && load_register(kv, &named)?.is_none()
    {
        regs.push(RegKey::of(&copy.register));
    }
    let mut passed = BTreeSet::new();
    let mut queue = VecDeque::new();
    for reg in &regs {
        for row in keys_with(kv, &key(table::REG_VERSION, &[reg.as_slice()]))? {
            let version = version_at_end(&row)?;
            passed.insert(version);
            queue.push_back(version);
        }
    }
    let mut found = Vec::new();
    while let Some(version) = queue.pop_front() {
        let Some(rec) = load_version(kv, &version)? else { continue };
        let Some(entry) = load_entry(kv, &version.entry)? else { continue };
        queue.extend(rec.bases.iter().filter(|base| passed.insert(**base)));
        let (order, accepted) = (entry.order(version.entry), entry.accepted());
        // A name's own removal is its history; what once stood under the names it replaced is not.
        let own = rec.register.as_ref().is_some_and(|r| regs.contains(&RegKey::of(r)));
        if rec.is_leaf() || (own && rec.value().is_some()) {
            found.push(Found { version, rec, order, accepted });
        }
        if found.len() >= HISTORY_MAX {
            break;
        }
    }
    found.sort_by_key(|f| std::cmp::Reverse((f.order, f.version.index)));
    let mut registers: BTreeMap<RegKey, RegRec> = BTreeMap::new();
    let mut out = Vec::new();
    for Found { version, rec, order, accepted } in found {
        let (Some(value), Some(register)) = (rec.value(), rec.register) else { continue };
        let at = RegKey::of(&register);
        if !registers.contains_key(&at) {
            registers.insert(at.clone(), load_register(kv, &at)?.unwrap_or_default());
        }
        let shown = registers.get(&at);
        let standing = match accepted {
            true => shown.map_or(HistoryStanding::Past, |shown| standing_of(&version, shown)),
            false => HistoryStanding::Quarantined,
        };
        let (author, saved_at_ms) = (rec.author, rec.saved_at_ms);
        out.push(HistoryVersion { version, register, value, author, saved_at_ms, order, standing });
    }
    Ok(out)
}

/// What stands or once stood in `dir`. Names that only somebody without a say ever wrote are not there.
pub(crate) fn once(kv: &(impl KvRead + ?Sized), dir: DirId) -> Result<Vec<OnceNode>, StateError> {
    let mut registers = BTreeSet::new();
    for row in keys_with(kv, &key(table::REG_VERSION, &[dir.as_bytes()]))? {
        let end = row.len().saturating_sub(VersionId::LEN);
        registers.insert(RegKey::from_slice(row.get(1..end).unwrap_or_default()));
    }
    let mut out = Vec::new();
    for reg in registers {
        out.extend(once_in(kv, &reg)?);
    }
    Ok(out)
}

/// What stands or once stood under `name` in `dir`; the name of a copy stands for the copy.
pub(crate) fn once_at(
    kv: &(impl KvRead + ?Sized),
    dir: DirId,
    name: &EntryName,
) -> Result<Option<OnceNode>, StateError> {
    let reg = RegKey::new(&dir, name);
    if let Some(found) = once_in(kv, &reg)? {
        return Ok(Some(found));
    }
    let Some(copy) = copy_at(kv, &reg)? else { return removed_copy_at(kv, dir, name) };
    let what = match copy.kind {
        ViewKind::Dir { dir, .. } => Once::Dir(dir),
        ViewKind::File(_) | ViewKind::Symlink(_) => Once::Leaf,
    };
    Ok(Some(OnceNode { name: copy.shown, what }))
}

/// A removed directory that stood beside something else of its name, under the name it had as a copy.
fn removed_copy_at(
    kv: &(impl KvRead + ?Sized),
    dir: DirId,
    name: &EntryName,
) -> Result<Option<OnceNode>, StateError> {
    let Some(of) = copied_name(name) else { return Ok(None) };
    let members = Members::load(kv)?;
    let reg = RegKey::new(&dir, &of);
    for row in keys_with(kv, &key(table::REG_VERSION, &[reg.as_slice()]))? {
        let version = version_at_end(&row)?;
        let Some(rec) = load_version(kv, &version)? else { continue };
        let (What::Dir { dir: below, .. }, Some(register)) = (&rec.what, &rec.register) else {
            continue;
        };
        if is_copy_name(name, &register.name, members.user(&rec.author), &version)
            && stands_at(kv, below, &reg)?
            && load_entry(kv, &version.entry)?.is_some_and(|entry| entry.accepted())
        {
            return Ok(Some(OnceNode { name: name.clone(), what: Once::Dir(*below) }));
        }
    }
    Ok(None)
}

fn once_in(kv: &(impl KvRead + ?Sized), reg: &RegKey) -> Result<Option<OnceNode>, StateError> {
    if let Some(shown) = load_register(kv, reg)?.and_then(|rec| rec.official) {
        let what = match shown.kind {
            ShownKind::Dir(dir) => Once::Dir(dir),
            ShownKind::File | ShownKind::Symlink => Once::Leaf,
        };
        return Ok(Some(OnceNode { name: shown.shown, what }));
    }
    // What stood there last. A directory that was moved away is found where it is, and only there: so
    // what is followed from the root is a tree, whatever was moved into what.
    let mut last: Option<((OrderKey, u32), OnceNode)> = None;
    for row in keys_with(kv, &key(table::REG_VERSION, &[reg.as_slice()]))? {
        let version = version_at_end(&row)?;
        let Some(rec) = load_version(kv, &version)? else { continue };
        let entry = load_entry(kv, &version.entry)?.filter(|entry| entry.accepted());
        let (Some(entry), Some(register)) = (entry, rec.register) else { continue };
        let what = match rec.what {
            What::File(_) | What::Symlink(_) => Once::Leaf,
            What::Dir { dir, .. } if stands_at(kv, &dir, reg)? => Once::Dir(dir),
            _ => continue,
        };
        let rank = (entry.order(version.entry), version.index);
        if last.as_ref().is_none_or(|(best, _)| *best < rank) {
            last = Some((rank, OnceNode { name: register.name, what }));
        }
    }
    Ok(last.map(|(_, node)| node))
}

/// Whether a directory, removed or not, has its place at `reg`.
fn stands_at(kv: &(impl KvRead + ?Sized), dir: &DirId, reg: &RegKey) -> Result<bool, StateError> {
    let at = load_dir(kv, dir)?.and_then(|rec| rec.at);
    Ok(at.is_some_and(|at| RegKey::of(&at) == *reg))
}

fn standing_of(version: &VersionId, shown: &RegRec) -> HistoryStanding {
    if shown.official.as_ref().is_some_and(|s| s.version == *version) {
        HistoryStanding::Official
    } else if shown.copies.iter().any(|s| s.version == *version) {
        HistoryStanding::Copy
    } else if shown.official.iter().chain(&shown.copies).any(|s| s.merged.contains(version)) {
        HistoryStanding::Merged
    } else {
        HistoryStanding::Past
    }
}

/// Contents that versions name, newest entries first; one may come more than once.
pub(crate) fn contents(
    kv: &(impl KvRead + ?Sized),
    after: Option<&ContentCursor>,
    limit: usize,
) -> Result<(Vec<Named>, Option<ContentCursor>), StateError> {
    let (mut out, mut last) = (Vec::new(), None);
    let prefix = [table::CONTENT];
    let from = after.map_or_else(|| prefix.to_vec(), |cursor| [cursor.0.as_slice(), &[0]].concat());
    if limit == 0 {
        return Ok((out, after.cloned()));
    }
    kv.scan(&from, &prefix_end(&prefix), &mut |k, value| {
        let (content, entry) = decode(k, value)?;
        let index =
            k.last_chunk::<4>().map(|b| u32::from_be_bytes(*b)).ok_or_else(|| corrupt(k))?;
        out.push(Named { content, version: VersionId::new(entry, index) });
        if out.len() == limit {
            last = Some(ContentCursor(k.to_vec()));
            return Ok(ControlFlow::Break(()));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok((out, last))
}
