//! What can go wrong for a caller of this crate, one enum an operation family.
//!
//! Leaves out: errors of the wire ([`crate::wire::DecodeError`]) and of tickets
//! ([`crate::invite::ParseError`]), which stand beside their operations.

use std::path::PathBuf;

use libp2p::Multiaddr;

use crate::wire::JoinRefusal;

/// Starting the network.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The secret key is none.
    #[error("the device key cannot be used as a network identity")]
    Identity,
    /// No address could be listened on.
    #[error("cannot listen on {addr}")]
    Listen {
        /// The first of those that failed.
        addr: Multiaddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// An address in the configuration is of no kind that we can use.
    #[error("{addr} is not an address of TCP or QUIC")]
    Address {
        /// As given.
        addr: Multiaddr,
    },
}

/// Reading or writing the address book.
#[derive(Debug, thiserror::Error)]
pub enum BookError {
    /// The system refused.
    #[error("cannot {verb} {path}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What was tried.
        verb: &'static str,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is not an address book of this version; it may be thrown away.
    #[error("{path} is not an address book")]
    Corrupt {
        /// Which file.
        path: PathBuf,
    },
}

/// Joining a drive. The host may have admitted this device when the connection broke after the proof;
/// trying again with the same identity is then harmless.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// See the cause.
    #[error("cannot use the network")]
    Start(#[from] StartError),
    /// Nobody named in the ticket answered.
    #[error("no member of the drive could be reached at {tried} addresses")]
    Unreachable {
        /// How many addresses were tried.
        tried: usize,
    },
    /// The member that answered refused.
    #[error("{}", refusal_text(*.0))]
    Refused(JoinRefusal),
    /// What answered does not follow the protocol, or speaks another version of it.
    #[error("the member speaks another version of the protocol")]
    Incompatible,
    /// The genesis is not the one the ticket names.
    #[error("the member answered with another drive than the ticket names")]
    WrongDrive,
    /// Time is over.
    #[error("no answer within the time allowed")]
    TimedOut,
}

fn refusal_text(refusal: JoinRefusal) -> &'static str {
    match refusal {
        JoinRefusal::Invalid => "the ticket is not valid for this member's drive",
        JoinRefusal::Expired => "the ticket has expired",
        JoinRefusal::Used => "the ticket has been used as often as it allows",
        JoinRefusal::Void => "the ticket was withdrawn",
        JoinRefusal::Unable => "the member that answered cannot admit anybody now",
        JoinRefusal::Busy => "too many attempts to join, try again in a minute",
    }
}

/// Fetching chunks for somebody who waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// No member is connected.
    #[error("no other device is connected")]
    NobodyConnected,
    /// Every connected member was asked and none has it.
    #[error("no connected device has it")]
    NobodyHasIt,
    /// Not within the time the caller gave.
    #[error("no device sent it in time")]
    TimedOut,
    /// The store has no room.
    #[error("the disk is full")]
    Full,
    /// The network was shut down.
    #[error("the network is shut down")]
    Closed,
}
