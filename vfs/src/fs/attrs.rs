//! Attributes, extended attributes, the state of the disk.
//!
//! Leaves out: lengths of files, which are content ([`super::io`]).
//!
//! Invariant: a change of a finished file's attributes is a draft at once; of one that is being written, it goes with
//! its content.

use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use journal::id::DirId;
use journal::name::Register;
use journal::op::{DirAttr, Timestamp, XATTRS_LEN_MAX, Xattrs};

use super::locking::lock_text;
use super::{Core, State, Wait};
use crate::attr::{Attr, Caller, SetAttr, SetTime, without_set_id};
use crate::drafts::DraftValue;
use crate::error::FsError;
use crate::file::{FileNode, Meta, cas_content};
use crate::inode::{LinkNode, NodeKind, Place};
use crate::past::PastKind;
use crate::space::Usage;
use crate::traits::{CheckoutError, SealError, Told};

/// Prefix of attributes that say something about the drive; read-only but for [`LOCK`], and never listed.
const VIRTUAL: &[u8] = b"user.atelier.";
/// Who works on a file. Set to `held` it takes the checkout, removed it gives it back.
const LOCK: &[u8] = b"user.atelier.lock";
/// Longest name of an extended attribute, bytes.
const XATTR_NAME_LEN_MAX: usize = 255;

/// Whether an extended attribute must be new or must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XattrMode {
    /// Either.
    Any,
    /// New.
    Create,
    /// There.
    Replace,
}

impl Core {
    /// What `stat` says.
    pub fn getattr(&self, ino: u64) -> Result<Attr, FsError> {
        let state = self.state();
        let kind = state.table.get(ino).map(|node| node.kind.clone()).ok_or(FsError::Stale)?;
        self.attr_of(&state, ino, &kind)
    }

    /// Changes attributes; a new length may have to wait for content below.
    pub fn setattr(
        &self,
        caller: Caller,
        ino: u64,
        handle: Option<u64>,
        set: SetAttr,
    ) -> Result<Attr, FsError> {
        self.check_role()?;
        let kind =
            self.state().table.get(ino).map(|node| node.kind.clone()).ok_or(FsError::Stale)?;
        let owner = self.attr_of(&self.state(), ino, &kind)?.uid;
        self.check_owner(caller, owner, &set)?;
        match &kind {
            NodeKind::File(file) => self.set_file(caller, file, handle, set)?,
            NodeKind::Symlink(link) => self.set_link(link, set)?,
            NodeKind::Past(_) => return Err(FsError::ReadOnly),
            NodeKind::Dir(_) if set.len.is_some() => return Err(FsError::IsDir),
            NodeKind::Dir(dir) => self.set_dir(*dir, set)?,
        }
        let state = self.state();
        self.attr_of(&state, ino, &kind)
    }

    /// A device that may only read the drive changes nothing.
    pub(crate) fn check_role(&self) -> Result<(), FsError> {
        if self.submit.may_write() { Ok(()) } else { Err(FsError::ReadOnly) }
    }

    /// Without replicated owners everything belongs to the mounting user. Root may say otherwise without effect, as
    /// unpackers and copiers running as root do; anyone else gives a file away no more than on other file systems.
    fn check_owner(&self, caller: Caller, uid: u32, set: &SetAttr) -> Result<(), FsError> {
        let foreign = set.uid.is_some_and(|new| new != uid);
        if foreign && caller.uid != 0 { Err(FsError::NotPermitted) } else { Ok(()) }
    }

    fn owner_of(&self, old: Option<(u32, u32)>, set: &SetAttr) -> Option<(u32, u32)> {
        if !self.config.posix_owners || (set.uid.is_none() && set.gid.is_none()) {
            return old;
        }
        let (uid, gid) = old.unwrap_or((self.config.uid, self.config.gid));
        Some((set.uid.unwrap_or(uid), set.gid.unwrap_or(gid)))
    }

    fn time(&self, time: SetTime) -> Timestamp {
        match time {
            SetTime::Now => self.clock.wall(),
            SetTime::At(time) => Timestamp { nanos: time.nanos.min(999_999_999), ..time },
        }
    }

    fn set_file(
        &self,
        caller: Caller,
        file: &Arc<FileNode>,
        handle: Option<u64>,
        set: SetAttr,
    ) -> Result<(), FsError> {
        if let Some(len) = set.len {
            let may_write = match handle.and_then(|handle| self.handles.file(handle).ok()) {
                Some(handle) => handle.writes,
                None => self.may(caller, file.meta.lock().mode, 2).is_ok(),
            };
            if !may_write {
                return Err(FsError::Access);
            }
            let lock = match handle {
                Some(_) => None,
                None => self.claim_file(caller, file, Wait::Allowed)?,
            };
            let shown = lock.as_ref().map_or(Ok(()), |_| self.still_shown(file));
            let cut = shown.and_then(|()| self.cut_by(caller, file, len));
            self.claimed(lock.as_ref());
            cut?;
            if caller.uid != 0 {
                self.drop_set_id_of(file)?;
            }
        }
        let lasting =
            set.mode.is_some() || set.uid.is_some() || set.gid.is_some() || set.mtime.is_some();
        if !lasting {
            if let Some(atime) = set.atime {
                let mut meta = file.meta.lock();
                meta.atime = self.time(atime);
                meta.ctime = self.clock.wall();
            }
            return Ok(());
        }
        self.change_file(file, |meta| {
            if set.uid.is_some() || set.gid.is_some() {
                meta.mode = without_set_id(meta.mode);
            }
            if let Some(mode) = set.mode {
                meta.mode = mode & self.config.file_bits();
            }
            if let Some(mtime) = set.mtime {
                meta.mtime = self.time(mtime);
            }
            if let Some(atime) = set.atime {
                meta.atime = self.time(atime);
            }
            meta.owner = self.owner_of(meta.owner, &set);
            Ok(())
        })
    }

    fn cut_by(&self, caller: Caller, file: &Arc<FileNode>, len: u64) -> Result<(), FsError> {
        if len == 0 {
            self.keep_save_of_another(caller, file)?;
            self.based_on_loaded(file, self.work.process(caller))?;
        }
        self.set_len(file, len)
    }

    /// Refuses what would change nothing but attributes of a conflict copy. That would be a new version of the copy, and so
    /// resolve the conflict for everybody, which nobody means who sets a time or whose file manager leaves a mark.
    fn must_not_be_copy(&self, file: &FileNode) -> Result<(), FsError> {
        let place = {
            let state = self.state();
            let meta = file.meta.lock();
            let drafted = |place: &Place| state.drafts.get(&place.key).is_some();
            if meta.dirty || meta.finished.is_none() || meta.place.as_ref().is_some_and(drafted) {
                return Ok(());
            }
            meta.place.clone()
        };
        let Some(place) = place else { return Ok(()) };
        match self.tree.told(place.key.dir(), &place.name)? {
            Some(told) if told.node.standing == journal::view::Standing::Copy => {
                Err(FsError::NotPermitted)
            }
            _ => Ok(()),
        }
    }

    /// Changes attributes that are published.
    fn change_file(
        &self,
        file: &Arc<FileNode>,
        set: impl FnOnce(&mut Meta) -> Result<(), FsError>,
    ) -> Result<(), FsError> {
        self.must_not_be_copy(file)?;
        let beside = self.change(|state| {
            let mut meta = file.meta.lock();
            set(&mut meta)?;
            meta.ctime = self.clock.wall();
            match meta.finished {
                Some(content) if !meta.dirty => {
                    self.put_draft(state, file.ino, &mut meta, cas_content(content))
                }
                _ => {
                    meta.attr_dirty = true;
                    Ok(None)
                }
            }
        })?;
        beside.map_or(Ok(()), |op| self.publish_beside(file, op))
    }

    /// Takes the set-id bits off an open file that someone without the right to set ids has changed.
    pub fn drop_set_id(&self, handle: u64) -> Result<(), FsError> {
        self.drop_set_id_of(&self.handles.file(handle)?.node)
    }

    pub(crate) fn drop_set_id_of(&self, file: &Arc<FileNode>) -> Result<(), FsError> {
        let mode = file.meta.lock().mode;
        if without_set_id(mode) == mode {
            return Ok(());
        }
        self.change_file(file, |meta| {
            meta.mode = without_set_id(meta.mode);
            Ok(())
        })
    }

    fn set_link(&self, link: &Arc<LinkNode>, set: SetAttr) -> Result<(), FsError> {
        {
            let mut times = link.times.lock();
            times.ctime = self.clock.wall();
            if let Some(atime) = set.atime {
                times.atime = self.time(atime);
            }
        }
        self.change(|state| {
            let value = {
                let mut value = link.value.lock();
                let before = value.clone();
                if let Some(mtime) = set.mtime {
                    value.mtime = self.time(mtime);
                }
                value.owner = self.owner_of(value.owner, &set);
                if *value == before {
                    return Ok(());
                }
                value.clone()
            };
            let Some(key) = state.table.key_of(link.ino) else { return Ok(()) };
            let below = link.below.lock().clone();
            let Some(name) = below.name.clone() else { return Ok(()) };
            let draft = DraftValue::Symlink(value);
            state.drafts.put(self.now_ms(), &key, &name, draft, || Ok::<_, FsError>(below))
        })
    }

    fn set_dir(&self, dir: DirId, set: SetAttr) -> Result<(), FsError> {
        self.change(|state| {
            if !self.dir_lives(state, dir)? {
                return Ok(());
            }
            let mut attr = self.dir_attr(state, dir)?;
            if let Some(mode) = set.mode {
                attr.mode = mode & self.config.dir_bits();
            }
            let times = state.dir_changed(dir, self.clock.wall());
            if let Some(mtime) = set.mtime {
                attr.mtime = Some(self.time(mtime));
                times.mtime = None;
            }
            if let Some(atime) = set.atime {
                times.atime = Some(self.time(atime));
            }
            attr.owner = self.owner_of(attr.owner, &set);
            self.put_dir_attr(state, dir, attr)
        })
    }

    fn put_dir_attr(&self, state: &mut State, dir: DirId, attr: DirAttr) -> Result<(), FsError> {
        if self.dir_attr(state, dir)? != attr {
            state.drafts.set_dir_attr(self.now_ms(), dir, attr);
        }
        Ok(())
    }

    /// Whether an access is allowed.
    pub fn access(&self, caller: Caller, ino: u64, want: u32) -> Result<(), FsError> {
        if want & 2 != 0 {
            self.check_role()?;
            if self.is_past(ino) {
                return Err(FsError::ReadOnly);
            }
        }
        let attr = self.getattr(ino)?;
        if want & 2 != 0 {
            let kind = self.known(&self.state(), ino)?;
            if let NodeKind::File(file) = kind
                && let Some(holder) = self.refusing(&file)?
            {
                return Err(FsError::Locked(holder.name));
            }
        }
        if want & 1 != 0
            && caller.uid == 0
            && attr.kind == crate::attr::Kind::File
            && attr.mode & 0o111 == 0
        {
            return Err(FsError::Access);
        }
        self.may(caller, attr.mode, want & 7)
    }

    /// The state of the disk that holds the store.
    pub fn statfs(&self) -> Result<Usage, FsError> {
        let dir = &self.config.spool_dir;
        Ok(self.contents.space.usage().map_err(crate::error::at("stat", dir))?)
    }

    fn xattrs_of(&self, state: &State, kind: &NodeKind) -> Result<Arc<Xattrs>, FsError> {
        match kind {
            NodeKind::File(file) => Ok(file.meta.lock().xattrs.clone()),
            NodeKind::Dir(dir) => Ok(Arc::new(self.dir_attr(state, *dir)?.xattrs)),
            NodeKind::Past(past) => match &past.kind {
                PastKind::File(file, _) => Ok(file.meta.lock().xattrs.clone()),
                PastKind::Dir(_) | PastKind::Symlink(_) | PastKind::Text(_) => {
                    Ok(Arc::new(Xattrs::new()))
                }
            },
            NodeKind::Symlink(_) => Ok(Arc::new(Xattrs::new())),
        }
    }

    fn known(&self, state: &State, ino: u64) -> Result<NodeKind, FsError> {
        state.table.get(ino).map(|node| node.kind.clone()).ok_or(FsError::Stale)
    }

    /// An extended attribute's value.
    pub fn getxattr(&self, ino: u64, name: &[u8]) -> Result<Vec<u8>, FsError> {
        if let Some(what) = name.strip_prefix(VIRTUAL) {
            return self.virtual_xattr(ino, what);
        }
        let state = self.state();
        let kind = self.known(&state, ino)?;
        check_namespace(name)?;
        let xattrs = self.xattrs_of(&state, &kind)?;
        xattrs.get(name).cloned().ok_or(FsError::NoAttribute)
    }

    /// What the drive says of a file; of nothing else.
    fn virtual_xattr(&self, ino: u64, what: &[u8]) -> Result<Vec<u8>, FsError> {
        let kind = self.known(&self.state(), ino)?;
        let file = match &kind {
            NodeKind::File(file) => file,
            NodeKind::Past(past) => {
                let PastKind::File(_, version) = &past.kind else {
                    return Err(FsError::NoAttribute);
                };
                return match what {
                    b"state" => Ok(b"past".to_vec()),
                    b"version" => Ok(version.to_string().into_bytes()),
                    _ => Err(FsError::NoAttribute),
                };
            }
            NodeKind::Dir(DirId::ROOT) if what == b"socket" => {
                let socket = self.config.socket.as_ref().ok_or(FsError::NoAttribute)?;
                return Ok(socket.as_os_str().as_bytes().to_vec());
            }
            NodeKind::Dir(_) | NodeKind::Symlink(_) => return Err(FsError::NoAttribute),
        };
        if what == b"lock" {
            let holder = self.holder_of(file)?.ok_or(FsError::NoAttribute)?;
            return Ok(lock_text(&holder).into_bytes());
        }
        let (place, shown, draft) = {
            let state = self.state();
            let meta = file.meta.lock();
            let drafted = |place: &Place| state.drafts.get(&place.key).is_some();
            let draft = meta.dirty || meta.attr_dirty || meta.place.as_ref().is_some_and(drafted);
            (meta.place.clone(), meta.below.bases.first().copied(), draft)
        };
        let told = match &place {
            Some(place) => self.tree.told(place.key.dir(), &place.name)?,
            None => None,
        };
        let is_copy = |told: &Told| !draft && told.node.standing == journal::view::Standing::Copy;
        match what {
            b"version" => match &told {
                Some(told) if !draft && !told.arriving => Ok(told.node.version.to_string().into()),
                // What a draft will replace, and what is shown of a file that is arriving.
                _ => shown.map(|version| version.to_string().into()).ok_or(FsError::NoAttribute),
            },
            b"state" => Ok(match &told {
                _ if draft => b"draft".to_vec(),
                None => b"past".to_vec(),
                Some(told) if is_copy(told) => b"conflict".to_vec(),
                Some(told) if told.arriving => b"arriving".to_vec(),
                Some(_) => b"official".to_vec(),
            }),
            b"conflict" => {
                let told = told.filter(is_copy).ok_or(FsError::NoAttribute)?;
                Ok(format!("{} by {}", told.node.register.name, told.author).into_bytes())
            }
            _ => Err(FsError::NoAttribute),
        }
    }

    /// The names of an inode's extended attributes.
    pub fn listxattr(&self, ino: u64) -> Result<Vec<Vec<u8>>, FsError> {
        let state = self.state();
        let kind = self.known(&state, ino)?;
        Ok(self.xattrs_of(&state, &kind)?.keys().cloned().collect())
    }

    /// Sets an extended attribute.
    pub fn setxattr(
        &self,
        ino: u64,
        name: &[u8],
        value: &[u8],
        mode: XattrMode,
    ) -> Result<(), FsError> {
        if name == LOCK {
            // Any other word might be meant as anything.
            return if value == b"held" {
                self.set_checkout(ino, Checkout::Take)
            } else {
                Err(FsError::Invalid)
            };
        }
        if name.starts_with(VIRTUAL) {
            return Err(FsError::ReadOnly);
        }
        check_namespace(name)?;
        if name.len() > XATTR_NAME_LEN_MAX {
            return Err(FsError::Range);
        }
        self.change_xattrs(ino, |xattrs| {
            match (mode, xattrs.contains_key(name)) {
                (XattrMode::Create, true) => return Err(FsError::Exists),
                (XattrMode::Replace, false) => return Err(FsError::NoAttribute),
                _ => {}
            }
            xattrs.insert(name.to_vec(), value.to_vec());
            let total: usize = xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
            if total > XATTRS_LEN_MAX { Err(FsError::TooBig) } else { Ok(()) }
        })
    }

    /// Removes an extended attribute.
    pub fn removexattr(&self, ino: u64, name: &[u8]) -> Result<(), FsError> {
        if name == LOCK {
            return self.set_checkout(ino, Checkout::GiveBack);
        }
        if name.starts_with(VIRTUAL) {
            return Err(FsError::ReadOnly);
        }
        check_namespace(name)?;
        self.change_xattrs(ino, |xattrs| match xattrs.remove(name) {
            Some(_) => Ok(()),
            None => Err(FsError::NoAttribute),
        })
    }

    /// Takes a file's checkout or gives it back. May wait for the disk.
    fn set_checkout(&self, ino: u64, what: Checkout) -> Result<(), FsError> {
        self.check_role()?;
        let NodeKind::File(file) = self.known(&self.state(), ino)? else {
            return Err(FsError::NotSupported);
        };
        let place = {
            let meta = file.meta.lock();
            // A conflict copy has no name of its own.
            if meta.below.resolves.is_some() {
                return Err(FsError::NotSupported);
            }
            meta.place.clone().ok_or(FsError::Stale)?
        };
        let register = Register::new(place.key.dir(), place.name);
        let done = self.work.locks.checkout(&register, what == Checkout::Take);
        done.map_err(|error| match error {
            CheckoutError::Held(holder) => FsError::Locked(holder.name),
            CheckoutError::NotHeld => FsError::NoAttribute,
            CheckoutError::ReadOnly => FsError::ReadOnly,
            CheckoutError::Failed(error) => FsError::Seal(SealError::Failed(error)),
        })
    }

    fn change_xattrs(
        &self,
        ino: u64,
        set: impl FnOnce(&mut Xattrs) -> Result<(), FsError>,
    ) -> Result<(), FsError> {
        self.check_role()?;
        let kind = self.known(&self.state(), ino)?;
        match kind {
            NodeKind::File(file) => self.change_file(&file, |meta| {
                let mut xattrs = (*meta.xattrs).clone();
                set(&mut xattrs)?;
                meta.xattrs = Arc::new(xattrs);
                Ok(())
            }),
            NodeKind::Dir(dir) => self.change(|state| {
                let mut attr = self.dir_attr(state, dir)?;
                set(&mut attr.xattrs)?;
                state.dir_changed(dir, self.clock.wall());
                self.put_dir_attr(state, dir, attr)
            }),
            NodeKind::Symlink(_) => Err(FsError::NotPermitted),
            NodeKind::Past(_) => Err(FsError::ReadOnly),
        }
    }
}

/// What is done about a checkout.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Checkout {
    Take,
    GiveBack,
}

/// Whether an attribute says something about the drive; to change one may take long.
pub(crate) fn is_virtual(name: &[u8]) -> bool {
    name.starts_with(VIRTUAL)
}

/// Only `user.` attributes replicate; the rest is answered as a file system without them does.
fn check_namespace(name: &[u8]) -> Result<(), FsError> {
    if name.starts_with(b"user.") && name.len() > 5 { Ok(()) } else { Err(FsError::NotSupported) }
}
