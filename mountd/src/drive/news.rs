//! What the network tells, carried into the drive: who came and left, what arrived, what nobody has.
//!
//! Leaves out how it is found out (`net`).
//!
//! Invariants:
//! - news are taken in the order they came; what they change is shown once for all that were taken together, because
//!   tens of thousands may come in a minute.

use std::collections::BTreeSet;

use journal::{DeviceId, Register};
use net::Event;

use super::Drive;
use super::fetching::Reach;

impl Drive {
    /// Takes news in.
    pub fn take_news(&self, news: impl IntoIterator<Item = Event>) {
        let in_company = self.somebody_online();
        let mut changed: BTreeSet<Register> = BTreeSet::new();
        let mut arrived = false;
        let mut out_of_reach = false;
        for event in news {
            match event {
                Event::PeerUp(device) => {
                    tracing::info!(%device, "member online");
                    self.online.lock().insert(device);
                }
                Event::PeerDown(device) => {
                    tracing::info!(%device, "member offline");
                    self.online.lock().remove(&device);
                }
                Event::ContentArrived(content) => {
                    changed.extend(self.content_arrived(&content));
                    arrived = true;
                }
                Event::ContentOutOfReach(content) => {
                    changed.extend(self.content_reach(&content, Reach::Nobody));
                    out_of_reach = true;
                }
                Event::ContentWithinReach(content) => {
                    changed.extend(self.content_reach(&content, Reach::Somebody));
                }
                Event::LocksChanged(scopes) => self.locks_changed(&scopes),
                Event::LockLost(scope) => self.lock_lost(&scope),
                other => self.take_notice(other),
            }
        }
        if in_company != self.somebody_online() {
            // What is pending shows its newest version, or the newest that is here.
            changed.extend(self.fetching.pending_registers());
        }
        if out_of_reach {
            let let_go = self.let_go();
            arrived |= !let_go.is_empty();
            changed.extend(let_go);
        }
        let changed: Vec<Register> = changed.into_iter().collect();
        self.show(&changed);
        if arrived && self.fetching.pending_count() == 0 {
            self.announce();
        }
    }

    /// What is only told on to the user.
    fn take_notice(&self, event: Event) {
        let name = |device: DeviceId| self.device_name(device);
        match event {
            Event::Listening(addr) => tracing::info!(%addr, "listening"),
            Event::Joined(device) => tracing::info!(%device, "a device has joined"),
            Event::PeerIncompatible(device) => self.notice(
                format!("{} runs a version of Atelier that this one cannot talk to", name(device)),
                "install the newer version on both devices".into(),
            ),
            Event::PeerTwice(device) => self.notice(
                format!("{} runs in two places at once, from a copied data directory", name(device)),
                "end one of the two: each takes the place of the other again and again".into(),
            ),
            Event::RunsTwice => self.notice(
                "a copy of this device's data directory is in use elsewhere: each takes the place of the other again and again".into(),
                "end one of the two; a second device joins with a ticket of its own (`atelier invite`)"
                    .into(),
            ),
            // Once this device knows why, `status` says so.
            Event::PeerRefuses(_) if self.is_removed() => {}
            Event::PeerRefuses(device) => self.notice(
                format!("{} does not let this device in: there, it is no member", name(device)),
                "ask an owner whether this device was removed; what is here stays here".into(),
            ),
            Event::PeerMisbehaved(device) => self.notice(
                format!(
                    "{} sent data that is not what it says; it is cut off for a while",
                    name(device)
                ),
                "if this goes on, check that device's disk, or remove it".into(),
            ),
            Event::StoreFull => self.notice(
                "the disk of this device is full: files are no longer fetched".into(),
                "free space on the disk that holds the store".into(),
            ),
            Event::PeerUp(_)
            | Event::PeerDown(_)
            | Event::LocksChanged(_)
            | Event::LockLost(_)
            | Event::ContentArrived(_)
            | Event::ContentOutOfReach(_)
            | Event::ContentWithinReach(_) => {}
        }
    }
}
