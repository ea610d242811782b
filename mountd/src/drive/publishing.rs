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

    /// Whether this device was removed from the drive, and knows.
    pub fn is_removed(&self) -> bool {
        self.journal.member(self.signer.device()).is_some_and(|m| m.removed)
    }

    /// This device's role in the drive, or none when it is not (or no longer) a member.
    pub fn own_role(&self) -> Option<Role> {
        self.journal.member(self.signer.device()).filter(|m| !m.removed).map(|m| m.role)
    }
}
