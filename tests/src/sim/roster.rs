//! Who belongs and whose work counts, naively, from the whole set of entries.
//!
//! Leaves out: policies of keeping, names that were changed later.

use std::collections::{BTreeMap, BTreeSet};

use journal::member::verify_admit;
use journal::order::OrderKey;
use journal::signed::VerifiedEntry;
use journal::{DeviceId, DriveId, EntryId, Op, Role};

use super::oracle::Past;

#[derive(Clone, PartialEq, Eq, Debug)]
struct Change {
    key: (OrderKey, usize),
    author: DeviceId,
    frontier: Vec<EntryId>,
    role: Option<Role>,
}

/// One device that was admitted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Admitted {
    pub device: DeviceId,
    pub user: String,
    base: Role,
    changes: Vec<Change>,
    pub overused: bool,
}

impl Admitted {
    /// Its role now; none when it was removed.
    pub fn role(&self) -> Option<Role> {
        self.changes.last().map_or(Some(self.base), |change| change.role)
    }
}

struct Invited {
    key: [u8; 32],
    role: Role,
    deadline_ms: u64,
    uses: u32,
    used: u32,
    issuer: DeviceId,
}

/// All members, in the order of their admission, and which entries count.
pub struct Roster {
    pub members: Vec<Admitted>,
    accepted: BTreeSet<EntryId>,
    /// Entries whose authors were owners in them.
    by_owners: BTreeSet<EntryId>,
    /// Where entries stand in the order.
    pub(super) places: BTreeMap<EntryId, OrderKey>,
}

struct Act<'a> {
    key: (OrderKey, usize),
    entry: &'a VerifiedEntry,
    op: &'a Op,
}

/// The author's role in an entry: the last change whose frontier has not seen the entry, else what it was admitted as.
fn standing(
    member: &Admitted,
    changes: &[Change],
    entry: &EntryId,
    past: &Past,
    without: Option<DeviceId>,
) -> Option<Role> {
    let mut role = Some(member.base);
    for change in changes.iter().filter(|change| Some(change.author) != without) {
        if !change.frontier.iter().any(|last| past[last].contains(entry)) {
            role = change.role;
        }
    }
    role
}

impl Roster {
    pub(super) fn fold(
        drive: DriveId,
        order: &[&VerifiedEntry],
        keys: &BTreeMap<EntryId, OrderKey>,
        past: &Past,
    ) -> Self {
        let mut acts = Vec::new();
        for entry in order {
            for (index, op) in entry.entry().ops.iter().enumerate() {
                acts.push(Act { key: (keys[&entry.id()], index), entry, op });
            }
        }
        acts.sort_by_key(|act| act.key);
        let mut members: Vec<Admitted> = Vec::new();
        // What one round finds out about whose word counts, the next one goes by; ranks settle it soon.
        for _ in 0..64 {
            let now = round(drive, &members, &acts, past);
            if now == members {
                break;
            }
            members = now;
        }
        let (accepted, by_owners) = (BTreeSet::new(), BTreeSet::new());
        let mut roster = Self { members, accepted, by_owners, places: BTreeMap::new() };
        for entry in order {
            let member = roster.members.iter().find(|m| m.device == entry.entry().device);
            let role = member.and_then(|m| standing(m, &m.changes, &entry.id(), past, None));
            if role.is_some_and(|role| role != Role::Reader) {
                roster.accepted.insert(entry.id());
            }
            if role == Some(Role::Owner) {
                roster.by_owners.insert(entry.id());
            }
        }
        roster
    }

    /// Whether `by` may name `entry` late: nobody changed its device's standing who knew the one and not the other.
    pub(super) fn may_date(&self, by: &VerifiedEntry, entry: &EntryId, past: &Past) -> bool {
        let member = self.members.iter().find(|m| m.device == by.entry().device);
        let knew =
            |change: &Change, id: &EntryId| change.frontier.iter().any(|f| past[f].contains(id));
        let mut changes = member.into_iter().flat_map(|m| &m.changes);
        changes.all(|change| !knew(change, entry) || knew(change, &by.id()))
    }

    /// Whether what `entry` does to the tree counts.
    pub fn accepted(&self, entry: &EntryId) -> bool {
        self.accepted.contains(entry)
    }

    /// Whether an owner wrote `entry`.
    pub fn by_owner(&self, entry: &EntryId) -> bool {
        self.by_owners.contains(entry)
    }

    /// Where in the order `device` lost the right to write.
    pub(super) fn falls(&self, device: &DeviceId) -> Vec<(OrderKey, u32)> {
        let found = self.members.iter().find(|m| m.device == *device);
        let changes = found.into_iter().flat_map(|m| &m.changes);
        changes
            .filter(|change| !matches!(change.role, Some(Role::Editor | Role::Owner)))
            .map(|change| (self.places[&change.key.0.entry], change.key.1 as u32))
            .collect()
    }

    /// The name that copies of `device` carry.
    pub fn user(&self, device: &DeviceId) -> &str {
        self.members.iter().find(|m| m.device == *device).map_or("unknown", |m| m.user.as_str())
    }
}

fn round(drive: DriveId, before: &[Admitted], acts: &[Act<'_>], past: &Past) -> Vec<Admitted> {
    let (mut now, mut invites): (Vec<Admitted>, Vec<Invited>) = (Vec::new(), Vec::new());
    for act in acts {
        let (author, entry) = (act.entry.entry().device, act.entry);
        if let Op::Genesis { device_name, .. } = act.op {
            now.push(admitted(author, device_name, Role::Owner, false));
            continue;
        }
        let Some(mine) = now.iter().position(|m| m.device == author) else { continue };
        let changes = before.iter().find(|m| m.device == author).map(|m| m.changes.as_slice());
        let own_word = matches!(act.op, Op::Remove { device, .. } | Op::SetRole { device, .. }
            if *device == author);
        let without = own_word.then_some(author);
        let id = entry.id();
        let role = standing(&now[mine], changes.unwrap_or_default(), &id, past, without);
        let Some(role) = role else { continue };
        let is_owner = role == Role::Owner;
        match act.op {
            Op::Invite { key, role, expires, uses }
                if is_owner && invites.iter().all(|i| i.key != *key) =>
            {
                let lasts = expires.saturating_sub(entry.entry().saved_at_ms);
                let deadline_ms = (*expires).max(entry.entry().hlc.ms().saturating_add(lasts));
                let (key, role, uses, issuer) = (*key, *role, *uses, author);
                invites.push(Invited { key, role, deadline_ms, uses, used: 0, issuer });
            }
            Op::Admit { invite, device, name, proof } => {
                if now.iter().any(|m| m.device == *device)
                    || !verify_admit(invite, &drive, device, proof)
                {
                    continue;
                }
                let Some(found) = invites.iter_mut().find(|i| i.key == *invite) else { continue };
                let issuer = now.iter().find(|m| m.device == found.issuer);
                let stands = issuer.and_then(Admitted::role) == Some(Role::Owner);
                if stands && entry.entry().hlc.ms() <= found.deadline_ms {
                    let overused = found.used >= found.uses;
                    found.used += 1;
                    now.push(admitted(*device, name, found.role, overused));
                }
            }
            Op::Remove { device, frontier } if is_owner || own_word => {
                change(&mut now, mine, device, frontier, None, author, &id, past, act.key);
            }
            Op::SetRole { device, role, frontier } if is_owner => {
                change(&mut now, mine, device, frontier, Some(*role), author, &id, past, act.key);
            }
            _ => {}
        }
    }
    now
}

fn admitted(device: DeviceId, user: &str, base: Role, overused: bool) -> Admitted {
    Admitted { device, user: user.to_owned(), base, changes: Vec::new(), overused }
}

/// An owner's standing is changed by itself or by members admitted before it, anybody else's by any owner; but the last
/// owner stays one, nobody raises itself, and who did not know of a removal does not undo it.
#[allow(clippy::too_many_arguments, reason = "one word about one device")]
fn change(
    now: &mut [Admitted],
    mine: usize,
    device: &DeviceId,
    frontier: &[EntryId],
    role: Option<Role>,
    author: DeviceId,
    by: &EntryId,
    past: &Past,
    key: (OrderKey, usize),
) {
    let Some(theirs) = now.iter().position(|m| m.device == *device) else { return };
    let had = now[theirs].role();
    let owners = now.iter().filter(|m| m.role() == Some(Role::Owner)).count();
    if had == Some(Role::Owner) && (theirs < mine || (owners == 1 && role != Some(Role::Owner))) {
        return;
    }
    if theirs == mine && role > had {
        return;
    }
    let removals = now[theirs].changes.iter().rev().take_while(|c| c.role.is_none());
    if role.is_some() && removals.into_iter().any(|c| !past[by].contains(&c.key.0.entry)) {
        return;
    }
    let seen = frontier.iter().filter(|id| past[by].contains(id)).copied();
    now[theirs].changes.push(Change { key, author, frontier: seen.collect(), role });
}
