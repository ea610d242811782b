//! The libp2p composition: transports, and which behaviours sit on a connection. A router, no logic.
//!
//! Leaves out: identify (addresses travel in our own greeting, and strangers learn nothing), kad,
//! gossipsub, relay. The event loop is `driver`.
//!
//! Invariants:
//! - a connection whose peer the [`Gate`] does not admit is refused in the same step in which its key
//!   became known, before any of our protocols can be spoken on it;
//! - Nagle is off on every TCP connection: a save goes out when it is written.

pub(crate) mod gate;
pub(crate) mod streams;

use std::sync::Arc;

use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{Boxed, OrTransport};
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::swarm::NetworkBehaviour;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::{
    PeerId, Swarm, Transport, connection_limits, dns, mdns, noise, ping, quic, tcp, yamux,
};

use crate::error::StartError;
use crate::limits;
use gate::Gate;

/// What runs on every connection.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    pub(crate) limits: connection_limits::Behaviour,
    pub(crate) streams: streams::Behaviour,
    pub(crate) ping: ping::Behaviour,
    pub(crate) mdns: Toggle<mdns::tokio::Behaviour>,
}

/// Whether to look for peers on the local network.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Discovery {
    Mdns,
    Off,
}

/// Builds the swarm. Must be called within the runtime it will live on.
pub(crate) fn swarm(
    keypair: &Keypair,
    gate: Arc<Gate>,
    discovery: Discovery,
) -> Result<Swarm<Behaviour>, StartError> {
    let me = keypair.public().to_peer_id();
    // Without a readable resolver configuration numeric addresses must still work.
    let transport = match dns::tokio::Transport::system(base_transport(keypair)?) {
        Ok(transport) => transport.boxed(),
        Err(error) => {
            tracing::info!(%error, "no name resolution: peers are reached by number only");
            base_transport(keypair)?
        }
    };
    let behaviour = Behaviour {
        limits: connection_limits::Behaviour::new(
            connection_limits::ConnectionLimits::default()
                .with_max_pending_incoming(Some(limits::PENDING_INCOMING_MAX))
                .with_max_pending_outgoing(Some(limits::PENDING_OUTGOING_MAX))
                .with_max_established(Some(limits::CONNECTIONS_MAX))
                .with_max_established_per_peer(Some(limits::CONNECTIONS_PER_PEER_MAX)),
        ),
        streams: streams::Behaviour::new(gate),
        ping: ping::Behaviour::new(
            ping::Config::new()
                .with_interval(limits::PING_INTERVAL)
                .with_timeout(limits::PING_TIMEOUT),
        ),
        mdns: Toggle::from(mdns_behaviour(me, discovery)),
    };
    let config = libp2p::swarm::Config::with_tokio_executor()
        .with_idle_connection_timeout(limits::IDLE_CONNECTION_TIME)
        .with_max_negotiating_inbound_streams(limits::NEGOTIATING_STREAMS_MAX);
    Ok(Swarm::new(transport, behaviour, me, config))
}

/// A machine without multicast or interface events still serves the peers it knows.
fn mdns_behaviour(me: PeerId, discovery: Discovery) -> Option<mdns::tokio::Behaviour> {
    if discovery == Discovery::Off {
        return None;
    }
    let config =
        mdns::Config { query_interval: limits::MDNS_QUERY_INTERVAL, ..mdns::Config::default() };
    mdns::tokio::Behaviour::new(config, me)
        .inspect_err(|error| tracing::warn!(%error, "no discovery on the local network"))
        .ok()
}

fn base_transport(keypair: &Keypair) -> Result<Boxed<(PeerId, StreamMuxerBox)>, StartError> {
    let mut multiplexer = yamux::Config::default();
    multiplexer.set_max_num_streams(limits::STREAMS_PER_CONNECTION_MAX);
    let tcp = tcp::tokio::Transport::new(tcp::Config::new().nodelay(true))
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(keypair).map_err(|_| StartError::Identity)?)
        .multiplex(multiplexer)
        .timeout(limits::HANDSHAKE_TIME)
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    let mut config = quic::Config::new(keypair);
    config.handshake_timeout = limits::HANDSHAKE_TIME;
    config.max_concurrent_stream_limit = limits::STREAMS_PER_CONNECTION_MAX as u32;
    let quic = quic::tokio::Transport::new(config)
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    Ok(OrTransport::new(tcp, quic).map(|either, _| either.into_inner()).boxed())
}
