//! Byte streams by protocol name, each bound to one known connection.
//!
//! Written instead of using `libp2p-stream`, which picks one of a peer's connections at random, drops
//! inbound streams when its acceptor lags, and keeps a sender for every connection there ever was.
//!
//! Leaves out: what is said on a stream, reconnection, addresses.
//!
//! Invariants:
//! - a stranger can open one join stream and nothing else, a removed device journal streams only; members' other
//!   protocols are not offered to them;
//! - opening a stream always ends in exactly one [`Event::Opened`] or [`Event::OpenFailed`] while the
//!   connection lives; with the connection's end they are void;
//! - at most [`limits::OPENING_STREAMS_MAX`] openings wait on one connection.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use libp2p::PeerId;
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::core::{Endpoint, Multiaddr};
use libp2p::swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm,
    NetworkBehaviour, NotifyHandler, Stream, StreamProtocol, StreamUpgradeError, SubstreamProtocol,
    THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};

use super::gate::{Dialled, Gate, Standing};
use crate::limits;
use crate::wire::{PROTOCOL_CHUNKS, PROTOCOL_JOIN, PROTOCOL_JOURNAL, PROTOCOL_LOCK};

/// Identifies an opening among those of this node.
pub(crate) type Token = u64;

/// Why a stream could not be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OpenFailure {
    /// The other end does not speak this version of the protocol.
    Unsupported,
    /// It did not answer, or the connection broke.
    Broken,
    /// Too many openings wait already.
    TooMany,
}

/// What the behaviour tells the driver.
#[derive(Debug)]
pub(crate) enum Event {
    Inbound { peer: PeerId, connection: ConnectionId, protocol: StreamProtocol, stream: Stream },
    Opened { token: Token, stream: Stream },
    OpenFailed { token: Token, failure: OpenFailure },
}

/// See the module's words.
pub(crate) struct Behaviour {
    gate: Arc<Gate>,
    queue: VecDeque<ToSwarm<Event, Open>>,
    waker: Option<Waker>,
}

impl Behaviour {
    pub(crate) fn new(gate: Arc<Gate>) -> Self {
        Self { gate, queue: VecDeque::new(), waker: None }
    }

    /// Opens a stream on that very connection.
    pub(crate) fn open(
        &mut self,
        peer_id: PeerId,
        connection: ConnectionId,
        protocol: StreamProtocol,
        token: Token,
    ) {
        self.queue.push_back(ToSwarm::NotifyHandler {
            peer_id,
            handler: NotifyHandler::One(connection),
            event: Open { protocol, token },
        });
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn handler(
        &self,
        connection: ConnectionId,
        peer: &PeerId,
        dialled: Dialled,
    ) -> Result<Handler, ConnectionDenied> {
        let standing = self
            .gate
            .admit(connection, peer, dialled, Instant::now())
            .map_err(ConnectionDenied::new)?;
        Ok(Handler { standing, opening: VecDeque::new(), events: VecDeque::new(), joins: 0 })
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.handler(connection, &peer, Dialled::ByThem)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.handler(connection, &peer, Dialled::ByUs)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        // A connection admitted here may still be denied by another behaviour: both ends of its life
        // give its place back.
        match event {
            FromSwarm::ConnectionClosed(closed) => self.gate.closed(&closed.connection_id),
            FromSwarm::ListenFailure(failure) => self.gate.closed(&failure.connection_id),
            FromSwarm::DialFailure(failure) => self.gate.closed(&failure.connection_id),
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        self.queue.push_back(ToSwarm::GenerateEvent(match event {
            FromHandler::Inbound { protocol, stream } => {
                Event::Inbound { peer, connection, protocol, stream }
            }
            FromHandler::Opened { token, stream } => Event::Opened { token, stream },
            FromHandler::Failed { token, failure } => Event::OpenFailed { token, failure },
        }));
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        match self.queue.pop_front() {
            Some(event) => Poll::Ready(event),
            None => {
                self.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// Asks a connection's handler for a stream.
#[derive(Debug)]
pub(crate) struct Open {
    protocol: StreamProtocol,
    token: Token,
}

/// What a connection's handler reports.
#[derive(Debug)]
pub(crate) enum FromHandler {
    Inbound { protocol: StreamProtocol, stream: Stream },
    Opened { token: Token, stream: Stream },
    Failed { token: Token, failure: OpenFailure },
}

/// The part that lives with one connection.
pub(crate) struct Handler {
    standing: Standing,
    opening: VecDeque<Open>,
    events: VecDeque<FromHandler>,
    joins: u32,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Open;
    type ToBehaviour = FromHandler;
    type InboundProtocol = Offer;
    type OutboundProtocol = Offer;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Token;

    fn listen_protocol(&self) -> SubstreamProtocol<Offer, ()> {
        let protocols = match self.standing {
            Standing::Member => {
                vec![PROTOCOL_JOURNAL, PROTOCOL_CHUNKS, PROTOCOL_LOCK, PROTOCOL_JOIN]
            }
            Standing::Stranger => vec![PROTOCOL_JOIN],
            Standing::Leaving => vec![PROTOCOL_JOURNAL],
        };
        SubstreamProtocol::new(Offer { protocols }, ()).with_timeout(limits::GREETING_TIME)
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Offer, Token, FromHandler>> {
        if let Some(event) = self.events.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(event));
        }
        if let Some(Open { protocol, token }) = self.opening.pop_front() {
            let offer = Offer { protocols: vec![protocol] };
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                protocol: SubstreamProtocol::new(offer, token).with_timeout(limits::GREETING_TIME),
            });
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, open: Open) {
        if self.opening.len() >= limits::OPENING_STREAMS_MAX {
            let failure = OpenFailure::TooMany;
            self.events.push_back(FromHandler::Failed { token: open.token, failure });
        } else {
            self.opening.push_back(open);
        }
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Offer, Offer, (), Token>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (stream, protocol),
                ..
            }) => {
                if protocol == PROTOCOL_JOIN {
                    self.joins += 1;
                    // One attempt a connection: dropping the stream resets it.
                    if self.joins > 1 {
                        return;
                    }
                }
                self.events.push_back(FromHandler::Inbound { protocol, stream });
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: (stream, _),
                info: token,
            }) => self.events.push_back(FromHandler::Opened { token, stream }),
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info: token, error }) => {
                let failure = match error {
                    StreamUpgradeError::NegotiationFailed => OpenFailure::Unsupported,
                    StreamUpgradeError::Timeout | StreamUpgradeError::Io(_) => OpenFailure::Broken,
                    StreamUpgradeError::Apply(never) => match never {},
                };
                self.events.push_back(FromHandler::Failed { token, failure });
            }
            _ => {}
        }
    }
}

/// Agrees on one of some protocol names and hands the stream over as it is.
pub(crate) struct Offer {
    protocols: Vec<StreamProtocol>,
}

impl UpgradeInfo for Offer {
    type Info = StreamProtocol;
    type InfoIter = std::vec::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.protocols.clone().into_iter()
    }
}

impl InboundUpgrade<Stream> for Offer {
    type Output = (Stream, StreamProtocol);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((stream, protocol)))
    }
}

impl OutboundUpgrade<Stream> for Offer {
    type Output = (Stream, StreamProtocol);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_outbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((stream, protocol)))
    }
}
