//! Members, invitations and the others' progress, as commands ask for them.
//!
//! Leaves out the rules of membership (`journal`) and connections (`net`).
//!
//! Invariants: a ticket is given out only after its invitation is in the journal, durably.

use std::time::Duration;

use journal::EntryId;
use journal::op::{Op, Role};
use net::invite::Ticket;

use super::Drive;
use crate::report::Failure;

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
            addrs: self.net().map(net::Handle::listen_addrs).unwrap_or_default(),
        };
        let op = Op::Invite { key: ticket.invite_key(), role, expires, uses };
        self.author(vec![op]).map_err(|e| Failure::of(&e))?;
        if let Some(net) = self.net() {
            net.members_changed();
        }
        Ok(ticket)
    }

    /// The tips of all chains, as a removal or a change of role names them.
    pub fn tips(&self) -> Vec<EntryId> {
        self.journal.frontier().tips.into_iter().map(|tip| tip.entry).collect()
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
