//! What the drive answers to the command line's questions.
//!
//! Leaves out how answers travel and look ([`crate::ipc`], [`crate::cli`]).
//!
//! Invariants: an answer is a snapshot of one moment; nothing here changes the drive.

use journal::view::{HistoryStanding, ViewKind, ViewNode};
use journal::{DeviceId, Member, Register, StateError, Value};

use super::Drive;
use super::noticing::reason;
use super::paths::PathError;
use crate::ipc::{
    ConflictCopy, ConflictReport, DeviceRow, DriveRow, HistoryReport, HistoryRow, MemberRow, Role,
    SnapshotRow, StatusReport, rfc3339,
};
use crate::report::Failure;

fn role_row(role: journal::op::Role) -> Role {
    match role {
        journal::op::Role::Owner => Role::Owner,
        journal::op::Role::Editor => Role::Editor,
        journal::op::Role::Reader => Role::Reader,
    }
}

fn join(dir: &str, name: &str) -> String {
    if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") }
}

/// Entries looked at for [`StatusReport::to_send_bytes`] while nobody is there, count.
const UNSENT_MAX: usize = 4_096;

/// Whether `text` names `member`: its id, the beginning of it (8 characters or more), or its name.
fn is_named(member: &Member, text: &str) -> bool {
    let id = member.device.to_string();
    id == text || member.name == text || (text.len() >= 8 && id.starts_with(text))
}

impl Drive {
    /// Everything `atelier status` shows.
    pub fn status(&self) -> StatusReport {
        let drive = self.journal.drive();
        let members = self.member_rows();
        let own = self.signer.device();
        let fs = self.fs();
        let drafts = fs.as_ref().map_or(0, |fs| fs.drafts()) as u64;
        let (arriving, to_receive_bytes) = self.arriving();
        let own_id = own.to_string();
        let others: Vec<&MemberRow> = members.iter().filter(|m| m.id != own_id).collect();
        let online_in_sync = others.iter().filter(|m| m.online).all(|m| m.in_sync);
        // With nobody there to take it, own work that nobody is known to have is not in sync.
        let alone = !others.is_empty() && others.iter().all(|m| !m.online);
        let unsent_bytes = if alone { self.unsent_bytes() } else { 0 };
        let held_elsewhere = others.is_empty() || others.iter().any(|m| m.in_sync);
        let device = DeviceRow {
            name: members
                .iter()
                .find(|m| m.id == own_id)
                .map(|m| m.name.clone())
                .unwrap_or_default(),
            id: own_id.clone(),
        };
        let mut notices = self.notices.lock().clone();
        if let Some(fs) = &fs {
            notices.extend(fs.notices().into_iter().map(|n| crate::ipc::Notice {
                what: n.what,
                since: rfc3339(u64::try_from(n.since.secs).unwrap_or(0).saturating_mul(1_000)),
                remedy: n.remedy,
            }));
        }
        notices.extend(self.member_notices());
        StatusReport {
            drive: DriveRow { name: drive.name, id: drive.id.to_string() },
            path: self.mount.display().to_string(),
            device,
            in_sync: drafts == 0
                && arriving == 0
                && online_in_sync
                && unsent_bytes == 0
                && !self.is_removed(),
            safe_to_close: drafts == 0 && held_elsewhere,
            to_send_bytes: self.net().map_or(0, |net| net.progress().to_send).max(unsent_bytes),
            to_receive_bytes,
            drafts,
            arriving: arriving as u64,
            locks: self.lock_rows().unwrap_or_default(),
            conflicts: self.journal.counts().conflicts,
            tree_hash: hex(&self.journal.tree_hash()),
            listen: self
                .net()
                .map(net::Handle::listen_addrs)
                .unwrap_or_default()
                .iter()
                .map(ToString::to_string)
                .collect(),
            notices,
            members,
            store_bytes: self.store.usage().stored_bytes,
            policy: self.policy_row(),
            last_gc: self.collected.row(),
            history: self.collected.history(),
        }
    }

    /// Bytes of own work that no other member is known to have, its entries included.
    fn unsent_bytes(&self) -> u64 {
        let mut bytes = 0_u64;
        for id in self.journal.unacknowledged(self.signer.device()).iter().take(UNSENT_MAX) {
            let Some(entry) = self.journal.entry(id) else { continue };
            bytes = bytes.saturating_add(entry.len() as u64);
            let Ok(parts) = journal::codec::decode(&entry) else { continue };
            for op in &parts.entry.ops {
                if let journal::op::Op::Put { value: Value::File(file), .. } = op {
                    bytes = bytes.saturating_add(file.content.len);
                }
            }
        }
        bytes
    }

    /// The members as a table, this device included.
    pub fn member_rows(&self) -> Vec<MemberRow> {
        let own = self.signer.device();
        let peers = self.net().map(net::Handle::peers).unwrap_or_default();
        let members = self.journal.members().into_iter().filter(|m| !m.removed);
        members
            .map(|member| {
                let peer = peers.iter().find(|p| p.device == member.device);
                let is_self = member.device == own;
                MemberRow {
                    name: member.name,
                    id: member.device.to_string(),
                    role: role_row(member.role),
                    online: is_self || peer.is_some_and(|p| p.connected),
                    in_sync: is_self || peer.is_some_and(|p| p.in_sync),
                    last_seen: if is_self {
                        Some(rfc3339(self.clock.wall_ms()))
                    } else {
                        peer.and_then(|p| p.last_seen_ms).map(rfc3339)
                    },
                }
            })
            .collect()
    }

    /// The member `text` names: its id, the beginning of it (8 characters or more), or its name.
    pub fn member_named(&self, text: &str) -> Option<DeviceId> {
        let members = self.journal.members();
        let mut found = members.iter().filter(|m| !m.removed && is_named(m, text));
        let first = found.next()?;
        found.next().is_none().then_some(first.device)
    }

    /// The device `text` names, likewise, of which something is kept aside; where nothing is, one that was removed or
    /// may only read.
    pub fn set_aside_named(&self, text: &str) -> Result<DeviceId, Failure> {
        let mut named = self.journal.members();
        named.retain(|m| is_named(m, text));
        let mut with: Vec<DeviceId> = Vec::new();
        for member in &named {
            let aside = self.journal.set_aside_count(member.device, 1);
            if aside.map_err(|e| Failure::of(&e))?.is_some() {
                with.push(member.device);
            }
        }
        match with.as_slice() {
            [one] => Ok(*one),
            [] => {
                let mut lesser =
                    named.iter().filter(|m| m.removed || m.role == journal::op::Role::Reader);
                let none = || Failure::no_such_removed_member(text);
                lesser.next().map(|m| m.device).ok_or_else(none)
            }
            several => Err(Failure::several_set_aside(text, several)),
        }
    }

    /// The name a device was admitted under, or its id.
    pub fn device_name(&self, device: DeviceId) -> String {
        self.journal.member(device).map_or_else(|| device.to_string(), |m| m.name)
    }

    /// All versions of the file at `path`, newest first; none when there has never been one.
    pub fn history(&self, path: &str) -> Result<Option<HistoryReport>, PathError> {
        let Some(register) = self.find_once(path)? else { return Ok(None) };
        let versions = self.journal.history(register.dir, &register.name)?;
        let now_ms = self.journal.believed_ms(self.clock.now());
        let mut rules = None;
        let rows: Vec<HistoryRow> = versions
            .into_iter()
            .filter_map(|v| {
                let size = match &v.value {
                    Value::File(file) => file.content.len,
                    Value::Symlink(link) => link.target.len() as u64,
                    Value::Gone { .. } => return None,
                };
                Some(HistoryRow {
                    version: v.version.to_string(),
                    time: rfc3339(v.saved_at_ms),
                    author: self.device_name(v.author),
                    device: v.author.to_string(),
                    size,
                    official: v.standing == HistoryStanding::Official,
                    gone: self.is_gone(&v, &mut rules),
                    aside: v.standing == HistoryStanding::Quarantined,
                    odd: journal::date::odd(v.saved_at_ms, &v.order, now_ms).map(reason),
                })
            })
            .collect();
        Ok((!rows.is_empty()).then_some(HistoryReport { versions: rows }))
    }

    /// The named snapshots, oldest first.
    pub fn snapshot_rows(&self) -> Result<Vec<SnapshotRow>, StateError> {
        let all = self.journal.snapshots()?.into_iter();
        Ok(all.map(|s| SnapshotRow { name: s.name, time: rfc3339(s.saved_at_ms) }).collect())
    }

    /// Every name that shows conflict copies, and every directory move that lost.
    pub fn conflict_reports(&self) -> Result<Vec<ConflictReport>, StateError> {
        let mut reports = Vec::new();
        for conflict in self.journal.conflicts()? {
            let Some(dir) = self.path_of_dir(conflict.register.dir)? else { continue };
            let mut copies: Vec<ConflictCopy> =
                conflict.copies.iter().map(|copy| self.copy_row(&dir, copy)).collect();
            for skipped in &conflict.skipped {
                copies.push(ConflictCopy {
                    path: self.path_of_register(&skipped.to)?,
                    author: self.device_name(skipped.author),
                    version: skipped.version.to_string(),
                    time: rfc3339(skipped.saved_at_ms),
                    moved: false,
                });
            }
            reports
                .push(ConflictReport { path: join(&dir, conflict.register.name.as_str()), copies });
        }
        Ok(reports)
    }

    fn copy_row(&self, dir: &str, copy: &ViewNode) -> ConflictCopy {
        let shown = copy.shown.as_str();
        let path = match copy.kind {
            ViewKind::Dir { .. } => format!("{}/", join(dir, shown)),
            _ => join(dir, shown),
        };
        ConflictCopy {
            path,
            author: self.device_name(copy.author),
            version: copy.version.to_string(),
            time: rfc3339(copy.saved_at_ms),
            moved: true,
        }
    }

    pub(super) fn path_of_register(&self, register: &Register) -> Result<String, StateError> {
        let dir = self.path_of_dir(register.dir)?.unwrap_or_default();
        Ok(join(&dir, register.name.as_str()))
    }
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}
