//! Members, invitations and the others' progress, as commands ask for them.
//!
//! Leaves out the rules of membership (`journal`) and connections (`net`).
//!
//! Invariants: a ticket is given out only after its invitation is in the journal, durably.

use std::time::Duration;

use journal::op::{Op, Role, Value};
use journal::{DeviceId, EntryId, Register};
use net::Multiaddr;
use net::invite::Ticket;

use super::Drive;
use crate::ipc::{AsideRow, rfc3339};
use crate::report::Failure;

/// How long an invitation waits for this device's addresses, which are known a moment after a start.
const ADDRS_MAX: Duration = Duration::from_secs(2);

/// Whether rights can be taken from a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Against {
    /// They can.
    Allowed,
    /// It is an owner that was admitted before this device.
    Earlier,
    /// It is the only owner.
    LastOwner,
}

/// Whether something is done or only told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TakeBack {
    /// Done.
    Now,
    /// Told.
    Told,
}

impl Drive {
    /// Makes an invitation and the ticket for it.
    pub fn invite(&self, role: Role, expires_s: u64, uses: u32) -> Result<Ticket, Failure> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(Failure::internal)?;
        let expires = self.clock.wall_ms().saturating_add(expires_s.saturating_mul(1_000));
        let ticket = Ticket {
            drive: self.journal.drive().id,
            secret,
            role,
            expires,
            inviter: self.signer.device(),
            addrs: self.addrs_for_tickets(),
        };
        let op = Op::Invite { key: ticket.invite_key(), role, expires, uses };
        self.author(vec![op]).map_err(|e| Failure::of(&e))?;
        if let Some(net) = self.net() {
            net.members_changed();
        }
        Ok(ticket)
    }

    /// A ticket without an address leads nowhere beyond the local network.
    fn addrs_for_tickets(&self) -> Vec<Multiaddr> {
        self.net().map(|net| net.wait_for_listen_addrs(ADDRS_MAX)).unwrap_or_default()
    }

    /// The tips of all chains, as a removal or a change of role names them.
    pub fn tips(&self) -> Vec<EntryId> {
        self.journal.frontier().tips.into_iter().map(|tip| tip.entry).collect()
    }

    /// Whether this device may take rights from `device`, as the journal's rules have it.
    pub fn standing_against(&self, device: DeviceId) -> Against {
        let own = self.signer.device();
        let owners: Vec<DeviceId> = self
            .journal
            .members()
            .into_iter()
            .filter(|m| !m.removed && m.role == Role::Owner)
            .map(|m| m.device)
            .collect();
        let rank = |of: DeviceId| owners.iter().position(|owner| *owner == of);
        match rank(device) {
            Some(_) if owners.len() == 1 => Against::LastOwner,
            Some(theirs) if rank(own).is_none_or(|mine| theirs < mine) => Against::Earlier,
            _ => Against::Allowed,
        }
    }

    /// What a device wrote before it heard that it was removed or made a reader; with [`TakeBack::Now`] it counts from now
    /// on.
    pub fn take_back(&self, device: DeviceId, how: TakeBack) -> Result<Vec<AsideRow>, Failure> {
        let failed = |e: journal::StateError| Failure::of(&e);
        let mut rows = Vec::new();
        for aside in self.journal.set_aside(device).map_err(failed)? {
            rows.push(AsideRow {
                path: self.path_of_register(&aside.register).map_err(failed)?,
                version: aside.version.to_string(),
                time: rfc3339(aside.saved_at_ms),
                kind: match &aside.value {
                    Some(Value::File(_)) => "file",
                    Some(Value::Symlink(_)) => "link",
                    Some(Value::Gone { .. }) => "removal",
                    None => "folder",
                }
                .into(),
                size: match &aside.value {
                    Some(Value::File(file)) => file.content.len,
                    _ => 0,
                },
            });
        }
        let ops = self.journal.take_back(device).map_err(failed)?;
        if how == TakeBack::Now && !ops.is_empty() {
            self.author(ops).map_err(|e| Failure::of(&e))?;
        }
        Ok(rows)
    }

    /// Says of every move that lost at `path` that it is dealt with; how many there were.
    pub fn settle(&self, path: &str) -> Result<usize, Failure> {
        let failed = |e: journal::StateError| Failure::of(&e);
        for conflict in self.journal.conflicts().map_err(failed)? {
            let named = self.path_of_register(&conflict.register).map_err(failed)?;
            if named != path || conflict.skipped.is_empty() {
                continue;
            }
            let count = conflict.skipped.len();
            let drop = conflict.skipped.iter().map(|skipped| skipped.version).collect();
            let Register { dir, name } = conflict.register;
            self.author(vec![Op::Resolve { dir, name, drop }]).map_err(|e| Failure::of(&e))?;
            return Ok(count);
        }
        Ok(0)
    }

    /// Publishes what the file system still has as drafts.
    pub fn seal_drafts(&self) -> Result<(), vfs::SealError> {
        match self.fs() {
            Some(fs) => fs.seal_all(),
            None => Ok(()),
        }
    }

    /// Publishes finished saves that the file system still has as drafts, and no part of one.
    pub fn seal_saves(&self) -> Result<(), vfs::SealError> {
        match self.fs() {
            Some(fs) => fs.seal_settled(),
            None => Ok(()),
        }
    }

    /// Waits until everybody connected has everything, as `net` defines it.
    pub fn sync_with_all(&self, wait: Duration) -> net::Synced {
        self.net().map(|net| net.sync_barrier_blocking(wait)).unwrap_or_default()
    }

    /// Whether this device is a member and has the entries of somebody who is connected.
    pub fn has_caught_up(&self) -> bool {
        self.own_role().is_some()
            && self.net().is_some_and(|net| net.peers().iter().any(|p| p.connected && p.caught_up))
    }
}
