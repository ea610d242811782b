//! Looking: what the drive holds, who belongs to it, what others lack.
//!
//! Leaves out: writing ([`super::commit`]).
//!
//! Invariants:
//! - each call is one short read transaction and sees one committed state.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::open::is_applied;
use super::{Counts, DriveInfo, Journal, Now, SnapshotInfo, VerifyReport, acks};
use crate::chain::{self, Frontier};
use crate::date::{OddClock, odd_clocks};
use crate::error::{InviteError, OpenError, StateError};
use crate::id::{DeviceId, DirId, DriveId, EntryId, VersionId};
use crate::kv::{KvRead, keys_with, prefix_end};
use crate::log::{self, Frame};
use crate::member::{ForkProof, InviteInfo, Member, MemberFlags, MemberState, Members};
use crate::name::EntryName;
use crate::records::{
    EntryRec, ForkRec, LogPos, Meta, What, corrupt, decode, key, load, load_entry, load_meta,
    load_version, table, version_at_end,
};
use crate::signed::{VerifiedEntry, VerifyError};
use crate::tree::{self, ContentCursor, Named};
use crate::view::{Conflict, DirNode, HistoryVersion, OnceNode, ViewNode};

/// How long after its expiry an invite still has its holder answered, milliseconds.
const INVITE_MEMORY_MS: u64 = 30 * 24 * 3_600_000;
/// Most damaged entries that are asked for at once.
const DAMAGED_MAX: usize = 256;

impl Journal {
    pub(crate) fn look<R>(
        &self,
        look: impl FnOnce(&dyn KvRead) -> Result<R, StateError>,
    ) -> Result<R, StateError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(StateError::Closed);
        }
        self.state.read(look)
    }

    /// For calls that cannot fail in their contract: what cannot be read is as if it were not there,
    /// and the log says so.
    pub(super) fn look_or<R>(
        &self,
        otherwise: R,
        look: impl FnOnce(&dyn KvRead) -> Result<R, StateError>,
    ) -> R {
        self.look(look).unwrap_or_else(|error| {
            tracing::error!(%error, "the journal's state cannot be read");
            otherwise
        })
    }

    fn meta(&self) -> Result<Meta, StateError> {
        self.look(|kv| load_meta(kv)?.ok_or(StateError::Corrupt { table: 'G' }))
    }

    /// What the drive is.
    pub fn drive(&self) -> DriveInfo {
        let genesis = Arc::clone(&self.genesis);
        let name = self.look_or(String::new(), |kv| Ok(Members::load(kv)?.drive_name));
        match self.meta() {
            Ok(Meta { drive, id_key, posix_owners, .. }) => {
                DriveInfo { id: drive, name, id_key, posix_owners, genesis }
            }
            Err(_) => {
                let id = crate::signed::genesis_drive(&genesis).unwrap_or(DriveId::ZERO);
                let id_key = cas::id::IdKey::from_bytes([0; 32]);
                DriveInfo { id, name, id_key, posix_owners: false, genesis }
            }
        }
    }

    /// The tips of every chain.
    pub fn frontier(&self) -> Frontier {
        self.look_or(Frontier::default(), |kv| chain::frontier(kv))
    }

    /// What a holder of `theirs` lacks, in causal order, at most about `bytes_max` (one at least).
    pub fn lacking(&self, theirs: &Frontier, bytes_max: usize) -> Vec<Arc<[u8]>> {
        let lacking = self.look_or(Vec::new(), |kv| chain::lacking(kv, theirs, bytes_max));
        // What cannot be read here ends the run: what follows would only wait for it.
        lacking.into_iter().map_while(|(id, at)| self.bytes_at(&id, at)).collect()
    }

    pub(super) fn bytes_at(&self, id: &EntryId, at: LogPos) -> Option<Arc<[u8]>> {
        match log::read(&*self.storage, at) {
            Ok(Some(bytes)) => Some(bytes.into()),
            Ok(None) => {
                tracing::error!(segment = at.segment, offset = at.offset, "a log frame is damaged");
                self.miss(*id);
                None
            }
            Err(error) => {
                tracing::error!(%error, "the log cannot be read");
                None
            }
        }
    }

    /// One entry's bytes.
    pub fn entry(&self, id: &EntryId) -> Option<Arc<[u8]>> {
        let rec = self.look_or(None, |kv| load_entry(kv, id))?;
        self.bytes_at(id, rec.at)
    }

    fn miss(&self, id: EntryId) {
        let mut damaged = self.damaged.lock();
        // The others are found when these are mended.
        if damaged.len() < DAMAGED_MAX {
            damaged.insert(id);
        }
    }

    /// Applied entries whose frames could not be read lately. Taken in again, they are written anew.
    pub fn damaged(&self) -> Vec<EntryId> {
        self.damaged.lock().iter().copied().collect()
    }

    /// Whether everything behind `theirs` is held here.
    pub fn covers(&self, theirs: &Frontier) -> bool {
        self.look_or(false, |kv| chain::covers(kv, theirs))
    }

    /// Entries of `device` that no other member is known to hold: they leave it only after the other end's entries
    /// are in and the late entry is written.
    pub fn unacknowledged(&self, device: DeviceId) -> Vec<EntryId> {
        self.look_or(Vec::new(), |kv| acks::unacknowledged(kv, device))
    }

    /// A member's clock showed `wall_ms` while the own one showed `now`.
    pub fn observe_clock(&self, device: DeviceId, wall_ms: u64, now: Now) {
        self.clock.lock().observe(device, wall_ms, now.wall_ms);
    }

    /// How far the other members' clocks are ahead of the own one, by those seen in this run.
    pub fn others_ahead_ms(&self) -> Option<i64> {
        self.clock.lock().others_ahead_ms()
    }

    /// The devices whose last entries have odd dates.
    pub fn odd_clocks(&self, now: Now) -> Result<Vec<OddClock>, StateError> {
        let now_ms = self.believed_ms(now);
        self.look(|kv| odd_clocks(kv, now_ms))
    }

    /// Every device the drive admits or admitted, in the order of admission.
    pub fn members(&self) -> Vec<Member> {
        self.look_or(Vec::new(), |kv| {
            Members::load(kv)?.list.iter().map(|m| member(kv, m)).collect()
        })
    }

    /// Devices of which nothing is known yet but what stands in entries of the own log that wait for damaged ones. They
    /// may have what is damaged here: who misses an admission would else never be let in, nor let anybody in.
    pub fn members_behind_gaps(&self) -> Vec<DeviceId> {
        if self.behind_gaps.is_empty() {
            return Vec::new();
        }
        let members = self.look_or(Members::default(), |kv| Members::load(kv));
        self.behind_gaps.iter().filter(|id| members.get(id).is_none()).copied().collect()
    }

    /// One member.
    pub fn member(&self, device: DeviceId) -> Option<Member> {
        self.look_or(None, |kv| Members::load(kv)?.get(&device).map(|m| member(kv, m)).transpose())
    }

    /// Whether the invite with this public key admits now.
    pub fn check_invite(&self, invite_key: &[u8; 32], now: Now) -> Result<InviteInfo, InviteError> {
        let members = self.look(|kv| Members::load(kv))?;
        let invite = members.invite(invite_key).ok_or(InviteError::Unknown)?;
        if !members.invite_stands(invite) {
            return Err(InviteError::Void);
        }
        if invite.used >= invite.uses {
            return Err(InviteError::Used);
        }
        if now.wall_ms > invite.expires {
            return Err(InviteError::Expired);
        }
        Ok(InviteInfo { role: invite.role })
    }

    /// Whether some invite admits now, or did until lately: only then need strangers be listened to. A holder of a
    /// ticket that was used or has just expired is told so, instead of finding the door shut.
    pub fn has_recent_invite(&self, now: Now) -> bool {
        let members = self.look_or(Members::default(), |kv| Members::load(kv));
        members.invites.iter().any(|invite| {
            members.invite_stands(invite)
                && now.wall_ms <= invite.expires.saturating_add(INVITE_MEMORY_MS)
        })
    }

    /// What is shown under `shown` in `dir`.
    pub fn lookup(&self, dir: DirId, shown: &EntryName) -> Result<Option<ViewNode>, StateError> {
        self.look(|kv| tree::lookup(kv, dir, shown))
    }

    /// The nodes of `dir` after the name `after`, in a fixed order, at most `limit`.
    pub fn list(
        &self,
        dir: DirId,
        after: Option<&EntryName>,
        limit: usize,
    ) -> Result<Vec<ViewNode>, StateError> {
        self.look(|kv| tree::list(kv, dir, after, limit))
    }

    /// Heads of the register that say there is nothing: what a new version there names as bases.
    pub fn gone_heads(&self, dir: DirId, name: &EntryName) -> Result<Vec<VersionId>, StateError> {
        self.look(|kv| tree::gone_heads(kv, dir, name))
    }

    /// The id of a directory made at `name` in `parent` in place of the versions `bases`, the same that its MkDir names.
    pub fn new_dir_id(
        &self,
        parent: DirId,
        name: &EntryName,
        bases: &[VersionId],
    ) -> Result<DirId, StateError> {
        let drive = self.meta()?.drive;
        self.look(|kv| tree::new_dir_id(kv, &drive, parent, name, bases))
    }

    /// The versions that `version` replaced.
    pub fn bases(&self, version: VersionId) -> Result<Vec<VersionId>, StateError> {
        self.look(|kv| Ok(load_version(kv, &version)?.map(|rec| rec.bases).unwrap_or_default()))
    }

    /// The directory `dir`, when it exists; the root stands nowhere.
    pub fn dir(&self, dir: DirId) -> Result<Option<DirNode>, StateError> {
        self.look(|kv| tree::dir(kv, dir))
    }

    /// The versions behind a name, newest first, following renames.
    pub fn history(&self, dir: DirId, name: &EntryName) -> Result<Vec<HistoryVersion>, StateError> {
        self.look(|kv| tree::history(kv, dir, name))
    }

    /// What stands or once stood in a directory, deleted names included, in the order of names.
    pub fn once(&self, dir: DirId) -> Result<Vec<OnceNode>, StateError> {
        self.look(|kv| tree::once(kv, dir))
    }

    /// What stands or once stood under one name.
    pub fn once_at(&self, dir: DirId, name: &EntryName) -> Result<Option<OnceNode>, StateError> {
        self.look(|kv| tree::once_at(kv, dir, name))
    }

    /// Every register that shows copies or lost a move.
    pub fn conflicts(&self) -> Result<Vec<Conflict>, StateError> {
        self.look(|kv| tree::conflicts(kv))
    }

    /// One hash of the visible tree and its conflicts; equal sets of entries give equal hashes.
    pub fn tree_hash(&self) -> [u8; 32] {
        self.meta().map(|meta| meta.tree_hash).unwrap_or_default()
    }

    /// Numbers for `status`.
    pub fn counts(&self) -> Counts {
        self.meta()
            .map(|meta| Counts {
                entries: meta.entries,
                files: meta.files,
                dirs: meta.dirs,
                conflicts: meta.copies,
            })
            .unwrap_or_default()
    }

    /// Contents and the versions that name them, newest entries first; go on with the cursor while there is one.
    pub fn contents(
        &self,
        after: Option<&ContentCursor>,
        limit: usize,
    ) -> (Vec<Named>, Option<ContentCursor>) {
        self.look_or((Vec::new(), None), |kv| tree::contents(kv, after, limit))
    }

    /// Named moments, oldest first.
    pub fn snapshots(&self) -> Result<Vec<SnapshotInfo>, StateError> {
        self.look(|kv| {
            let mut out = Vec::new();
            for row in keys_with(kv, &[table::SNAPSHOT])? {
                let version = version_at_end(&row)?;
                let Some(rec) = load_version(kv, &version)? else { continue };
                let Some(entry) = load_entry(kv, &version.entry)? else { continue };
                if let (What::Snapshot(name), true) = (rec.what, entry.accepted()) {
                    let (entry_id, at) = (version.entry, entry.order(version.entry));
                    let saved_at_ms = rec.saved_at_ms;
                    out.push((at, SnapshotInfo { name, entry: entry_id, saved_at_ms }));
                }
            }
            out.sort_by_key(|(at, _)| *at);
            Ok(out.into_iter().map(|(_, snapshot)| snapshot).collect())
        })
    }

    /// Reads the log again from disk and checks every signature and every link; `progress` is
    /// called with the number of entries read so far. What is missed is asked of peers from then on.
    pub fn verify(&self, progress: &mut dyn FnMut(u64)) -> Result<VerifyReport, OpenError> {
        self.verify_by(&mut VerifiedEntry::verify, progress)
    }

    /// [`Journal::verify`] by somebody's own check of signatures: the simulator looks at each entry once.
    pub fn verify_by(
        &self,
        check: &mut dyn FnMut(Arc<[u8]>) -> Result<VerifiedEntry, VerifyError>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<VerifyReport, OpenError> {
        let mut report = VerifyReport::default();
        let mut found = BTreeSet::new();
        let reader = log::Log::reader(Arc::clone(&self.storage))?;
        let (end, applied) = {
            let writer = self.writer.lock();
            (writer.log.end(), self.meta()?.entries)
        };
        reader.scan(LogPos::default(), &mut |frame| {
            // What is appended meanwhile may be half written.
            if frame.place() >= (end.segment, end.offset) {
                return Ok(());
            }
            let Frame::Entry { bytes, .. } = frame else {
                report.holes += 1;
                return Ok(());
            };
            let sound = match check(bytes.into()) {
                Err(_) => false,
                Ok(entry) => self.look(|kv| {
                    for id in entry.entry().parents().chain([entry.id()]) {
                        if !is_applied(kv, &id)? {
                            return Ok(false);
                        }
                    }
                    found.insert(entry.id());
                    Ok(true)
                })?,
            };
            match sound {
                true => report.entries += 1,
                false => report.bad += 1,
            }
            progress(report.entries + report.bad);
            Ok(())
        })?;
        if (found.len() as u64) < applied {
            report.bad += self.miss_all_but(&found, applied)?;
        }
        Ok(report)
    }

    /// Of the first `applied` entries, those that are not in `found` are missed. How many.
    fn miss_all_but(&self, found: &BTreeSet<EntryId>, applied: u64) -> Result<u64, StateError> {
        let mut missing = 0;
        self.look(|kv| {
            kv.scan(&[table::ENTRY], &prefix_end(&[table::ENTRY]), &mut |row, value| {
                let id = row.last_chunk::<32>().map(|id| EntryId::from_bytes(*id));
                let id = id.ok_or_else(|| corrupt(row))?;
                if !found.contains(&id) && decode::<EntryRec>(row, value)?.number < applied {
                    missing += 1;
                    self.miss(id);
                }
                Ok(ControlFlow::Continue(()))
            })
        })?;
        Ok(missing)
    }

    /// Makes the state as durable as the log; later calls give `Closed`.
    pub fn close(&self) -> Result<(), StateError> {
        let writer = self.writer.lock();
        if self.closed.load(Ordering::Acquire) {
            return Ok(());
        }
        self.save_acks();
        self.closed.store(true, Ordering::Release);
        let synced = self.state.sync();
        drop(writer);
        synced
    }
}

fn member(kv: &dyn KvRead, state: &MemberState) -> Result<Member, StateError> {
    let device = state.device;
    let fork: Option<ForkRec> = load(kv, &key(table::FORK, &[device.as_bytes()]))?;
    let unfit = kv.get(&key(table::UNFIT, &[device.as_bytes()]))?.is_some();
    let beyond: Option<u64> = load(kv, &key(table::BEYOND, &[device.as_bytes()]))?;
    Ok(Member {
        device,
        name: state.name.clone(),
        role: state.last_role(),
        admitted_by: state.admitted_by,
        removed: state.role().is_none(),
        flags: MemberFlags {
            forked: fork.map(|fork| ForkProof { one: fork.one, other: fork.other }),
            overused_invite: state.overused,
            ignored_operations: unfit || beyond.is_some_and(|count| count > 0),
        },
    })
}
