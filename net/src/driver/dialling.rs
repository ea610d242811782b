//! The driver's dials: TCP first, QUIC when that takes long or fails.
//!
//! Leaves out: when a dial is due ([`crate::peers`], [`super::given`]).
//!
//! Invariant: a dial taken from the address book ends in a connection or in `failed`.

use std::time::Instant;

use super::*;

impl Driver {
    pub(super) fn dial(&mut self, dial: Dial, now: Instant) {
        let (tcp, quic): (Vec<Addr>, Vec<Addr>) =
            dial.addrs.into_iter().partition(|addr| addr.via() == Via::Tcp);
        let (first, second) = if tcp.is_empty() { (quic, Vec::new()) } else { (tcp, quic) };
        if !second.is_empty() {
            self.second.insert(dial.device, (now + limits::SECOND_TRANSPORT_DELAY, second));
        }
        if !self.dial_addrs(dial.device, &first) {
            self.dial_second(dial.device);
        }
    }

    /// The other transport's turn; without one the dial has failed.
    pub(super) fn dial_second(&mut self, device: DeviceId) {
        if let Some((_, addrs)) = self.second.remove(&device)
            && self.dial_addrs(device, &addrs)
        {
            return;
        }
        if !self.dialling.values().any(|d| *d == device) {
            self.book.failed(&device, self.node.now_ms(), jitter());
        }
    }

    pub(super) fn dial_addrs(&mut self, device: DeviceId, addrs: &[Addr]) -> bool {
        let opts = DialOpts::peer_id(peer_of(&device))
            .condition(PeerCondition::Disconnected)
            .addresses(addrs.iter().map(|a| a.as_multiaddr().clone()).collect())
            .build();
        let id = opts.connection_id();
        match self.swarm.dial(opts) {
            Ok(()) => {
                self.dialling.insert(id, device);
                true
            }
            Err(error) => {
                tracing::debug!(%device, %error, "cannot dial");
                false
            }
        }
    }

    pub(super) fn dial_given(&mut self, addr: Addr) {
        let opts = DialOpts::unknown_peer_id().address(addr.as_multiaddr().clone()).build();
        let id = opts.connection_id();
        match self.swarm.dial(opts) {
            Ok(()) => self.given.dialling(id, &addr),
            Err(error) => {
                tracing::debug!(%addr, %error, "cannot dial");
                self.given.failed_now(&addr, self.node.now_ms(), jitter());
            }
        }
    }
}
