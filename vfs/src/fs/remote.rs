//! What others changed: which names and inodes a kernel must not remember any more.
//!
//! Leaves out: telling the kernel; its adapter takes from the queue on a thread that holds nothing.
//!
//! Invariants:
//! - changes of others never touch drafts or files that are being written here;
//! - the queue is bounded; when it overflows, everything known is told anew instead.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use journal::name::Register;
use journal::view::ViewKind;
use parking_lot::{Condvar, Mutex};

use super::{Core, State};
use crate::drafts::Key;
use crate::inode::{Cold, NodeKind};

/// Most waiting invalidations.
const STALE_MAX: usize = 65_536;
/// With more than these waiting, names that are merely cold are not added.
const COLD_WAITING_MAX: usize = 4_096;

/// Something a kernel must forget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stale {
    /// A name in a directory.
    Name {
        /// The directory's inode.
        parent: u64,
        /// The name.
        name: String,
    },
    /// An inode's attributes.
    Attr {
        /// The inode.
        ino: u64,
    },
}

#[derive(Default)]
struct Waiting {
    queue: VecDeque<Stale>,
    everything: bool,
    nudged: bool,
    closed: bool,
    /// How much was ever put in, taken out, and told to the kernel.
    pushed: u64,
    taken: u64,
    told: u64,
}

/// What waits to be told to the kernel.
#[derive(Default)]
pub(crate) struct StaleQueue {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
    told: Condvar,
}

impl StaleQueue {
    fn push(&self, stale: Stale) {
        let mut waiting = self.waiting.lock();
        waiting.pushed += 1;
        if waiting.everything {
            return;
        }
        if waiting.queue.len() >= STALE_MAX {
            waiting.queue.clear();
            waiting.everything = true;
        } else {
            waiting.queue.push_back(stale);
        }
        self.arrived.notify_all();
    }

    /// Whether there is room for what can wait.
    fn has_room(&self) -> bool {
        let waiting = self.waiting.lock();
        !waiting.everything && waiting.queue.len() < COLD_WAITING_MAX
    }

    /// Lets the one who waits look around.
    pub(crate) fn nudge(&self) {
        self.waiting.lock().nudged = true;
        self.arrived.notify_all();
    }

    pub(crate) fn close(&self) {
        self.waiting.lock().closed = true;
        self.arrived.notify_all();
        self.told.notify_all();
    }
}

impl Core {
    /// Entries of others were applied that changed these registers.
    pub fn remote_changed(&self, changed: &[Register]) {
        for register in changed {
            self.register_changed(register);
        }
    }

    fn register_changed(&self, register: &Register) {
        let mut state = self.state();
        let (dir, key) = (register.dir, Key::new(register.dir, &register.name));
        state.subdirs.get_mut().remove(&dir);
        if state.drafts.get(&key).is_some() {
            state.overtaken.insert(register.clone());
            return;
        }
        let Some((ino, node)) = state.table.at(&key) else { return };
        let kind = node.kind.clone();
        if let NodeKind::File(file) = &kind
            && file.meta.lock().dirty
        {
            // Looked at again when what is being written here is published.
            state.overtaken.insert(register.clone());
            return;
        }
        let parent = state.table.dir_ino(dir);
        let name_stale =
            |name: &str| Stale::Name { parent: parent.unwrap_or(0), name: name.to_owned() };
        let spelled = match &kind {
            NodeKind::File(file) => file.meta.lock().place.as_ref().map(|p| p.name.clone()),
            NodeKind::Dir(_) | NodeKind::Symlink(_) | NodeKind::Past(_) => None,
        };
        let view = match self.tree.lookup(dir, &register.name) {
            Ok(view) => view,
            Err(error) => {
                tracing::warn!(%error, "cannot see what changed");
                None
            }
        };
        let unchanged = view.as_ref().is_some_and(|view| match (&kind, &view.kind) {
            (NodeKind::File(file), ViewKind::File(value)) => {
                file.meta.lock().finished == Some(value.content)
            }
            (NodeKind::Symlink(link), ViewKind::Symlink(value)) => *link.value.lock() == *value,
            (NodeKind::Dir(known), ViewKind::Dir { dir, .. }) => known == dir,
            _ => false,
        });
        if unchanged {
            // The attributes may be new: they are taken at the next look.
            if let Some(view) = &view {
                let _ = self.find(&mut state, dir, &view.shown);
            }
            drop(state);
            self.stale.push(Stale::Attr { ino });
            return;
        }
        state.table.detach(&key);
        drop(state);
        if parent.is_some() {
            self.stale.push(name_stale(register.name.as_str()));
            if let Some(spelled) = spelled.filter(|spelled| *spelled != register.name) {
                self.stale.push(name_stale(spelled.as_str()));
            }
        }
    }

    /// The kernel was told of an inode once more; when it knows too many, it is asked to forget some.
    pub(crate) fn told(&self, state: &mut State, ino: u64) {
        state.table.told(ino);
        if state.table.is_crowded() && self.stale.has_room() {
            for Cold { parent, name } in state.table.cold() {
                self.stale.push(Stale::Name { parent, name });
            }
        }
    }

    /// Attributes of a directory were changed by others.
    pub fn remote_dir_changed(&self, dir: journal::id::DirId) {
        let ino = self.state().table.dir_ino(dir);
        if let Some(ino) = ino {
            self.stale.push(Stale::Attr { ino });
        }
    }

    /// What a kernel must forget; waits for it at most `bound`. `None` when the file system closes.
    pub fn next_stale(&self, bound: Duration) -> Option<Vec<Stale>> {
        let until = Instant::now() + bound;
        let mut waiting = self.stale.waiting.lock();
        // Who asks again has told what it took.
        waiting.told = waiting.taken;
        self.stale.told.notify_all();
        loop {
            if waiting.closed {
                return None;
            }
            if waiting.everything {
                waiting.everything = false;
                waiting.taken = waiting.pushed;
                drop(waiting);
                return Some(self.everything());
            }
            if !waiting.queue.is_empty() {
                waiting.taken = waiting.pushed;
                return Some(waiting.queue.drain(..).collect());
            }
            if std::mem::take(&mut waiting.nudged) {
                return Some(Vec::new());
            }
            if self.stale.arrived.wait_until(&mut waiting, until).timed_out() {
                return Some(Vec::new());
            }
        }
    }

    /// Waits, at most `bound`, until the kernel was told of everything that has changed so far.
    pub fn wait_told(&self, bound: Duration) {
        let until = Instant::now() + bound;
        let mut waiting = self.stale.waiting.lock();
        let goal = waiting.pushed;
        while waiting.told < goal && !waiting.closed {
            if self.stale.told.wait_until(&mut waiting, until).timed_out() {
                return;
            }
        }
    }

    /// Makes [`Core::next_stale`] return early, for a kernel that is gone.
    pub fn nudge_stale(&self) {
        self.stale.nudge();
    }

    /// All names and inodes a kernel may remember.
    fn everything(&self) -> Vec<Stale> {
        let state = self.state();
        let names = state.table.names().filter_map(|(key, ino)| {
            let parent = state.table.dir_ino(key.dir())?;
            Some([Stale::Name { parent, name: key.folded().to_owned() }, Stale::Attr { ino }])
        });
        names.flatten().collect()
    }
}
