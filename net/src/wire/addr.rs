//! A network address as it travels and rests: the binary multiaddress, checked when it is read.
//!
//! Leaves out: which addresses are worth dialling ([`crate::peers`]).
//!
//! Invariants:
//! - an [`Addr`] names a host by number or DNS and a TCP or QUIC port, and nothing else: no relay, no
//!   file system path, no protocol we do not dial;
//! - it carries no peer id; who must answer there is said beside it.

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits;

/// An address that can be dialled over one of our transports.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Addr(Multiaddr);

/// How an address is reached.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Via {
    /// TCP: the faster one where nothing is in the way.
    Tcp,
    /// QUIC over UDP.
    Quic,
}

impl Addr {
    /// Takes `addr` if it is one of ours, without a trailing peer id.
    pub fn new(addr: Multiaddr) -> Option<Self> {
        let addr: Multiaddr = addr.iter().filter(|p| !matches!(p, Protocol::P2p(_))).collect();
        if addr.len() > limits::ADDR_LEN_MAX {
            return None;
        }
        let mut parts = addr.iter();
        let host = matches!(
            parts.next()?,
            Protocol::Ip4(_)
                | Protocol::Ip6(_)
                | Protocol::Dns(_)
                | Protocol::Dns4(_)
                | Protocol::Dns6(_)
        );
        let port = match parts.next()? {
            Protocol::Tcp(_) => parts.next().is_none(),
            Protocol::Udp(_) => parts.next() == Some(Protocol::QuicV1) && parts.next().is_none(),
            _ => false,
        };
        (host && port).then_some(Self(addr))
    }

    /// The multiaddress.
    pub fn as_multiaddr(&self) -> &Multiaddr {
        &self.0
    }

    /// How it is reached.
    pub fn via(&self) -> Via {
        match self.0.iter().nth(1) {
            Some(Protocol::Udp(_)) => Via::Quic,
            _ => Via::Tcp,
        }
    }

    /// Whether it is an address of this machine for itself.
    pub fn is_loopback(&self) -> bool {
        match self.0.iter().next() {
            Some(Protocol::Ip4(ip)) => ip.is_loopback(),
            Some(Protocol::Ip6(ip)) => ip.is_loopback(),
            _ => false,
        }
    }

    /// Whether nobody can be reached there: the placeholder of a listener, or link-local without a zone.
    pub fn is_unusable(&self) -> bool {
        match self.0.iter().next() {
            Some(Protocol::Ip4(ip)) => ip.is_unspecified() || ip.is_multicast(),
            Some(Protocol::Ip6(ip)) => {
                ip.is_unspecified() || ip.is_multicast() || ip.is_unicast_link_local()
            }
            _ => false,
        }
    }
}

impl std::fmt::Display for Addr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Addr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0.as_ref())
    }
}

impl<'de> Deserialize<'de> for Addr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = <&'de [u8]>::deserialize(deserializer)?;
        if bytes.len() > limits::ADDR_LEN_MAX {
            return Err(D::Error::custom("address too long"));
        }
        let addr = Multiaddr::try_from(bytes.to_vec()).map_err(D::Error::custom)?;
        Self::new(addr).ok_or_else(|| D::Error::custom("not an address of our transports"))
    }
}
