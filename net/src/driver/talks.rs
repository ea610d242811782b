//! The driver's streams: which task speaks on which.
//!
//! Leaves out: connections and dialling ([`super`]).
//!
//! Invariant: a stream of a peer that is no member at this moment gets no task but the join's, or, of one that was
//! removed, a session that tells it so.

use std::time::Instant;

use super::*;

impl Driver {
    pub(super) fn handle_stream(&mut self, event: streams::Event) {
        match event {
            streams::Event::Inbound { peer, connection, protocol, stream } => {
                let Some(device) = device_of(&peer) else { return };
                let hears_farewell =
                    protocol == PROTOCOL_JOURNAL && self.gate.is_leaving(&connection);
                if protocol == PROTOCOL_JOIN {
                    self.serve_join(device, stream);
                } else if !self.node.is_member(&device) && !hears_farewell {
                    self.swarm.close_connection(connection);
                } else if protocol == PROTOCOL_JOURNAL {
                    // Only the end with the smaller id opens; a stream of the other is dropped.
                    if device < self.node.me {
                        self.start_talk(device, connection, stream);
                    }
                } else if protocol == PROTOCOL_LOCK {
                    if device < self.node.me {
                        self.start_locks(device, connection, stream);
                    }
                } else if protocol == PROTOCOL_CHUNKS {
                    self.serve_chunks(device, stream);
                }
            }
            streams::Event::Opened { token, stream } => match self.opening.remove(&token) {
                Some(Opening::Journal { device, connection }) => {
                    self.start_talk(device, connection, stream);
                    if !self.gate.is_leaving(&connection) {
                        self.open_locks(device, connection);
                    }
                }
                Some(Opening::Locks { device, connection }) => {
                    self.start_locks(device, connection, stream);
                }
                // Whoever asked may have ended.
                Some(Opening::Chunks(answer)) => drop(answer.send(Some(stream))),
                Some(Opening::Refusal { device, connection }) => {
                    self.node.tell(Event::PeerRefuses(device));
                    self.swarm.close_connection(connection);
                }
                None => {}
            },
            streams::Event::OpenFailed { token, failure } => match self.opening.remove(&token) {
                Some(Opening::Journal { device, connection }) => {
                    if failure == OpenFailure::Unsupported {
                        // To strangers it speaks the join protocol and no other.
                        let token = self.token(Opening::Refusal { device, connection });
                        let peer = peer_of(&device);
                        self.swarm.behaviour_mut().streams.open(
                            peer,
                            connection,
                            PROTOCOL_JOIN,
                            token,
                        );
                    } else {
                        self.swarm.close_connection(connection);
                    }
                }
                Some(Opening::Refusal { device, connection }) => {
                    if failure == OpenFailure::Unsupported {
                        self.node.tell(Event::PeerIncompatible(device));
                    }
                    self.swarm.close_connection(connection);
                }
                // A version without locks grants none: it counts as unreachable.
                Some(Opening::Locks { .. }) if failure == OpenFailure::Unsupported => {}
                Some(Opening::Locks { connection, .. }) => {
                    self.swarm.close_connection(connection);
                }
                Some(Opening::Chunks(answer)) => drop(answer.send(None)),
                None => {}
            },
        }
    }

    pub(super) fn start_talk(
        &mut self,
        device: DeviceId,
        connection: ConnectionId,
        stream: Stream,
    ) {
        self.end_talk(device);
        let Some(known) = self.connections.get(&connection) else { return };
        let (kind, addr) = (known.kind, known.addr.clone());
        self.next_session += 1;
        let id = self.next_session;
        let (control, controls) = mpsc::channel(CONTROL_QUEUE_MAX);
        let node = self.node.clone();
        let (addrs, reports) = (self.own_addrs(kind), self.reports.clone());
        let whom = match self.gate.is_leaving(&connection) {
            true => session::Whom::Leaving(device),
            false => session::Whom::Member(device),
        };
        let task = self.tasks.spawn(async move {
            let end = session::run(node, whom, id, stream, addrs, controls, reports).await;
            Ended::Session { device, id, end }
        });
        self.talks.insert(device, Talk { id, connection, control, task });
        self.node.see(&device, |seen| {
            if addr.is_some() {
                seen.addr = addr;
            }
        });
    }

    pub(super) fn own_addrs(&self, kind: LinkKind) -> Vec<Addr> {
        let listening = self.node.listening.lock();
        let fit = |a: &&Addr| kind == LinkKind::Local || !a.is_loopback();
        listening.iter().filter(fit).take(limits::ADDRS_PER_DEVICE_MAX).cloned().collect()
    }

    /// Ends the session with `device`, if there is one, and what hangs on it.
    pub(super) fn end_talk(&mut self, device: DeviceId) {
        let Some(talk) = self.talks.remove(&device) else { return };
        talk.task.abort();
        let was_connected = self.node.seen.lock().get(&device).is_some_and(|s| s.connected);
        self.node.see(&device, |seen| {
            let Seen { connected, pushing, their_lack, in_flight_len, .. } = seen;
            (*connected, *pushing, *their_lack, *in_flight_len) = (false, false, 0, 0);
        });
        self.tell_fetch(Input::PeerDown { peer: device, session: talk.id });
        if was_connected {
            self.node.tell(Event::PeerDown(device));
        }
    }

    pub(super) fn serve_chunks(&mut self, device: DeviceId, stream: Stream) {
        let serving = self.serving.entry(device).or_insert(0);
        if *serving >= limits::SERVED_STREAMS_MAX {
            return;
        }
        *serving += 1;
        let node = self.node.clone();
        self.tasks.spawn(async move {
            Ended::Served { device, end: serve::run(node, device, stream).await }
        });
    }

    pub(super) fn serve_join(&mut self, joiner: DeviceId, stream: Stream) {
        let now = Instant::now();
        while self.joins.front().is_some_and(|at| now.duration_since(*at) > limits::JOIN_WINDOW) {
            self.joins.pop_front();
        }
        let busy = if self.joins.len() >= limits::JOIN_ATTEMPTS_MAX {
            join::Busy::Yes
        } else {
            self.joins.push_back(now);
            join::Busy::No
        };
        let mut addrs = self.book.to_share(&joiner, LinkKind::Network);
        addrs.truncate(limits::ADDRS_DEVICES_MAX - 1);
        addrs.push((self.node.me, self.own_addrs(LinkKind::Local)));
        let node = self.node.clone();
        self.tasks.spawn(async move {
            let admitted = join::host(node, joiner, stream, addrs, busy).await;
            Ended::Join { admitted }
        });
    }
}
