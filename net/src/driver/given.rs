//! Addresses a person gave, of which it is not known who answers there.
//!
//! Leaves out: addresses of known members ([`crate::peers`]).
//!
//! Invariant: each is dialled, with growing waits, until somebody of the drive has answered there once;
//! from then on the address book takes care.

use std::collections::BTreeMap;

use journal::id::DeviceId;
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::ConnectionId;

use crate::limits;
use crate::node::device_of;
use crate::peers::{AddressBook, Source, wait_ms};
use crate::wire::Addr;

#[derive(Debug)]
struct Entry {
    addr: Addr,
    /// Who must answer there, if that was given too.
    device: Option<DeviceId>,
    next_ms: u64,
    failures: u32,
    dialling: bool,
}

/// Addresses given at once, count.
const GIVEN_MAX: usize = 256;

/// See the module's words.
#[derive(Debug, Default)]
pub(super) struct Given {
    entries: Vec<Entry>,
    dials: BTreeMap<ConnectionId, Addr>,
}

impl Given {
    pub(super) fn new(addrs: Vec<Multiaddr>) -> Self {
        let mut given = Self::default();
        for addr in addrs {
            given.add(addr, 0);
        }
        given
    }

    pub(super) fn add(&mut self, addr: Multiaddr, now_ms: u64) {
        let device = addr.iter().find_map(|part| match part {
            Protocol::P2p(peer) => device_of(&peer),
            _ => None,
        });
        let Some(addr) = Addr::new(addr) else { return };
        if let Some(entry) = self.entries.iter_mut().find(|e| e.addr == addr) {
            entry.next_ms = now_ms;
        } else if self.entries.len() < GIVEN_MAX {
            let (failures, dialling) = (0, false);
            self.entries.push(Entry { addr, device, next_ms: now_ms, failures, dialling });
        }
    }

    /// Addresses whose owner is named go to the book as soon as that device is a member.
    pub(super) fn teach(&mut self, book: &mut AddressBook, now_ms: u64) {
        self.entries.retain(|entry| match &entry.device {
            Some(device) if book.knows(device) => {
                book.learn(device, std::slice::from_ref(&entry.addr), Source::Given, now_ms);
                false
            }
            _ => true,
        });
    }

    pub(super) fn take_due(&mut self, now_ms: u64) -> Vec<Addr> {
        let due = self
            .entries
            .iter_mut()
            .filter(|e| e.device.is_none() && !e.dialling && e.next_ms <= now_ms);
        due.map(|entry| {
            entry.dialling = true;
            entry.addr.clone()
        })
        .collect()
    }

    pub(super) fn next_due_ms(&self) -> Option<u64> {
        let waiting = self.entries.iter().filter(|e| e.device.is_none() && !e.dialling);
        waiting.map(|e| e.next_ms).min()
    }

    pub(super) fn dialling(&mut self, id: ConnectionId, addr: &Addr) {
        self.dials.insert(id, addr.clone());
    }

    pub(super) fn failed(&mut self, id: &ConnectionId, now_ms: u64, jitter: f64) {
        if let Some(addr) = self.dials.remove(id) {
            self.failed_now(&addr, now_ms, jitter);
        }
    }

    pub(super) fn failed_now(&mut self, addr: &Addr, now_ms: u64, jitter: f64) {
        if let Some(entry) = self.entries.iter_mut().find(|e| e.addr == *addr) {
            entry.dialling = false;
            entry.next_ms = now_ms + wait_ms(entry.failures, jitter).min(GIVEN_WAIT_MAX_MS);
            entry.failures = entry.failures.saturating_add(1);
        }
    }

    /// Somebody of the drive answered.
    pub(super) fn reached(&mut self, id: &ConnectionId) {
        if let Some(addr) = self.dials.remove(id) {
            self.entries.retain(|e| e.addr != addr);
        }
    }
}

/// A person waits for these: no longer than this between dials, milliseconds.
const GIVEN_WAIT_MAX_MS: u64 = limits::RECONNECT_MAX.as_millis() as u64 / 6;
