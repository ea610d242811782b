//! One drive on this device: its journal, its chunks, its place among the members.
//!
//! Joins what the other crates keep apart: it implements the traits `vfs` and `net` define and hands
//! each what the other brings. It leaves out the order of starting and stopping ([`crate::daemon`])
//! and every rule of its own about names, entries or bytes: those live in the crates below.
//!
//! Invariants:
//! - nothing is handed to `net` before the journal has returned from making it durable;
//! - what `net` received is in the journal, durable and applied, before anybody is told of it;
//! - contents are wanted from the entries that name them, never from a walk of the tree.

mod answers;
mod checkouts;
mod collecting;
mod elsewhere;
mod events;
mod export;
mod fetching;
mod lock_host;
mod locking;
mod members;
mod news;
mod noticing;
mod past;
mod paths;
mod peers;
mod publishing;
mod restoring;
mod tree;
mod verifying;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use cas::store::Store;
use journal::op::{Op, Role};
use journal::{DeviceId, Journal, Register, Signer};
use parking_lot::Mutex;

use crate::clock::SystemClock;
use crate::ipc::Notice;

pub use export::ExportError;
pub use fetching::{FETCH_WAIT, Fetching};
pub use members::{Against, TakeBack};
pub use peers::Members;
pub use publishing::Gone;
pub use restoring::{RestoreError, SnapshotError, Which};

/// Notices kept for `status`; older ones make room.
const NOTICES_MAX: usize = 64;

/// A drive that is open on this device.
pub struct Drive {
    journal: Journal,
    store: Store,
    signer: Signer,
    clock: SystemClock,
    mount: PathBuf,
    fetching: Fetching,
    net: OnceLock<net::Handle>,
    fs: OnceLock<Weak<vfs::Fs>>,
    notices: Mutex<Vec<Notice>>,
    /// Members that are connected now.
    online: Mutex<BTreeSet<DeviceId>>,
    /// Own entries nobody is known to hold.
    elsewhere: elsewhere::Elsewhere,
    locking: locking::Locking,
    events: events::Events,
    collected: collecting::Collected,
    /// The device through which we joined, trusted until we are a member by our own journal.
    through: Option<DeviceId>,
    /// Moments of the past that were looked at lately.
    moments: past::Moments,
    /// Whether our role lets us write; looked up again whenever entries were applied.
    may_write: AtomicBool,
    /// Whether this device has been a member by its own journal, now or before.
    let_in: AtomicBool,
}

impl Drive {
    /// Puts an open journal and store together. `mount` is the place the drive is shown at.
    pub fn new(
        journal: Journal,
        store: Store,
        signer: Signer,
        mount: &Path,
        through: Option<DeviceId>,
        fetching: Fetching,
    ) -> Arc<Self> {
        let drive = Self {
            journal,
            store,
            signer,
            clock: SystemClock,
            mount: mount.to_owned(),
            net: OnceLock::new(),
            fs: OnceLock::new(),
            notices: Mutex::new(Vec::new()),
            online: Mutex::new(BTreeSet::new()),
            locking: locking::Locking::new(),
            events: events::Events::default(),
            elsewhere: elsewhere::Elsewhere::load(fetching.dir()),
            collected: collecting::Collected::load(fetching.dir()),
            fetching,
            through,
            moments: past::Moments::default(),
            may_write: AtomicBool::new(false),
            // The file of whom it joined through goes when it is.
            let_in: AtomicBool::new(through.is_none()),
        };
        drive.look_up_role();
        drive.load_checkouts();
        Arc::new(drive)
    }

    /// Tells the drive of the file system shown over it. Once.
    pub fn attach_fs(&self, fs: &Arc<vfs::Fs>) {
        let _ = self.fs.set(Arc::downgrade(fs));
    }

    /// Tells the drive of its connection to the others. Once.
    pub fn attach_net(&self, handle: net::Handle) {
        let _ = self.net.set(handle);
    }

    /// The journal, for questions.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// The chunk store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Adds a line to what `status` shows under notices; the same text is kept once.
    pub fn notice(&self, what: String, remedy: String) {
        let mut notices = self.notices.lock();
        if notices.iter().any(|n| n.what == what) {
            return;
        }
        if notices.len() >= NOTICES_MAX {
            notices.remove(0);
        }
        let since = crate::ipc::rfc3339(self.clock.wall_ms());
        notices.push(Notice { what, since, remedy });
    }

    /// Looks up what our role lets us do.
    fn look_up_role(&self) {
        let role = self.own_role();
        let writes = matches!(role, Some(Role::Owner | Role::Editor));
        self.may_write.store(writes, Ordering::Relaxed);
        if role.is_some() {
            self.let_in.store(true, Ordering::Relaxed);
        }
        self.look_up_company();
    }

    pub(crate) fn net(&self) -> Option<&net::Handle> {
        self.net.get()
    }

    fn fs(&self) -> Option<Arc<vfs::Fs>> {
        self.fs.get().and_then(Weak::upgrade)
    }

    /// Tells the kernel side that `changed` may read differently now.
    fn show(&self, changed: &[Register]) {
        if let (false, Some(fs)) = (changed.is_empty(), self.fs()) {
            fs.remote_changed(changed);
        }
    }

    /// What entries have changed is shown, and what they mean for checkouts looked at.
    fn applied(&self, changed: &[Register]) {
        self.show(changed);
        if let Err(error) = self.look_at_checkouts(changed) {
            tracing::warn!(%error, "checkouts cannot be read");
        }
    }

    /// Authors ops that do not come from the file system (members, names) and sends them.
    pub fn author(&self, ops: Vec<Op>) -> Result<(), journal::AppendError> {
        let authored = self.journal.author(&self.signer, ops, self.clock.now())?;
        self.look_up_role();
        self.applied(&authored.changed);
        self.announce();
        Ok(())
    }

    /// Tells `net` that the journal has grown.
    fn announce(&self) {
        if let Some(net) = self.net() {
            net.journal_changed();
        }
    }

    /// Writes down what is complete and closes journal and store. Called last.
    pub fn close(&self) -> Result<(), CloseError> {
        self.fetching.save(self);
        self.elsewhere.save();
        self.store.close()?;
        self.journal.close()?;
        Ok(())
    }
}

/// The drive could not be closed in order; nothing acknowledged is lost, the next start recovers.
#[derive(Debug, thiserror::Error)]
pub enum CloseError {
    /// The chunk store could not be made durable.
    #[error("chunk store not closed")]
    Store(#[from] cas::error::WriteError),
    /// The journal could not be made durable.
    #[error("journal not closed")]
    Journal(#[from] journal::StateError),
}
