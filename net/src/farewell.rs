//! The journal as a removed device meets it: it is told of its removal, and what it wrote before is taken in.
//!
//! Leaves out: who is let in, how often and for how long ([`crate::behaviour::gate`]).
//!
//! Invariants:
//! - nothing leaves that the host does not give to that device;
//! - what it says that it holds is no evidence of anything: nobody counts on a device that is gone.

use std::sync::Arc;

use journal::{AppendError, DeviceId, DriveId, EntryId, Frontier, Received};

use crate::host::{AdmitError, JournalHost};

/// See the module's words.
pub(crate) struct Farewell {
    host: Arc<dyn JournalHost>,
    device: DeviceId,
}

impl Farewell {
    pub(crate) fn new(host: Arc<dyn JournalHost>, device: DeviceId) -> Self {
        Self { host, device }
    }
}

impl JournalHost for Farewell {
    fn drive_id(&self) -> DriveId {
        self.host.drive_id()
    }

    fn genesis(&self) -> Arc<[u8]> {
        self.host.genesis()
    }

    fn frontier(&self) -> Frontier {
        self.host.farewell_frontier(self.device)
    }

    fn lacking(&self, theirs: &Frontier, bytes_max: usize) -> Vec<Arc<[u8]>> {
        self.host.farewell_lacking(self.device, theirs, bytes_max)
    }

    fn entry_id(&self, entry: &[u8]) -> EntryId {
        self.host.entry_id(entry)
    }

    fn entry(&self, id: &EntryId) -> Option<Arc<[u8]>> {
        self.host.farewell_entry(self.device, id)
    }

    fn damaged(&self) -> Vec<EntryId> {
        Vec::new()
    }

    fn covers(&self, theirs: &Frontier) -> bool {
        self.host.covers(theirs)
    }

    fn is_under(&self, target: &Frontier, held: &Frontier) -> bool {
        self.host.is_under(target, held)
    }

    fn unacknowledged(&self) -> Vec<EntryId> {
        Vec::new()
    }

    fn receive(&self, from: DeviceId, entries: &[Arc<[u8]>]) -> Result<Received, AppendError> {
        self.host.receive(from, entries)
    }

    fn acknowledged(&self, _: DeviceId, _: &Frontier) {}

    fn before_first_push(&self) -> Result<(), AppendError> {
        Ok(())
    }

    fn members(&self) -> Vec<DeviceId> {
        Vec::new()
    }

    fn is_member(&self, _: DeviceId) -> bool {
        false
    }

    fn invites_open(&self) -> bool {
        false
    }

    fn admit(&self, _: [u8; 32], _: DeviceId, _: String, _: [u8; 64]) -> Result<(), AdmitError> {
        Err(AdmitError::Unable)
    }

    fn holds(&self) -> Option<Frontier> {
        None
    }

    fn they_hold(&self, _: DeviceId, _: &Frontier) {}

    fn observe_clock(&self, _: DeviceId, _: u64) {}
}
