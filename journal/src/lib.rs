//! What is true: signed entries, their order, and the tree they fold to.
//!
//! A drive is a pure function of a set of signed entries. Everything here either is that function or
//! keeps the set: nothing else decides what a drive holds.
//!
//! ```text
//! id, name, hlc, order, op             values
//! entry -> codec -> signed             one entry as bytes, and who vouches for it
//! kv, records                          the materialised state: an ordered map and its rows
//! chain, member, placement, lock, register, conflict -> fold    entries in, state out
//! tree -> view                         looking at the state
//! past                                 looking at the state as it was
//! retention                            which versions keep their bytes
//! date                                 which dates are odd, and why
//! replica                              which entries may come in, and which wait
//! log, state -> journal                the shell: disk, locks, one sync for many
//! ```
//!
//! Leaves out: bytes of files (`cas`), connections (`net`), the kernel (`vfs`), every clock.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

mod conflict;
mod fold;
mod placement;
mod records;
mod register;
mod replica;
mod tree;

pub mod canary;
pub mod chain;
pub mod codec;
pub mod date;
pub mod entry;
pub mod error;
pub mod hlc;
pub mod id;
pub mod journal;
pub mod kv;
pub mod lock;
pub mod log;
pub mod member;
pub mod name;
pub mod op;
pub mod order;
pub mod past;
pub mod retention;
pub mod signed;
pub mod state;
pub mod view;

pub use chain::{Frontier, Tip};
pub use date::{Odd, OddClock};
pub use error::{AppendError, CreateError, InviteError, OpenError, RefuseReason, StateError};
pub use id::{DeviceId, DirId, DriveId, EntryId, VersionId};
pub use journal::{
    Arrivals, AsideCount, Authored, Counts, DriveInfo, GenesisSpec, Journal, Now, Opened, Place,
    Reach, Received, Refusal, Retention, SET_ASIDE_MAX, SetAside, SnapshotInfo, VerifyReport,
};
pub use lock::{Checkout, CheckoutFate, LockPolicy};
pub use member::{InviteInfo, Member};
pub use name::{EntryName, Register};
pub use op::{Op, Role, Value};
pub use past::{Moment, Past};
pub use records::LogPos;
pub use retention::Policy;
pub use signed::Signer;
pub use tree::{ContentCursor, Named};
pub use view::{Conflict, DirNode, HistoryVersion, Once, OnceNode, Standing, ViewKind, ViewNode};
