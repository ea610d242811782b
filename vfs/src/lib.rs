//! The mounted drive: one semantics for every kernel.
//!
//! ```text
//! mount ─► fuse ─► fs ─► drafts (pure)   what is not published yet, and when it may be
//!                   ├──► file, body ─► overlay, pattern, contents ─► cas
//!                   ├──► inode, handles  what kernels and programs hold
//!                   ├──► spool           what no crash may lose
//!                   ├──► past            virtual names: snapshots, versions of files, locks
//!                   ├──► process, uses, loaded   who works on what, and which version it has in front of it
//!                   └──► traits          the tree, publishing, time: implemented by the daemon
//! attr, error, errno                     words for the above
//! ```
//!
//! Leaves out: peers, the journal's rules, the daemon.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

pub mod attr;
mod body;
mod contents;
mod documents;
pub mod drafts;
pub mod errno;
pub mod error;
mod file;
pub mod fs;
mod fuse;
mod handles;
mod inode;
mod loaded;
pub mod mount;
mod overlay;
pub mod past;
mod pattern;
mod process;
mod space;
mod spool;
pub mod traits;
mod uses;

pub use error::{FsError, OpenError};
pub use fs::{Config, Fs, Notice, Sealer};
pub use mount::{MountError, MountOptions, Mounted, Unmounted};
pub use space::Usage;
pub use traits::{
    CheckoutError, Clock, Happening, Hold, Holder, Locks, Past, Scope, SealError, Snapshot, Spot,
    StateError, Submit, Told, Tree,
};
