//! Bringing a node up: identity, listeners, address book, and the driver task.
//!
//! Leaves out: everything that happens afterwards (`driver`).
//!
//! Invariant: when [`start`] returns `Ok`, at least one address is being listened on.

use std::path::PathBuf;
use std::sync::Arc;

use journal::id::DeviceId;
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, Swarm, TransportError};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use zeroize::Zeroizing;

use crate::behaviour::gate::{Gate, Strangers};
use crate::behaviour::{self, Behaviour, Discovery};
use crate::driver::{self, Parts};
use crate::error::StartError;
use crate::handle::{EventStream, Handle, Inner, event_channel};
use crate::host::{ChunkHost, JournalHost, LockHost};
use crate::node::{Node, device_of};
use crate::peers::AddressBook;
use crate::warden::Warden;
use crate::{limits, transfer};

/// How a node is to run.
#[derive(Clone)]
pub struct Config {
    /// The device's secret key: the one that signs its journal entries.
    pub identity: [u8; 32],
    /// Where to listen; empty: every interface, any port, TCP and QUIC, IPv4 and (where there is one)
    /// IPv6.
    pub listen: Vec<Multiaddr>,
    /// Where members may be, with or without their peer id; tried until they answer once.
    pub peers: Vec<Multiaddr>,
    /// Look for members on the local network.
    pub mdns: bool,
    /// Where addresses of members are remembered, if they are.
    pub addresses_file: Option<PathBuf>,
}

/// Starts a node on `runtime`. It runs until [`Handle::shutdown`].
pub fn start(
    config: Config,
    journal: Arc<dyn JournalHost>,
    chunks: Arc<dyn ChunkHost>,
    locks: Arc<dyn LockHost>,
    runtime: tokio::runtime::Handle,
) -> Result<(Handle, EventStream), StartError> {
    let _in_runtime = runtime.enter();
    let identity = Zeroizing::new(config.identity);
    let keypair = Keypair::ed25519_from_bytes(*identity).map_err(|_| StartError::Identity)?;
    let me = device_of(&keypair.public().to_peer_id()).ok_or(StartError::Identity)?;
    let gate = Arc::new(Gate::new(Strangers::Refused));
    let discovery = if config.mdns { Discovery::Mdns } else { Discovery::Off };
    let mut swarm = behaviour::swarm(&keypair, gate.clone(), discovery)?;
    listen(&mut swarm, &config.listen)?;
    let (events, event_stream) = event_channel();
    let (command_sender, commands) = mpsc::channel(limits::COMMAND_QUEUE_MAX);
    let (fetch, fetch_inputs) = transfer::channel();
    let members = Arc::new(Notify::new());
    let warden = Arc::new(Warden::new(me, locks, events.clone()));
    let node = Arc::new(Node::new(me, journal, chunks, gate, warden, events));
    let book = load_book(config.addresses_file.as_deref());
    let parts = Parts {
        swarm,
        node: node.clone(),
        book,
        book_path: config.addresses_file,
        given: config.peers,
        commands,
        command_sender: command_sender.clone(),
        fetch: fetch.clone(),
        fetch_inputs,
        members: members.clone(),
    };
    let driver = Mutex::new(Some(runtime.spawn(driver::run(parts))));
    let inner = Inner { node, commands: command_sender, fetch, members, runtime, driver };
    Ok((Handle { inner: Arc::new(inner) }, event_stream))
}

/// The public half of a device's secret key.
pub fn device_of_secret(secret: &[u8; 32]) -> DeviceId {
    let key = ed25519_dalek::SigningKey::from_bytes(secret).verifying_key();
    DeviceId::from_bytes(key.to_bytes())
}

/// A book that cannot be read is begun anew: members tell their addresses again.
fn load_book(path: Option<&std::path::Path>) -> AddressBook {
    let Some(path) = path else { return AddressBook::default() };
    AddressBook::load(path).unwrap_or_else(|error| {
        tracing::warn!(%error, "addresses of members are forgotten");
        AddressBook::default()
    })
}

/// Given addresses must all work; of the default ones, one.
/// Whether an address given by hand can be listened on: asked before anything is made for it.
pub fn can_listen(addr: &Multiaddr) -> Result<(), StartError> {
    use libp2p::multiaddr::Protocol;
    let mut parts = addr.iter();
    let ip: Option<std::net::IpAddr> = match parts.next() {
        Some(Protocol::Ip4(ip)) => Some(ip.into()),
        Some(Protocol::Ip6(ip)) => Some(ip.into()),
        _ => None,
    };
    let bound = match (ip, parts.next()) {
        (Some(ip), Some(Protocol::Tcp(port))) => std::net::TcpListener::bind((ip, port)).map(drop),
        (Some(ip), Some(Protocol::Udp(port))) => std::net::UdpSocket::bind((ip, port)).map(drop),
        _ => Ok(()),
    };
    bound.map_err(|source| StartError::Listen { addr: addr.clone(), source })
}

fn listen(swarm: &mut Swarm<Behaviour>, given: &[Multiaddr]) -> Result<(), StartError> {
    if !given.is_empty() {
        return given.iter().try_for_each(|addr| listen_on(swarm, addr.clone()));
    }
    let mut failure = None;
    let mut listening = 0;
    for addr in default_addrs() {
        match listen_on(swarm, addr) {
            Ok(()) => listening += 1,
            Err(error) => {
                // No IPv6 on this machine is nothing to report.
                tracing::debug!(%error, "one of the default listeners is missing");
                failure = failure.or(Some(error));
            }
        }
    }
    match failure {
        Some(error) if listening == 0 => Err(error),
        _ => Ok(()),
    }
}

fn listen_on(swarm: &mut Swarm<Behaviour>, addr: Multiaddr) -> Result<(), StartError> {
    swarm.listen_on(addr.clone()).map(drop).map_err(|error| match error {
        TransportError::MultiaddrNotSupported(_) => StartError::Address { addr },
        TransportError::Other(source) => StartError::Listen { addr, source },
    })
}

fn default_addrs() -> [Multiaddr; 4] {
    let v4 = Multiaddr::empty().with(Protocol::Ip4([0, 0, 0, 0].into()));
    let v6 = Multiaddr::empty().with(Protocol::Ip6([0u16; 8].into()));
    let quic = |addr: &Multiaddr| addr.clone().with(Protocol::Udp(0)).with(Protocol::QuicV1);
    let tcp = |addr: &Multiaddr| addr.clone().with(Protocol::Tcp(0));
    [tcp(&v4), quic(&v4), tcp(&v6), quic(&v6)]
}
