//! The mounted drive: one semantics for every kernel.
//!
//! ```text
//! mount ─► fuse ─► fs ─► drafts (pure)   what is not published yet, and when it may be
//!                   ├──► file, body ─► overlay, pattern, contents ─► cas
//!                   ├──► inode, handles  what kernels and programs hold
//!                   ├──► spool           what no crash may lose
//!                   ├──► past            virtual names: snapshots, versions of files
//!                   └──► traits          the tree, publishing, time: implemented by the daemon
//! attr, error, errno                     words for the above
//! ```
//!
//! Leaves out: peers, the journal's rules, the daemon.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

pub mod attr;
mod body;
mod contents;
pub mod drafts;
pub mod errno;
pub mod error;
mod file;
pub mod fs;
mod fuse;
mod handles;
mod inode;
pub mod mount;
mod overlay;
pub mod past;
mod pattern;
mod space;
mod spool;
pub mod traits;

pub use error::{FsError, OpenError};
pub use fs::{Config, Fs, Notice, Sealer};
pub use mount::{MountError, MountOptions, Mounted, Unmounted};
pub use space::Usage;
pub use traits::{Clock, Past, SealError, Snapshot, StateError, Submit, Told, Tree};
