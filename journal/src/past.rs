//! The tree as it was: the fold of the entries a moment knew, a directory at a time.
//!
//! ```text
//! facts     the state's facts, less everything outside a set of entries
//! moment    which entries a moment knew, who was a member, where directories stood
//! registers what single names and directories showed then
//! ```
//!
//! Leaves out: the rules themselves ([`crate::register`], [`crate::placement`], [`crate::member`]),
//! which are applied as they are, to fewer facts.
//!
//! Invariants:
//! - what is shown is what a fold of exactly those entries shows, names of copies included;
//! - a look costs what the directory and its own history cost, never the drive; only the moves of
//!   directories and the members are gone through once for a moment;
//! - nothing is kept open between two looks; what is remembered is dropped when the set of entries of
//!   the moment changes.

mod facts;
mod moment;
mod registers;

use parking_lot::Mutex;

use crate::error::StateError;
use crate::id::{DirId, EntryId};
use crate::journal::Journal;
use crate::name::EntryName;
use crate::view::ViewNode;

use moment::Known;

/// Which entries are looked at.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Moment {
    /// All whose order key is not after this millisecond, and what they had seen.
    At {
        /// Milliseconds since 1970.
        ms: u64,
    },
    /// One entry and everything it had seen.
    Snapshot(EntryId),
}

/// The tree at one moment.
#[derive(Debug)]
pub struct Past {
    moment: Moment,
    known: Mutex<Option<Known>>,
}

impl Past {
    /// The tree at `moment`; nothing is read yet.
    pub fn new(moment: Moment) -> Self {
        Self { moment, known: Mutex::new(None) }
    }

    /// What was shown under `shown` in `dir`.
    pub fn lookup(
        &self,
        journal: &Journal,
        dir: DirId,
        shown: &EntryName,
    ) -> Result<Option<ViewNode>, StateError> {
        Ok(self.look(journal, |then| then.lookup(dir, shown))?.flatten())
    }

    /// Everything `dir` showed, in the order of names.
    pub fn list(&self, journal: &Journal, dir: DirId) -> Result<Vec<ViewNode>, StateError> {
        Ok(self.look(journal, |then| then.list(dir))?.unwrap_or_default())
    }

    fn look<R>(
        &self,
        journal: &Journal,
        look: impl FnOnce(&mut registers::Then<'_>) -> Result<R, StateError>,
    ) -> Result<Option<R>, StateError> {
        let mut known = self.known.lock();
        journal.look(|kv| {
            if !moment::bring(kv, self.moment, &mut known)? {
                return Ok(None);
            }
            match &mut *known {
                Some(known) => look(&mut registers::Then::new(kv, known)).map(Some),
                None => Ok(None),
            }
        })
    }
}

impl Journal {
    /// Whether there was a drive at a moment, and what the moment is of is known.
    pub fn existed(&self, moment: Moment) -> Result<bool, StateError> {
        self.look(|kv| Ok(!moment::cut(kv, moment)?.is_empty()))
    }

    /// Whether two moments know the same entries; a moment before the drive began knows none.
    pub fn differ(&self, one: Moment, other: Moment) -> Result<bool, StateError> {
        self.look(|kv| Ok(moment::cut(kv, one)? != moment::cut(kv, other)?))
    }
}
