//! The driver's lock streams: one a member, on the connection of its journal session.
//!
//! Leaves out: what is said on them (`warden`).
//!
//! Invariants:
//! - at most one lock stream per member, the latest;
//! - one that the smaller end has opened and that ends while its connection stands takes the connection with it: the way
//!   back is a new connection, as for journal sessions.

use super::*;
use crate::warden;

/// A member's lock stream.
#[derive(Debug)]
pub(super) struct LockLine {
    id: u64,
    connection: ConnectionId,
    task: AbortHandle,
}

impl Driver {
    pub(super) fn open_locks(&mut self, device: DeviceId, connection: ConnectionId) {
        let token = self.token(Opening::Locks { device, connection });
        let peer = peer_of(&device);
        self.swarm.behaviour_mut().streams.open(peer, connection, PROTOCOL_LOCK, token);
    }

    pub(super) fn start_locks(
        &mut self,
        device: DeviceId,
        connection: ConnectionId,
        stream: Stream,
    ) {
        self.end_locks(device);
        self.next_session += 1;
        let (id, node) = (self.next_session, self.node.clone());
        let task = self.tasks.spawn(async move {
            Ended::Locks { device, id, end: warden::run(node, device, stream).await }
        });
        self.lock_lines.insert(device, LockLine { id, connection, task });
    }

    pub(super) fn end_locks(&mut self, device: DeviceId) {
        if let Some(line) = self.lock_lines.remove(&device) {
            line.task.abort();
        }
    }

    /// Tells everybody that nothing is held here any more, before the connections end.
    pub(super) async fn give_locks_back(&mut self) {
        let closing = self.node.warden.close(limits::SHUTDOWN_TIME / 4);
        tokio::pin!(closing);
        loop {
            tokio::select! {
                () = &mut closing => return,
                // What is written leaves only while the swarm is polled.
                _ = self.swarm.select_next_some() => {}
            }
        }
    }

    pub(super) fn handle_locks_ended(&mut self, device: DeviceId, id: u64, end: &warden::End) {
        tracing::debug!(%device, %end, "lock stream ended");
        if let warden::End::Violation(_) | warden::End::Read(crate::frames::ReadError::Decode(_)) =
            end
        {
            self.strike(device);
        }
        if self.lock_lines.get(&device).is_none_or(|line| line.id != id) {
            return;
        }
        if let Some(line) = self.lock_lines.remove(&device)
            && self.node.me < device
        {
            // Fails only when it is closed already.
            self.swarm.close_connection(line.connection);
        }
    }
}
