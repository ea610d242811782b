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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use journal::op::Value;
    use journal::{DirId, EntryName, GenesisSpec, Journal, Opened, Signer};
    use net::JournalHost as _;

    use super::*;
    use crate::clock::SystemClock;
    use crate::drive::Fetching;
    use crate::report::causes::FORGOTTEN;

    const ID_KEY: [u8; 32] = [7; 32];

    fn signer(n: u8) -> Signer {
        Signer::derive(&[n; 32], &[n; 32])
    }

    /// An invitation of `journal`'s and the admission of the device `n` by it.
    fn let_in(journal: &Journal, n: u8, role: Role) -> Vec<Op> {
        let (secret, device) = ([n; 32], signer(n).device());
        let invite = Signer::invite_public(&secret);
        let proof = journal::member::admit_proof(&secret, &journal.drive().id, &device);
        vec![
            Op::Invite { key: invite, role, expires: u64::MAX >> 16, uses: 1 },
            Op::Admit { invite, device, name: n.to_string(), proof },
        ]
    }

    #[test]
    fn who_was_let_in_by_one_who_had_been_removed_knows_that_it_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let now = || SystemClock.now();
        let spec = GenesisSpec {
            drive_name: "drive".into(),
            device_name: "1".into(),
            id_key: cas::id::IdKey::from_bytes(ID_KEY),
            posix_owners: false,
        };
        let first = Journal::create(&dir.path().join("1"), &signer(1), spec, now()).unwrap();
        let genesis = first.drive().genesis;
        let second = Journal::adopt(&dir.path().join("2"), &genesis).unwrap();
        first.author(&signer(1), let_in(&first, 2, Role::Owner), now()).unwrap();
        second.receive(&first.lacking(&second.frontier(), usize::MAX), now()).unwrap();
        second.author(&signer(2), let_in(&second, 3, Role::Editor), now()).unwrap();
        let frontier = first.frontier().tips.into_iter().map(|tip| tip.entry).collect();
        let removal = Op::Remove { device: signer(2).device(), frontier };
        first.author(&signer(1), vec![removal], now()).unwrap();

        let store = cas::store::Store::open(cas::store::Config {
            dir: dir.path().join("cas"),
            id_key: cas::id::IdKey::from_bytes(ID_KEY),
            reserve_bytes: 0,
            workers: 1,
        });
        let store = store.unwrap();
        let fetching = Fetching::load(dir.path(), crate::launch::Keep::All, Opened::Clean, &store);
        let journal = Journal::adopt(&dir.path().join("3"), &genesis).unwrap();
        let (place, through) = (Path::new("/nowhere"), Some(signer(2).device()));
        let drive = Drive::new(journal, store, signer(3), place, through, fetching);
        assert_eq!(drive.gone(), None, "it is not let in yet");
        let hear = |of: &Journal| {
            let lacking = of.lacking(&drive.journal().frontier(), usize::MAX);
            drive.receive(signer(2).device(), &lacking).unwrap();
        };
        hear(&second);
        assert_eq!((drive.gone(), drive.own_role()), (None, Some(Role::Editor)));
        let name = EntryName::new("work").unwrap();
        let value = Value::Gone { moved_to: None };
        drive.author(vec![Op::Put { dir: DirId::ROOT, name, value, bases: vec![] }]).unwrap();
        assert!(drive.status().notices.is_empty());
        hear(&first);
        assert_eq!((drive.gone(), drive.own_role()), (Some(Gone::Forgotten), None));
        let status = drive.status();
        assert!(!status.in_sync && status.notices.iter().any(|n| n.what.starts_with(FORGOTTEN)));
    }
}
