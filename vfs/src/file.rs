//! A regular file that is known to the kernel or open: its bytes, its attributes, and what they are based on.
//!
//! Leaves out: everything about names but where this file stands.
//!
//! Invariants:
//! - locks are taken in the order body, drive state, meta; none of them is held across a wait for other devices but
//!   the body's, and that only for work on this very file;
//! - `meta.len` is the body's length whenever the body's lock is free;
//! - a dirty file is never forgotten.

use std::sync::{Arc, LazyLock};

use journal::op::{Content, FileValue, Timestamp, Xattrs};
use parking_lot::Mutex;

use crate::attr::ALL_MODE_BITS;
use crate::body::Body;
use crate::drafts::Below;
use crate::inode::Place;
use crate::process::Process;
use crate::spool::Unfinished;

/// A file.
pub(crate) struct FileNode {
    pub(crate) ino: u64,
    pub(crate) body: Mutex<Body>,
    pub(crate) meta: Mutex<Meta>,
}

/// What is known of a file besides its bytes.
#[derive(Clone, Debug)]
pub(crate) struct Meta {
    pub(crate) len: u64,
    pub(crate) mode: u32,
    pub(crate) mtime: Timestamp,
    pub(crate) ctime: Timestamp,
    pub(crate) atime: Timestamp,
    pub(crate) xattrs: Arc<Xattrs>,
    pub(crate) owner: Option<(u32, u32)>,
    /// The last finished content; none while a new file's first one is written.
    pub(crate) finished: Option<Content>,
    /// The published content this file was made from.
    pub(crate) rests_on: Option<Content>,
    /// What a change of this file replaces.
    pub(crate) below: Below,
    /// Its name; none once it was removed or replaced.
    pub(crate) place: Option<Place>,
    /// Whether bytes are there that are not in `finished`.
    pub(crate) dirty: bool,
    /// Whether attributes are changed that no draft has.
    pub(crate) attr_dirty: bool,
    /// Counts changes of bytes, so that a snapshot can tell whether it is still the whole.
    pub(crate) changes: u64,
    pub(crate) opens: u32,
    pub(crate) writers: u32,
    /// The thread that last opened it to write; 0 when nobody did or nobody knows.
    pub(crate) writer_tid: u32,
    /// The process of that thread.
    pub(crate) saver: Option<Process>,
    /// Bytes read or written of it by anybody: what the kernel may have by now.
    pub(crate) cached_bytes: u64,
    /// How the spool log describes it, if it does, as unfinished.
    pub(crate) logged: Option<Box<Unfinished>>,
    /// When it was last handed to the drafts, or its first byte after that was changed, monotonic milliseconds.
    pub(crate) published_ms: u64,
}

impl FileNode {
    /// A file with a finished content.
    pub(crate) fn sealed(ino: u64, value: &FileValue, below: Below, place: Place) -> Self {
        let body = Body::sealed(cas_content(value.content));
        let meta = Meta {
            len: value.content.len,
            xattrs: shared(&value.xattrs),
            owner: value.owner,
            finished: Some(value.content),
            rests_on: Some(value.content),
            below,
            ..Meta::new(place, value.mode & ALL_MODE_BITS, value.mtime)
        };
        Self { ino, body: Mutex::new(body), meta: Mutex::new(meta) }
    }

    /// A file that nobody made, of a few words. Its place keeps it from being taken for one that was removed.
    pub(crate) fn text(ino: u64, text: &Arc<str>, now: Timestamp, place: Place) -> Self {
        let body = Mutex::new(Body::Text(text.clone()));
        let meta = Meta { len: text.len() as u64, ..Meta::new(place, 0o444, now) };
        Self { ino, body, meta: Mutex::new(meta) }
    }

    /// Whether it must stay known although the kernel let go of it.
    pub(crate) fn is_busy(&self) -> bool {
        let meta = self.meta.lock();
        meta.opens > 0 || (meta.dirty && meta.place.is_some())
    }
}

impl Meta {
    /// Of an empty file that stands on nothing, before anybody has opened or changed it.
    pub(crate) fn new(place: Place, mode: u32, time: Timestamp) -> Self {
        Self {
            len: 0,
            mode,
            mtime: time,
            ctime: time,
            atime: time,
            xattrs: shared(&Xattrs::new()),
            owner: None,
            finished: None,
            rests_on: None,
            below: Below::default(),
            place: Some(place),
            dirty: false,
            attr_dirty: false,
            changes: 0,
            opens: 0,
            writers: 0,
            writer_tid: 0,
            saver: None,
            cached_bytes: 0,
            logged: None,
            published_ms: 0,
        }
    }

    /// Whether so much of it was read or written that the kernel may answer for the rest.
    pub(crate) fn is_cached_whole(&self) -> bool {
        self.cached_bytes >= self.len - self.len / 10
    }

    /// The value to publish with this content.
    pub(crate) fn value(&self, content: Content) -> FileValue {
        FileValue {
            content,
            mode: self.mode,
            mtime: self.mtime,
            xattrs: (*self.xattrs).clone(),
            owner: self.owner,
        }
    }

    /// Takes the attributes of a value that has the same content.
    pub(crate) fn take_attrs(&mut self, value: &FileValue) {
        self.mode = value.mode & ALL_MODE_BITS;
        self.mtime = value.mtime;
        self.ctime = value.mtime;
        self.xattrs = shared(&value.xattrs);
        self.owner = value.owner;
    }
}

/// Most files have no extended attributes: all of these share one set.
fn shared(xattrs: &Xattrs) -> Arc<Xattrs> {
    static NONE: LazyLock<Arc<Xattrs>> = LazyLock::new(Arc::default);
    if xattrs.is_empty() { NONE.clone() } else { Arc::new(xattrs.clone()) }
}

/// The same content in the store's words.
pub(crate) fn cas_content(content: Content) -> cas::Content {
    cas::Content { id: content.id, len: content.len }
}

/// The same content in the journal's words.
pub(crate) fn journal_content(content: cas::Content) -> Content {
    Content { id: content.id, len: content.len }
}
