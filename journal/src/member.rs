//! Who belongs to the drive, with which role, and which of a device's entries count.
//!
//! What owners say about keeping versions and about locks is folded with them, because it stands and falls with their
//! role.
//!
//! Leaves out: what roles mean for single operations ([`crate::op::Op::needs`]).
//!
//! Invariants:
//! - the members are a pure function of the set of membership operations and the order of their
//!   entries; they are folded anew whenever one arrives, there are few;
//! - an owner is removed or demoted only by itself or by an owner admitted before it, so the rounds
//!   below settle: what a device's standing depends on was written by devices before it;
//! - membership operations stand in the order of their entries' own logical time: a device that names its work late
//!   moves no word about members;
//! - a drive that has an owner keeps one, and nobody raises itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::canary::{self, Canary};
use crate::chain;
use crate::error::StateError;
use crate::hlc::Hlc;
use crate::id::{DeviceId, DriveId, EntryId, VersionId};
use crate::kv::{KvRead, keys_with};
use crate::lock::LockPolicy;
use crate::op::{Named, Op, Role};
use crate::order::OrderKey;
use crate::records::{
    EntryRec, What, corrupt, load, load_entry, load_version, table, version_at_end,
};
use crate::retention::Reign;
use crate::signed;

/// What every admission proof begins with.
const ADMIT_TAG: &[u8] = b"atelier admit v1\0";
/// Rounds after which the fold of members takes what it has; ranks settle long before.
const ROUNDS_MAX: usize = 64;

/// What an invite's key signs to admit `device` to `drive` and nobody else anywhere else.
pub fn admit_message(drive: &DriveId, device: &DeviceId) -> Vec<u8> {
    [ADMIT_TAG, drive.as_bytes(), device.as_bytes()].concat()
}

/// The proof a holder of the invite's secret key makes for its own device key.
pub fn admit_proof(invite_secret: &[u8; 32], drive: &DriveId, device: &DeviceId) -> [u8; 64] {
    use ed25519_dalek::Signer as _;
    let key = ed25519_dalek::SigningKey::from_bytes(invite_secret);
    key.sign(&admit_message(drive, device)).to_bytes()
}

/// Whether `proof` admits `device` by the invite `key`.
pub fn verify_admit(key: &[u8; 32], drive: &DriveId, device: &DeviceId, proof: &[u8; 64]) -> bool {
    signed::verify(key, &admit_message(drive, device), proof)
}

/// A change of standing for a device's entries outside the past of `frontier`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Change {
    pub(crate) by: VersionId,
    pub(crate) author: DeviceId,
    pub(crate) frontier: Vec<EntryId>,
    /// None: removed.
    pub(crate) role: Option<Role>,
}

impl Change {
    /// Whether it leaves `rec` as it is.
    fn covers(&self, kv: &(impl KvRead + ?Sized), rec: &EntryRec) -> Result<bool, StateError> {
        for id in &self.frontier {
            if let Some(last) = load_entry(kv, id)? {
                let last_counts = !canary::is(Canary::FrontierOffByOne) || last.hlc != rec.hlc;
                if chain::sees(kv, &last, rec)? && last_counts {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

/// One device that was admitted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct MemberState {
    pub(crate) device: DeviceId,
    /// The name in its Admit, which its conflict copies carry.
    pub(crate) user: String,
    /// The name shown for it.
    pub(crate) name: String,
    pub(crate) base: Role,
    pub(crate) admitted_by: Option<DeviceId>,
    pub(crate) changes: Vec<Change>,
    /// Its Admit went beyond the uses its invite allows.
    pub(crate) overused: bool,
}

impl MemberState {
    pub(crate) fn role(&self) -> Option<Role> {
        self.changes.last().map_or(Some(self.base), |change| change.role)
    }

    /// Its role; the last one it had when it is removed.
    pub(crate) fn last_role(&self) -> Role {
        self.changes.iter().rev().find_map(|change| change.role).unwrap_or(self.base)
    }
}

/// One invite.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct InviteState {
    pub(crate) key: [u8; 32],
    pub(crate) role: Role,
    pub(crate) expires: u64,
    /// The end of its time in logical time, which may run ahead of every clock.
    pub(crate) deadline_ms: u64,
    pub(crate) uses: u32,
    pub(crate) used: u32,
    pub(crate) issuer: DeviceId,
}

/// Everything the membership operations say, devices in the order of their admission.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Members {
    pub(crate) list: Vec<MemberState>,
    pub(crate) invites: Vec<InviteState>,
    pub(crate) drive_name: String,
    /// What owners said about keeping versions, in the drive's order.
    pub(crate) reigns: Vec<Reign>,
    /// What owners said last about locks.
    pub(crate) locks: LockPolicy,
}

struct Act {
    /// By its entry's own logical time.
    key: (OrderKey, u32),
    published: Hlc,
    version: VersionId,
    op: Op,
    rec: EntryRec,
}

impl Members {
    pub(crate) fn load(kv: &(impl KvRead + ?Sized)) -> Result<Self, StateError> {
        Ok(load(kv, &[table::MEMBERS])?.unwrap_or_default())
    }

    pub(crate) fn get(&self, device: &DeviceId) -> Option<&MemberState> {
        self.list.iter().find(|m| m.device == *device)
    }

    /// The name that copies of `device` carry.
    pub(crate) fn user(&self, device: &DeviceId) -> &str {
        self.get(device).map_or("unknown", |m| m.user.as_str())
    }

    fn rank(&self, device: &DeviceId) -> Option<usize> {
        self.list.iter().position(|m| m.device == *device)
    }

    pub(crate) fn invite(&self, key: &[u8; 32]) -> Option<&InviteState> {
        self.invites.iter().find(|i| i.key == *key)
    }

    /// Whether the invite's issuer may still invite.
    pub(crate) fn invite_stands(&self, invite: &InviteState) -> bool {
        canary::is(Canary::VoidInviteAdmits)
            || self.get(&invite.issuer).and_then(MemberState::role) == Some(Role::Owner)
    }

    /// What `rec`'s author may do in it; none when it was never admitted or was removed.
    pub(crate) fn standing(
        &self,
        kv: &(impl KvRead + ?Sized),
        rec: &EntryRec,
    ) -> Result<Option<Role>, StateError> {
        match self.get(&rec.device) {
            Some(member) => standing(kv, member.base, &member.changes, rec, None),
            None => Ok(None),
        }
    }

    /// Whether `by`, which names the own entry `rec` late, may move it. Not when somebody who changed its device's
    /// standing knew `rec` and not `by`: a device that was removed dates nothing anew that counts.
    pub(crate) fn may_date(
        &self,
        kv: &(impl KvRead + ?Sized),
        by: &EntryRec,
        rec: &EntryRec,
    ) -> Result<bool, StateError> {
        for change in self.get(&rec.device).into_iter().flat_map(|member| &member.changes) {
            if change.covers(kv, rec)? && !change.covers(kv, by)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Folds all membership operations.
    pub(crate) fn fold(kv: &(impl KvRead + ?Sized)) -> Result<Self, StateError> {
        let mut acts = Vec::new();
        for row in keys_with(kv, &[table::MEMBER_OP])? {
            let version = version_at_end(&row)?;
            let rec = load_entry(kv, &version.entry)?.ok_or_else(|| corrupt(&row))?;
            let What::Member(op) = load_version(kv, &version)?.ok_or_else(|| corrupt(&row))?.what
            else {
                return Err(corrupt(&row));
            };
            let order = rec.order(version.entry);
            let key = (OrderKey { published: rec.hlc, ..order }, version.index);
            let published = order.published;
            acts.push(Act { key, published, version, op: *op, rec });
        }
        acts.sort_by_key(|act| act.key);
        let mut before = Members::default();
        for _ in 0..ROUNDS_MAX {
            let now = before.round(kv, &acts)?;
            let settled = now == before;
            before = now;
            if settled {
                break;
            }
        }
        Ok(before)
    }

    /// One replay; `self`, the round before, says which entries were cut off by removals.
    fn round(&self, kv: &(impl KvRead + ?Sized), acts: &[Act]) -> Result<Members, StateError> {
        let mut now = Members::default();
        let none = Vec::new();
        let changes: BTreeMap<DeviceId, &Vec<Change>> =
            self.list.iter().map(|m| (m.device, &m.changes)).collect();
        for act in acts {
            let author = act.rec.device;
            if let Op::Genesis { drive_name, device_name, .. } = &act.op {
                now.drive_name.clone_from(drive_name);
                now.admit(author, device_name, Role::Owner, None, false);
                continue;
            }
            let Some(member) = now.get(&author) else { continue };
            let changes = changes.get(&author).copied().unwrap_or(&none);
            // A device's word about itself is judged without its other words about itself, or a
            // device that leaves would by leaving have no right to leave.
            let about_itself = match &act.op {
                Op::Remove { device, .. } | Op::SetRole { device, .. } => *device == author,
                _ => false,
            };
            let without = about_itself.then_some(author);
            let Some(role) = standing(kv, member.base, changes, &act.rec, without)? else {
                continue;
            };
            now.act(kv, act, role, about_itself)?;
        }
        Ok(now)
    }

    fn admit(
        &mut self,
        device: DeviceId,
        name: &str,
        base: Role,
        by: Option<DeviceId>,
        overused: bool,
    ) {
        let (user, name) = (name.to_owned(), name.to_owned());
        let changes = Vec::new();
        self.list.push(MemberState {
            device,
            user,
            name,
            base,
            admitted_by: by,
            changes,
            overused,
        });
    }

    fn act(
        &mut self,
        kv: &(impl KvRead + ?Sized),
        act: &Act,
        role: Role,
        about_itself: bool,
    ) -> Result<(), StateError> {
        let author = act.rec.device;
        if role < act.op.needs() && !(about_itself && matches!(act.op, Op::Remove { .. })) {
            return Ok(());
        }
        match &act.op {
            Op::Invite { key, role, expires, uses } if self.invite(key).is_none() => {
                let (key, role, expires, uses) = (*key, *role, *expires, *uses);
                let lasts_ms = expires.saturating_sub(act.rec.saved_at_ms);
                let deadline_ms = expires.max(act.rec.hlc.ms().saturating_add(lasts_ms));
                self.invites.push(InviteState {
                    key,
                    role,
                    expires,
                    deadline_ms,
                    uses,
                    used: 0,
                    issuer: author,
                });
            }
            Op::Admit { invite, device, name, .. } if self.get(device).is_none() => {
                let Some(found) = self.invite(invite) else { return Ok(()) };
                if !self.invite_stands(found) || act.rec.hlc.ms() > found.deadline_ms {
                    return Ok(());
                }
                let (role, over) = (found.role, found.used >= found.uses);
                if let Some(found) = self.invites.iter_mut().find(|i| i.key == *invite) {
                    found.used = found.used.saturating_add(1);
                }
                self.admit(*device, name, role, Some(author), over);
            }
            Op::Remove { device, frontier } => {
                self.change(kv, act, device, frontier, None)?;
            }
            Op::SetRole { device, role, frontier } => {
                self.change(kv, act, device, frontier, Some(*role))?;
            }
            Op::Retain(policy) => {
                let from_ms = act.published.ms();
                self.reigns.push(Reign { from_ms, policy: *policy });
            }
            Op::Locks(policy) => self.locks = *policy,
            Op::Rename { what: Named::Drive, name } => self.drive_name.clone_from(name),
            Op::Rename { what: Named::Device(device), name } => {
                if (author == *device || role == Role::Owner)
                    && let Some(member) = self.list.iter_mut().find(|m| m.device == *device)
                {
                    member.name.clone_from(name);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn change(
        &mut self,
        kv: &(impl KvRead + ?Sized),
        act: &Act,
        device: &DeviceId,
        frontier: &[EntryId],
        role: Option<Role>,
    ) -> Result<(), StateError> {
        let author = act.rec.device;
        let (Some(mine), Some(theirs)) = (self.rank(&author), self.rank(device)) else {
            return Ok(());
        };
        let Some(member) = self.list.get(theirs) else { return Ok(()) };
        let had = member.role();
        if had == Some(Role::Owner) {
            let is_owner = |m: &MemberState| m.role() == Some(Role::Owner);
            let is_last = self.list.iter().filter(|m| is_owner(m)).count() < 2;
            if theirs < mine || (is_last && role != Some(Role::Owner)) {
                return Ok(());
            }
        }
        // A backup, or a program that was changed, would undo that its device had left.
        if mine == theirs && role > had {
            return Ok(());
        }
        if role.is_some() {
            // Who did not know of a removal does not undo it.
            for removal in member.changes.iter().rev().take_while(|change| change.role.is_none()) {
                let Some(by) = load_entry(kv, &removal.by.entry)? else { continue };
                if !chain::sees(kv, &act.rec, &by)? {
                    return Ok(());
                }
            }
        }
        let mut kept = Vec::new();
        for id in frontier {
            // An entry the author had not seen cannot stand in its frontier: whether it is known
            // would depend on what has arrived.
            if let Some(rec) = load_entry(kv, id)?
                && chain::sees(kv, &act.rec, &rec)?
            {
                kept.push(*id);
            }
        }
        if let Some(member) = self.list.get_mut(theirs) {
            member.changes.push(Change { by: act.version, author, frontier: kept, role });
        }
        Ok(())
    }
}

/// The role of `rec`'s author in it; changes written by `without` are left out.
fn standing(
    kv: &(impl KvRead + ?Sized),
    base: Role,
    changes: &[Change],
    rec: &EntryRec,
    without: Option<DeviceId>,
) -> Result<Option<Role>, StateError> {
    let mut role = Some(base);
    for change in changes.iter().filter(|c| Some(c.author) != without) {
        if !change.covers(kv, rec)? {
            role = change.role;
        }
    }
    Ok(role)
}

/// A fork, as two entries that continue one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ForkProof {
    /// One of them.
    pub one: EntryId,
    /// The other.
    pub other: EntryId,
}

/// What owners should look at.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MemberFlags {
    /// Its chain has a fork: a restored backup, a cloned disk, or malice.
    pub forked: Option<ForkProof>,
    /// It joined by an invite whose uses were already taken.
    pub overused_invite: bool,
    /// It wrote operations that its role does not allow or that do not fit their own history.
    pub ignored_operations: bool,
}

/// A device the drive admits or admitted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// The device.
    pub device: DeviceId,
    /// Its name.
    pub name: String,
    /// Its role; the last one it had when it is removed.
    pub role: Role,
    /// Who admitted it; none for the first.
    pub admitted_by: Option<DeviceId>,
    /// Whether it was removed.
    pub removed: bool,
    /// What owners should look at.
    pub flags: MemberFlags,
}

/// An invite that admits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InviteInfo {
    /// The role its holder gets.
    pub role: Role,
}
