//! Joining: the proof of an invitation, both ends.
//!
//! The connection's handshake has shown both keys. The host sends a nonce, the joiner answers with the
//! invitation key's signature over drive, nonce and both keys, so an answer is worth nothing on any
//! other connection; beside it stands the signature for the journal's `Admit`, which names the joiner
//! only.
//!
//! Leaves out: whether the invitation counts (the journal decides in `admit`) and the journal session
//! that follows (`driver`).
//!
//! Invariants:
//! - before a valid proof the host says a nonce and [`JoinRefusal::Invalid`] or `Busy`, nothing else:
//!   not even whether it was the right drive;
//! - the joiner takes a genesis only if its hash is the drive the ticket names.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::{AsyncReadExt as _, AsyncWriteExt as _};
use journal::id::{DeviceId, DriveId};
use libp2p::core::ConnectedPoint;
use libp2p::identity::Keypair;
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{ConnectionId, Stream, SwarmEvent};
use libp2p::{Multiaddr, PeerId, Swarm, mdns};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::behaviour::gate::{Gate, Strangers};
use crate::behaviour::streams::{self, OpenFailure};
use crate::behaviour::{self, Behaviour, BehaviourEvent, Discovery};
use crate::error::{JoinError, StartError};
use crate::frames::{self, Inbox};
use crate::handle::Event;
use crate::host::AdmitError;
use crate::invite::{Ticket, challenge_bytes, verify_answer};
use crate::limits;
use crate::node::{Node, device_of};
use crate::wire::{Addr, Admitted, JoinMessage, JoinProof, JoinRefusal, PROTOCOL_JOIN};

/// Streams held for members that take a joiner for a member.
const HELD_MAX: usize = 16;
/// Bytes read from a join stream at once.
const READ_LEN: usize = 4096;

/// Answers a joiner. True when it was admitted (or was a member already).
pub(crate) async fn host(
    node: Arc<Node>,
    joiner: DeviceId,
    mut stream: Stream,
    addrs: Vec<(DeviceId, Vec<Addr>)>,
    busy: Busy,
) -> bool {
    let verdict = match busy {
        Busy::Yes => Err(JoinRefusal::Busy),
        Busy::No => challenge(&node, joiner, &mut stream).await,
    };
    let (message, admitted) = match verdict {
        Ok(()) => {
            let genesis = node.journal.genesis().to_vec();
            (JoinMessage::Admitted(Admitted { genesis, addrs }), true)
        }
        Err(refusal) => (JoinMessage::Refused(refusal), false),
    };
    // The joiner may be gone; if it was admitted it will simply connect as a member.
    let _ = frames::write(&mut stream, &message.encode(), limits::GREETING_TIME).await;
    let _ = tokio::time::timeout(limits::GREETING_TIME, stream.close()).await;
    if admitted {
        node.tell(Event::Joined(joiner));
    }
    admitted
}

/// Whether too many tried lately.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Busy {
    Yes,
    No,
}

async fn challenge(
    node: &Arc<Node>,
    joiner: DeviceId,
    stream: &mut Stream,
) -> Result<(), JoinRefusal> {
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).map_err(|_| JoinRefusal::Unable)?;
    frames::write(stream, &JoinMessage::Challenge(nonce).encode(), limits::GREETING_TIME)
        .await
        .map_err(|_| JoinRefusal::Invalid)?;
    let mut inbox = Inbox::new(stream, READ_LEN);
    let frame = frames::read_soon(&mut inbox, limits::JOIN_FRAME_LEN_MAX)
        .await
        .map_err(|_| JoinRefusal::Invalid)?;
    let Ok(JoinMessage::Proof(proof)) = JoinMessage::decode(&frame) else {
        return Err(JoinRefusal::Invalid);
    };
    let drive = node.journal.drive_id();
    if !is_answer(&drive, &nonce, &node.me, &joiner, &proof) {
        return Err(JoinRefusal::Invalid);
    }
    let node = node.clone();
    tokio::task::spawn_blocking(move || admit(&node, *proof))
        .await
        .unwrap_or(Err(JoinRefusal::Unable))
}

/// Whether the proof holds on this connection.
fn is_answer(
    drive: &DriveId,
    nonce: &[u8; 32],
    host: &DeviceId,
    joiner: &DeviceId,
    proof: &JoinProof,
) -> bool {
    proof.device == *joiner
        && verify_answer(
            &proof.invite_key,
            &challenge_bytes(drive, nonce, host, joiner),
            &proof.answer,
        )
}

fn admit(node: &Node, proof: JoinProof) -> Result<(), JoinRefusal> {
    // The key shows only that somebody made it: whether it is an invitation the journal knows.
    // Asked before membership, so that a made-up key learns nothing about who is a member.
    let JoinProof { invite_key, device, name, admit, .. } = proof;
    match node.journal.admit(invite_key, device, name, admit) {
        Ok(()) => Ok(()),
        Err(AdmitError::Unknown) => Err(JoinRefusal::Invalid),
        // A joiner whose connection broke after it was admitted tries again with a used ticket.
        Err(_) if node.journal.is_member(device) => Ok(()),
        Err(AdmitError::Expired) => Err(JoinRefusal::Expired),
        Err(AdmitError::Used) => Err(JoinRefusal::Used),
        Err(AdmitError::Void) => Err(JoinRefusal::Void),
        Err(AdmitError::Unable) => Err(JoinRefusal::Unable),
    }
}

/// How to look for a member.
#[derive(Debug, Clone)]
pub struct JoinOptions {
    /// Look for the inviter on the local network too.
    pub mdns: bool,
    /// Give up after this; [`limits::JOIN_TIME`] by default.
    pub time: Duration,
}

impl Default for JoinOptions {
    fn default() -> Self {
        Self { mdns: true, time: limits::JOIN_TIME }
    }
}

/// What a joiner brings home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinOutcome {
    /// The drive's first entry; its hash is the ticket's drive.
    pub genesis: Vec<u8>,
    /// Who admitted us.
    pub host: DeviceId,
    /// Where it answered.
    pub addr: Option<Multiaddr>,
    /// Where other members were reached.
    pub members: Vec<(DeviceId, Vec<Multiaddr>)>,
}

/// Proves the ticket to a member, for the device whose secret key is `identity`. Must run on a tokio
/// runtime. May be dropped; the host may have admitted the device then.
pub async fn join(
    ticket: &Ticket,
    identity: [u8; 32],
    device_name: &str,
    options: JoinOptions,
) -> Result<JoinOutcome, JoinError> {
    let keypair = Keypair::ed25519_from_bytes(identity)
        .map_err(|_| JoinError::Start(StartError::Identity))?;
    let me =
        device_of(&keypair.public().to_peer_id()).ok_or(JoinError::Start(StartError::Identity))?;
    let gate = Arc::new(Gate::new(Strangers::WeJoin));
    let discovery = if options.mdns { Discovery::Mdns } else { Discovery::Off };
    let swarm = behaviour::swarm(&keypair, gate, discovery)?;
    let name = truncated(device_name);
    let joiner = Joiner {
        ticket: ticket.clone(),
        me,
        name,
        swarm,
        talks: JoinSet::new(),
        dialling: BTreeMap::new(),
        reached: BTreeMap::new(),
        opening: BTreeMap::new(),
        next_token: 0,
        found: Vec::new(),
        held: Vec::new(),
        failure: None,
    };
    tokio::time::timeout(options.time, joiner.run()).await.unwrap_or(Err(JoinError::TimedOut))
}

/// A name that the wire takes; cut at a character.
fn truncated(name: &str) -> String {
    let mut len = name.len().min(limits::NAME_LEN_MAX);
    while !name.is_char_boundary(len) {
        len -= 1;
    }
    name.get(..len).unwrap_or_default().to_owned()
}

type Talk = (DeviceId, Option<Multiaddr>, Result<Admitted, JoinError>);

struct Joiner {
    ticket: Ticket,
    me: DeviceId,
    name: String,
    swarm: Swarm<Behaviour>,
    talks: JoinSet<Talk>,
    dialling: BTreeMap<ConnectionId, Multiaddr>,
    reached: BTreeMap<ConnectionId, (DeviceId, Option<Multiaddr>)>,
    opening: BTreeMap<streams::Token, ConnectionId>,
    next_token: streams::Token,
    found: Vec<Multiaddr>,
    /// Streams of members that take us for one already: held, not answered. One that is dropped would make the
    /// member close the connection we are proving ourselves on.
    held: Vec<Stream>,
    failure: Option<JoinError>,
}

impl Joiner {
    async fn run(mut self) -> Result<JoinOutcome, JoinError> {
        let give_up = Instant::now() + limits::JOIN_REACH_TIME;
        let mut rounds = tokio::time::interval(limits::JOIN_RETRY);
        loop {
            tokio::select! {
                event = self.swarm.select_next_some() => self.handle_event(event),
                Some(talk) = self.talks.join_next() => {
                    if let Ok((host, addr, result)) = talk
                        && let Some(outcome) = self.handle_talk(host, addr, result)
                    {
                        return outcome;
                    }
                }
                _ = rounds.tick() => self.dial(),
                () = tokio::time::sleep_until(give_up), if self.reached.is_empty() => {
                    let tried = self.ticket.addrs.len() + self.found.len();
                    return Err(self.failure.unwrap_or(JoinError::Unreachable { tried }));
                }
            }
        }
    }

    /// A verdict ends it; only "not I, not now" and broken talks leave hope for another member.
    fn handle_talk(
        &mut self,
        host: DeviceId,
        addr: Option<Multiaddr>,
        result: Result<Admitted, JoinError>,
    ) -> Option<Result<JoinOutcome, JoinError>> {
        match result {
            Ok(admitted) => {
                let members = admitted.addrs.into_iter().map(|(device, addrs)| {
                    (device, addrs.iter().map(|a| a.as_multiaddr().clone()).collect())
                });
                let members = members.collect();
                let genesis = admitted.genesis;
                Some(Ok(JoinOutcome { genesis, host, addr, members }))
            }
            Err(error @ JoinError::Refused(JoinRefusal::Unable)) => {
                self.failure = Some(error);
                None
            }
            Err(
                error @ (JoinError::Refused(_) | JoinError::WrongDrive | JoinError::Incompatible),
            ) => Some(Err(error)),
            Err(error) => {
                self.failure = Some(error);
                // Closed, it is dialled again in the next round.
                let of_host = self.reached.iter().find(|(_, (device, _))| *device == host);
                if let Some(id) = of_host.map(|(id, _)| *id) {
                    self.swarm.close_connection(id);
                }
                None
            }
        }
    }

    fn dial(&mut self) {
        let addrs: Vec<Multiaddr> = self.ticket.addrs.iter().chain(&self.found).cloned().collect();
        for addr in addrs {
            let known = self.dialling.values().any(|a| *a == addr)
                || self.reached.values().any(|(_, a)| a.as_ref() == Some(&addr));
            let Some(checked) = Addr::new(addr.clone()) else { continue };
            if known {
                continue;
            }
            let opts = DialOpts::unknown_peer_id().address(checked.as_multiaddr().clone()).build();
            let id = opts.connection_id();
            match self.swarm.dial(opts) {
                Ok(()) => {
                    self.dialling.insert(id, addr);
                }
                Err(error) => tracing::debug!(%addr, %error, "cannot dial"),
            }
        }
    }

    fn handle_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.handle_connection(peer_id, connection_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed { connection_id, .. } => {
                self.reached.remove(&connection_id);
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                tracing::debug!(%error, "not reached");
                self.dialling.remove(&connection_id);
            }
            SwarmEvent::Behaviour(BehaviourEvent::Mdns(mdns::Event::Discovered(list))) => {
                let inviter = crate::node::peer_of(&self.ticket.inviter);
                for (peer, addr) in list {
                    let known = self.found.contains(&addr) || self.ticket.addrs.contains(&addr);
                    if peer == inviter && !known && self.found.len() < limits::TICKET_ADDRS_MAX {
                        self.found.push(addr);
                    }
                }
                self.dial();
            }
            SwarmEvent::Behaviour(BehaviourEvent::Streams(event)) => self.handle_stream(event),
            _ => {}
        }
    }

    fn handle_connection(&mut self, peer: PeerId, id: ConnectionId, endpoint: &ConnectedPoint) {
        let addr = self.dialling.remove(&id).or_else(|| match endpoint {
            ConnectedPoint::Dialer { address, .. } => Some(address.clone()),
            ConnectedPoint::Listener { .. } => None,
        });
        let Some(device) = device_of(&peer) else {
            self.swarm.close_connection(id);
            return;
        };
        // One conversation with a member is enough, over whichever transport came first.
        if self.reached.values().any(|(known, _)| *known == device) {
            self.swarm.close_connection(id);
            return;
        }
        self.reached.insert(id, (device, addr));
        self.next_token += 1;
        self.opening.insert(self.next_token, id);
        self.swarm.behaviour_mut().streams.open(peer, id, PROTOCOL_JOIN, self.next_token);
    }

    fn handle_stream(&mut self, event: streams::Event) {
        match event {
            streams::Event::Opened { token, stream } => {
                let Some(id) = self.opening.remove(&token) else { return };
                let Some((host, addr)) = self.reached.get(&id).cloned() else { return };
                let (ticket, me, name) = (self.ticket.clone(), self.me, self.name.clone());
                self.talks.spawn(async move {
                    let result = prove(&ticket, me, host, name, stream).await;
                    (host, addr, result)
                });
            }
            streams::Event::OpenFailed { token, failure } => {
                let Some(id) = self.opening.remove(&token) else { return };
                self.failure = match failure {
                    OpenFailure::Unsupported => Some(JoinError::Incompatible),
                    OpenFailure::Broken | OpenFailure::TooMany => self.failure.take(),
                };
                self.swarm.close_connection(id);
            }
            streams::Event::Inbound { stream, .. } => {
                if self.held.len() < HELD_MAX {
                    self.held.push(stream);
                }
            }
        }
    }
}

/// The joiner's end of the conversation.
async fn prove(
    ticket: &Ticket,
    me: DeviceId,
    host: DeviceId,
    name: String,
    stream: Stream,
) -> Result<Admitted, JoinError> {
    let broken = |_| JoinError::Unreachable { tried: 1 };
    let (reader, mut writer) = stream.split();
    let mut inbox = Inbox::new(reader, READ_LEN);
    // Lazily negotiated: nothing is sent before the first write or flush.
    tokio::time::timeout(limits::GREETING_TIME, writer.flush())
        .await
        .map_err(|_| JoinError::TimedOut)?
        .map_err(|_| JoinError::Incompatible)?;
    let frame = frames::read_soon(&mut inbox, limits::JOIN_FRAME_LEN_MAX).await.map_err(broken)?;
    let nonce = match JoinMessage::decode(&frame) {
        Ok(JoinMessage::Challenge(nonce)) => nonce,
        Ok(JoinMessage::Refused(refusal)) => return Err(JoinError::Refused(refusal)),
        _ => return Err(JoinError::Incompatible),
    };
    let proof = JoinProof {
        invite_key: ticket.invite_key(),
        device: me,
        name,
        answer: ticket.answer(&nonce, &host, &me),
        admit: ticket.admit_proof(&me),
    };
    let message = JoinMessage::Proof(Box::new(proof));
    frames::write(&mut writer, &message.encode(), limits::GREETING_TIME)
        .await
        .map_err(|_| JoinError::Unreachable { tried: 1 })?;
    let mut verdict = pin!(inbox.next_frame(limits::FRAME_LEN_MAX));
    // The host writes to its disk before it answers.
    let frame = tokio::time::timeout(limits::GREETING_TIME * 2, &mut verdict)
        .await
        .map_err(|_| JoinError::TimedOut)?
        .map_err(broken)?;
    match JoinMessage::decode(&frame) {
        Ok(JoinMessage::Admitted(admitted)) => {
            match journal::signed::genesis_drive(&admitted.genesis) {
                Ok(drive) if drive == ticket.drive => Ok(admitted),
                _ => Err(JoinError::WrongDrive),
            }
        }
        Ok(JoinMessage::Refused(refusal)) => Err(JoinError::Refused(refusal)),
        _ => Err(JoinError::Incompatible),
    }
}
