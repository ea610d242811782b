//! Who has it, bring it: connects the members of one drive and moves journal entries and chunks.
//!
//! ```text
//! handle ─► driver ─► behaviour (gate, streams)        limits: every bound
//!             ├─► session  ─► courier ─► sync  (pure)  wire: the bytes
//!             ├─► transfer ─► fetch  (pure)            invite: the ticket
//!             ├─► warden   ─► locks  (pure)            host: what we need of journal and cas
//!             ├─► serve, join, farewell                error
//!             └─► peers, twins (pure)
//! ```
//!
//! Leaves out: files, trees and kernels; who is a member (the journal says); what should be fetched (the
//! host says).
//!
//! Invariants:
//! - nobody but members gets anything, but that a stranger with a ticket gets a challenge, and a device that was removed
//!   the journal up to its removal;
//! - every length, queue, wait and retry is bounded by a constant of [`limits`].
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

mod behaviour;
pub mod courier;
mod driver;
pub mod error;
mod farewell;
pub mod fetch;
mod frames;
pub mod handle;
pub mod host;
pub mod invite;
pub mod join;
pub mod limits;
pub mod locks;
mod node;
pub mod peers;
mod serve;
mod session;
mod start;
pub mod sync;
mod transfer;
mod twins;
mod warden;
pub mod wire;

pub use error::{FetchError, JoinError, StartError};
pub use fetch::Priority;
pub use handle::{Event, EventStream, Handle, PeerStatus, Progress, Synced};
pub use host::{AdmitError, ChunkHost, JournalHost, LockHost, PutError};
pub use invite::Ticket;
pub use join::{JoinOptions, JoinOutcome, join};
pub use libp2p::Multiaddr;
pub use locks::{Foreign, LockClaim, LockInfo, LockKind, LockOutcome, Scope, Spot};
pub use start::{Config, can_listen, device_of_secret, start};
pub use wire::JoinRefusal;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
