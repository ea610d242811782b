//! From drafts to a published entry: the order of writes of DESIGN 8.
//!
//! Leaves out when drafts are sealed and what they contain (`vfs`), and how an entry is made
//! (`journal`).
//!
//! Invariants:
//! - chunks are durable before the entry that names them is written;
//! - the entry is durable and applied before a peer hears of it and before `seal` returns;
//! - a reader's device writes nothing, whatever its file system was made to accept.

use std::sync::atomic::Ordering;

use journal::op::{Op, Role};
use journal::{AppendError, DeviceId, VersionId};
use vfs::{SealError, Submit};

use super::Drive;

/// How a device that was let in once is no member any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gone {
    /// It was removed.
    Removed,
    /// Whoever let it in had no right to, as the others know the drive: it was removed at that time.
    Forgotten,
}

impl Submit for Drive {
    fn may_write(&self) -> bool {
        self.may_write.load(Ordering::Relaxed)
    }

    fn seal(&self, ops: Vec<Op>) -> Result<Vec<VersionId>, SealError> {
        let role = self.own_role().ok_or_else(|| SealError::ReadOnly { removed: true })?;
        if role == Role::Reader {
            return Err(SealError::ReadOnly { removed: false });
        }
        self.store.sync().map_err(|error| match error {
            cas::error::WriteError::Full => SealError::Full,
            cas::error::WriteError::Closed => SealError::Closed,
            error => SealError::Failed(Box::new(error)),
        })?;
        let ended = self.ended_with(&ops);
        let authored = self.journal.author(&self.signer, ops, self.clock.now());
        let authored = authored.map_err(|error| match error {
            AppendError::Full => SealError::Full,
            AppendError::Closed => SealError::Closed,
            error @ (AppendError::Op { .. }
            | AppendError::Unfit { .. }
            | AppendError::TooLarge
            | AppendError::Encode(_)) => SealError::Refused(Box::new(error)),
            error => SealError::Failed(Box::new(error)),
        })?;
        self.give_published_back(&ended);
        self.announce();
        Ok(authored.versions)
    }
}

impl Drive {
    /// This device.
    pub fn device(&self) -> DeviceId {
        self.signer.device()
    }

    /// Whether this device is no member any more, and knows.
    pub fn is_removed(&self) -> bool {
        self.gone().is_some()
    }

    /// How this device, which was let in once, is no member any more.
    pub fn gone(&self) -> Option<Gone> {
        match self.journal.member(self.signer.device()) {
            Some(member) => member.removed.then_some(Gone::Removed),
            // Damaged entries may hold the admission.
            None if !self.journal.members_behind_gaps().is_empty() => None,
            None => self.was_let_in().then_some(Gone::Forgotten),
        }
    }

    fn was_let_in(&self) -> bool {
        let own = self.signer.device();
        self.let_in.load(Ordering::Relaxed)
            || self.journal.frontier().tips.iter().any(|tip| tip.device == own)
    }

    /// This device's role in the drive, or none when it is not (or no longer) a member.
    pub fn own_role(&self) -> Option<Role> {
        self.journal.member(self.signer.device()).filter(|m| !m.removed).map(|m| m.role)
    }
}
