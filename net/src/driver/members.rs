//! Who belongs to the drive by now, and who is kept out for a while.
//!
//! Leaves out: who is let in at the door (`behaviour::gate`).
//!
//! Invariant: a connection of a device that is no member ends here, but for guests within their time.

use super::*;

impl Driver {
    /// Asks the journal who is a member and cuts the others off.
    pub(super) async fn look_at_members(&mut self) {
        let node = self.node.clone();
        let asked = tokio::task::spawn_blocking(move || {
            (node.journal.members(), node.journal.removed(), node.journal.invites_open())
        });
        let Ok((members, removed, open)) = asked.await else { return };
        self.members_seen = Instant::now();
        self.members_stale = false;
        self.node.set_lock_members(&members);
        let peers: BTreeSet<PeerId> = members.iter().map(peer_of).collect();
        self.gate.set_members(peers);
        self.gate.set_removed(removed.iter().map(peer_of).collect());
        self.gate.set_strangers(if open { Strangers::Allowed } else { Strangers::Refused });
        self.book.set_members(&members, &self.node.me, self.node.now_ms());
        self.twins.keep(&members);
        self.given.teach(&mut self.book, self.node.now_ms());
        let cut: Vec<ConnectionId> = self
            .connections
            .iter()
            .filter(|(id, c)| !members.contains(&c.device) && !self.is_guest(id))
            .map(|(id, _)| *id)
            .collect();
        for id in cut {
            self.swarm.close_connection(id);
        }
        let is_gone = |(device, talk): &(&DeviceId, &Talk)| {
            !members.contains(device) && !self.is_guest(&talk.connection)
        };
        let gone: Vec<DeviceId> = self.talks.iter().filter(is_gone).map(|(d, _)| *d).collect();
        for device in gone {
            self.end_talk(device);
            self.end_locks(device);
        }
    }

    /// Whether the connection is that of a stranger or a removed device within its time.
    pub(super) fn is_guest(&self, id: &ConnectionId) -> bool {
        self.gate.is_pending(id) || self.gate.is_leaving(id)
    }

    /// A member that runs in two places is told where the other one is.
    pub(super) fn look_for_twin(&mut self, device: DeviceId, addrs: &[Addr]) {
        if let Some(elsewhere) = self.twins.announced(&device, addrs, self.node.now_ms()) {
            self.node.tell(Event::PeerTwice(device));
            self.tell_addresses(&device, vec![(device, elsewhere)]);
        }
    }

    /// Only of a twin does a member say where we are.
    pub(super) fn told_of_twin(&self, by: DeviceId, addrs: &[Addr]) {
        let own = self.node.listening.lock();
        if !addrs.is_empty() && addrs.iter().all(|addr| !own.contains(addr)) {
            drop(own);
            tracing::warn!(%by, ?addrs, "this device runs somewhere else, too");
            self.node.tell(Event::RunsTwice);
        }
    }

    /// Notes a violation; the third excludes the peer for a while.
    pub(super) fn strike(&mut self, device: DeviceId) {
        tracing::warn!(%device, "a member breaks the protocol");
        self.node.tell(Event::PeerMisbehaved(device));
        if let Verdict::Exclude(time) = self.scores.strike(&device, self.node.now_ms()) {
            let peer = peer_of(&device);
            self.gate.ban(peer, Instant::now() + time);
            // Fails only when it is not connected any more.
            let _ = self.swarm.disconnect_peer_id(peer);
            self.end_talk(device);
            self.end_locks(device);
        }
    }
}
