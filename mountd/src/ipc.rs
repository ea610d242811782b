//! The conversation between the command line and a drive's daemon.
//!
//! A control socket in the drive's store; frames of a length and JSON ([`frame`]); requests and
//! answers whose JSON is that of the command line's `--json` ([`message`]); a [`server`] that hands
//! requests to a [`Service`], a [`client`] that asks. It leaves out what the answers are made of.
//!
//! ```text
//! client                         server
//!   Hello{protocol}        ->
//!                          <-      Hello{protocol}        (or Failed, and the end)
//!   Request                ->
//!                          <-      Progress*
//!                          <-      Answer | Failed
//! ```
//!
//! Invariants:
//! - only the user who runs the daemon is answered: the store is 0700, the socket 0600, and the
//!   kernel's word on the other end is checked;
//! - no frame is larger than [`frame::FRAME_LEN_MAX`], and its length is looked at before memory is
//!   asked for;
//! - no side waits for ever: every read and write has a bound.

pub mod client;
pub mod frame;
pub mod message;
pub mod server;
mod socket;

pub use client::Client;
pub use message::{
    AsideRow, ConflictCopy, ConflictReport, DeviceRow, DriveRow, EventRow, EventsReport,
    ExportReport, GcReport, GcRow, HistoryCost, HistoryReport, HistoryRow, LockPolicy, LockRow,
    MemberRow, Notice, PolicyRow, Progress, Request, Response, RestoreReport, Role, SnapshotRow,
    StatusReport, SyncReport, Unit, VerifyReport, rfc3339,
};
pub use server::Server;

use crate::report::Failure;

/// Version of the conversation; both sides must name the same.
pub const PROTOCOL: u32 = 1;

/// Name of the control socket in a store.
pub const SOCKET_NAME: &str = "control.sock";

/// What answers the requests: the running drive.
pub trait Service: Send + Sync + 'static {
    /// Answers one request. Called on a thread of its own, several at once; may take long and tells
    /// of its progress meanwhile.
    ///
    /// [`Request::Unmount`] is to be answered once the unmount is on its way, not after it: the
    /// asker waits for the process to go.
    fn handle(
        &self,
        request: Request,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Response, Failure>;
}
