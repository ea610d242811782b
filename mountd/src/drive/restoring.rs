//! Bringing back what was: a file, a folder, to its place or to another.
//!
//! A restore is ordinary work: new versions that hold old contents, written in one go, based on what
//! stands there. So it is itself in the history and can be undone the same way.
//!
//! Leaves out: which tree was shown when (`journal`), sealing the drafts first (the daemon's service).
//!
//! Invariants:
//! - no bytes are copied: a restored file names the content it had;
//! - what is restored can be read: its bytes are here and stay, or are on their way, before it is written;
//! - a folder is made what it was at that moment: what changed gets its old content, what was removed
//!   comes back, what came later is removed; conflict copies are somebody's unsolved work and stay;
//! - with a destination nothing is replaced: it must not exist.

use std::sync::Arc;
use std::time::Duration;

use cas::{ChunkSource, ReadError, Reader};
use journal::name::EntryName;
use journal::op::Op;
use journal::view::{HistoryVersion, Standing, ViewKind, ViewNode};
use journal::{DirId, Moment, Once, Past, Register, StateError, Value, VersionId};

use super::Drive;
use super::paths::{DEPTH_MAX, Found, PathError};
use crate::ipc::RestoreReport;

/// How long a restore waits for the kernel to forget what stood there.
const TELL_BOUND: Duration = Duration::from_secs(5);

/// Which of the things that once were is meant.
#[derive(Clone, Debug)]
pub enum Which {
    /// The version whose id begins so.
    Version(String),
    /// What stood there at the end of this millisecond.
    At(u64),
}

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The path cannot be followed.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The state could not be read.
    #[error("the drive's state cannot be read")]
    State(#[from] StateError),
    /// Nothing was there.
    #[error("{path} did not exist then")]
    NothingThen {
        /// The path.
        path: String,
    },
    /// No such version of this file.
    #[error("{path} has no version {id}")]
    NoVersion {
        /// The path.
        path: String,
        /// What was asked for.
        id: String,
    },
    /// More than one version's id begins so.
    #[error("more than one version of {path} begins with {id}")]
    Ambiguous {
        /// The path.
        path: String,
        /// What was asked for.
        id: String,
    },
    /// A folder has no versions.
    #[error("{} is a folder, and folders have no versions", shown(path))]
    Folder {
        /// The path.
        path: String,
    },
    /// A folder has the file's name now.
    #[error("{path} is a folder now")]
    FolderNow {
        /// The path.
        path: String,
    },
    /// The destination is below a virtual name.
    #[error("{path} cannot be written: names below .history and .snapshots show the past")]
    Virtual {
        /// The path.
        path: String,
    },
    /// The destination is there.
    #[error("{path} exists")]
    Exists {
        /// The destination.
        path: String,
    },
    /// Something that is no folder stands where a folder must be.
    #[error("{path} is not a folder")]
    NotFolder {
        /// The place.
        path: String,
    },
    /// The whole drive cannot be put at its own top by way of a destination that is in it.
    #[error("a folder cannot be restored into itself")]
    IntoItself,
    /// The bytes of a version were collected, and nobody who is connected has them.
    #[error("the bytes of {name} as it was are gone")]
    Gone {
        /// The file.
        name: String,
        /// Which chunk is missing.
        #[source]
        source: cas::ReadError,
    },
    /// The journal did not take it.
    #[error("the restore was not written")]
    Write(#[from] journal::AppendError),
}

/// What is to be written, and what it will have done.
#[derive(Default)]
struct Plan {
    ops: Vec<Op>,
    report: RestoreReport,
    /// Keeps the old contents from being collected until they are current again.
    holds: Vec<cas::Hold>,
}

/// What is brought back.
enum Source {
    File(Value),
    Folder(Box<Folder>),
}

/// A folder as it was.
struct Folder {
    past: Past,
    dir: DirId,
    attr: Option<journal::op::DirAttr>,
}

/// A place in the drive: the names that lead there, and what stands there now.
type Place = (Vec<EntryName>, Option<ViewNode>);

impl Drive {
    /// Restores what was at `path`. Drafts are sealed by now.
    pub fn restore(
        self: &Arc<Self>,
        path: &str,
        which: &Which,
        dest: Option<&str>,
    ) -> Result<RestoreReport, RestoreError> {
        let plain = self.plain_path(path)?;
        let path = plain.as_str();
        let source = self.restore_source(path, which)?;
        let target = dest.unwrap_or(path);
        self.must_be_real(target)?;
        let found = self.find_target(target)?;
        if let (Which::Version(_), Some((_, Some(node)))) = (which, &found)
            && matches!(node.kind, ViewKind::Dir { .. })
        {
            return Err(RestoreError::FolderNow { path: target.to_owned() });
        }
        if dest.is_some() && found.as_ref().is_none_or(|(_, node)| node.is_some()) {
            return Err(RestoreError::Exists { path: target.to_owned() });
        }
        let mut plan = Plan::default();
        match (source, found) {
            (Source::File(_), None) => {
                return Err(RestoreError::NotFolder { path: path.to_owned() });
            }
            (Source::File(value), Some((parents, node))) => {
                let at = self.make_parents(&mut plan, &parents)?;
                self.put_leaf(&mut plan, &at, node.as_ref(), value)?;
            }
            (Source::Folder(then), None) => {
                self.match_dir(&mut plan, &then.past, then.dir, DirId::ROOT)?;
            }
            (Source::Folder(then), Some((parents, node))) => {
                let at = self.make_parents(&mut plan, &parents)?;
                let attr = then.attr.unwrap_or_default();
                let to = self.put_dir(&mut plan, &at, node.as_ref(), &attr)?;
                self.match_dir(&mut plan, &then.past, then.dir, to)?;
            }
        }
        if !plan.ops.is_empty() {
            self.author(plan.ops)?;
            drop(plan.holds);
            // Who asked reads what was restored, not what the kernel remembers.
            if let Some(fs) = self.fs() {
                fs.wait_told(TELL_BOUND);
            }
        }
        Ok(plan.report)
    }

    /// Nothing is put under a name that is virtual: the real thing would hide it.
    fn must_be_real(&self, path: &str) -> Result<(), RestoreError> {
        match names(path)?.first() {
            Some(top) if self.is_virtual(top)? => {
                Err(RestoreError::Virtual { path: path.to_owned() })
            }
            _ => Ok(()),
        }
    }

    fn restore_source(&self, path: &str, which: &Which) -> Result<Source, RestoreError> {
        let history = || -> Result<Vec<HistoryVersion>, RestoreError> {
            let register = self.find_once(path)?;
            Ok(match register {
                Some(at) => self.journal.history(at.dir, &at.name)?,
                None => Vec::new(),
            })
        };
        match which {
            Which::Version(id) => {
                let is_folder = self.is_folder(path)?;
                let (path, id) = (path.to_owned(), id.to_ascii_lowercase());
                let meant = |version: &HistoryVersion| {
                    !matches!(version.value, Value::Gone { .. })
                        && version.version.to_string().starts_with(&id)
                };
                let mut named: Vec<HistoryVersion> = history()?;
                named.retain(meant);
                match (named.pop(), named.is_empty()) {
                    // Of a file that had the folder's name before it there are some.
                    (None, _) if is_folder => Err(RestoreError::Folder { path }),
                    (None, _) => Err(RestoreError::NoVersion { path, id }),
                    (Some(_), false) => Err(RestoreError::Ambiguous { path, id }),
                    (Some(version), true) => Ok(Source::File(version.value)),
                }
            }
            Which::At(ms) => {
                let moment = Moment::At { ms: *ms };
                if self.journal.existed(moment)?
                    && let Some(source) = self.source_then(Past::new(moment), path)?
                {
                    return Ok(source);
                }
                // It may have had another name then.
                let order_ms = |version: &HistoryVersion| version.order.published.ms();
                let then = history()?.into_iter().find(|version| order_ms(version) <= *ms);
                match then.map(|version| version.value) {
                    Some(value @ (Value::File(_) | Value::Symlink(_))) => Ok(Source::File(value)),
                    _ => Err(RestoreError::NothingThen { path: path.to_owned() }),
                }
            }
        }
    }

    /// What was shown at `path` at a moment.
    fn source_then(&self, past: Past, path: &str) -> Result<Option<Source>, RestoreError> {
        let (mut dir, mut attr, mut leaf) = (DirId::ROOT, None, None);
        for name in names(path)? {
            if leaf.is_some() {
                return Ok(None);
            }
            match past.lookup(&self.journal, dir, &name)?.map(|node| node.kind) {
                None => return Ok(None),
                Some(ViewKind::Dir { dir: below, attr: set }) => (dir, attr) = (below, Some(set)),
                Some(ViewKind::File(file)) => leaf = Some(Value::File(file)),
                Some(ViewKind::Symlink(link)) => leaf = Some(Value::Symlink(link)),
            }
        }
        Ok(Some(match leaf {
            Some(value) => Source::File(value),
            None => Source::Folder(Box::new(Folder { past, dir, attr })),
        }))
    }

    fn is_folder(&self, path: &str) -> Result<bool, RestoreError> {
        match self.find(path) {
            Ok(Found::Root) => Ok(true),
            Ok(Found::Node(node)) => Ok(matches!(node.kind, ViewKind::Dir { .. })),
            Ok(Found::Nothing(at)) => {
                let once = self.journal.once_at(at.dir, &at.name)?;
                Ok(once.is_some_and(|once| matches!(once.what, Once::Dir(_))))
            }
            Err(PathError::NoDirectory(_)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The names that lead to `path`, and what stands there now; none for the drive's top.
    fn find_target(&self, path: &str) -> Result<Option<Place>, RestoreError> {
        let names = names(path)?;
        if names.is_empty() {
            return Ok(None);
        }
        let node = match self.find(path) {
            Ok(Found::Node(node)) => Some(*node),
            Ok(_) | Err(PathError::NoDirectory(_)) => None,
            Err(error) => return Err(error.into()),
        };
        Ok(Some((names, node)))
    }

    /// Makes the directories above the last of `names` that are not there; gives the register of the
    /// last.
    fn make_parents(&self, plan: &mut Plan, names: &[EntryName]) -> Result<Register, RestoreError> {
        let mut dir = DirId::ROOT;
        let (last, parents) = names.split_last().ok_or(RestoreError::IntoItself)?;
        for name in parents {
            let at = Register::new(dir, name.clone());
            let node = self.journal.lookup(dir, name)?;
            dir = match node.as_ref().map(|node| &node.kind) {
                Some(ViewKind::Dir { dir, .. }) => *dir,
                Some(_) => {
                    return Err(RestoreError::NotFolder { path: name.as_str().to_owned() });
                }
                None => self.put_dir(plan, &at, None, &journal::op::DirAttr::default())?,
            };
        }
        Ok(Register::new(dir, last.clone()))
    }

    /// What a new value at `at` replaces.
    fn replaced(
        &self,
        at: &Register,
        node: Option<&ViewNode>,
    ) -> Result<Vec<VersionId>, StateError> {
        let mut bases = self.journal.gone_heads(at.dir, &at.name)?;
        bases.extend(node.iter().flat_map(|node| &node.merged));
        bases.sort_unstable();
        bases.dedup();
        Ok(bases)
    }

    fn put_leaf(
        self: &Arc<Self>,
        plan: &mut Plan,
        at: &Register,
        node: Option<&ViewNode>,
        value: Value,
    ) -> Result<(), RestoreError> {
        match node.map(|node| &node.kind) {
            Some(ViewKind::File(file)) if Value::File(file.clone()) == value => return Ok(()),
            Some(ViewKind::Symlink(link)) if Value::Symlink(link.clone()) == value => return Ok(()),
            Some(ViewKind::Dir { dir, .. }) => self.empty_dir(plan, *dir)?,
            _ => {}
        }
        if let Value::File(file) = &value {
            plan.holds.push(self.have_again(&at.name, super::tree::content_of(file))?);
        }
        let at = spelled(at, node);
        let bases = self.replaced(&at, node)?;
        plan.report.files += 1;
        plan.ops.push(Op::Put { dir: at.dir, name: at.name, value, bases });
        Ok(())
    }

    /// Makes sure of an old content's bytes: here, on their way, or brought from whoever still has them.
    fn have_again(
        self: &Arc<Self>,
        name: &EntryName,
        content: cas::Content,
    ) -> Result<cas::Hold, RestoreError> {
        let gone = |source| RestoreError::Gone { name: name.as_str().to_owned(), source };
        match self.store.pin(content) {
            Ok(hold) => return Ok(hold),
            Err(ReadError::Missing { .. }) => {}
            Err(error) => return Err(gone(error)),
        }
        let hold = self.store.hold(content);
        if self.fetching.is_pending(&content.id) {
            return Ok(hold);
        }
        let source: Arc<dyn ChunkSource> = self.clone();
        let reader = Reader::open(content, source.clone()).map_err(gone)?;
        for id in reader.chunk_ids() {
            source.chunk(&id.map_err(gone)?).map_err(gone)?;
        }
        self.store.pin(content).map_err(gone)
    }

    /// Lets a directory stand at `at`; gives its id.
    fn put_dir(
        &self,
        plan: &mut Plan,
        at: &Register,
        node: Option<&ViewNode>,
        attr: &journal::op::DirAttr,
    ) -> Result<DirId, RestoreError> {
        if let Some(ViewKind::Dir { dir, attr: now }) = node.map(|node| &node.kind) {
            if now != attr {
                plan.report.attributes += 1;
                plan.ops.push(Op::SetDir { dir: *dir, attr: attr.clone() });
            }
            return Ok(*dir);
        }
        let at = spelled(at, node);
        let bases = self.replaced(&at, node)?;
        let dir = self.journal.new_dir_id(at.dir, &at.name, &bases)?;
        plan.report.dirs += 1;
        let (parent, name, attr) = (at.dir, at.name, attr.clone());
        plan.ops.push(Op::MkDir { parent, name, dir, attr, bases });
        Ok(dir)
    }

    /// Makes the directory `to` what `dir` was at a moment.
    fn match_dir(
        self: &Arc<Self>,
        plan: &mut Plan,
        past: &Past,
        dir: DirId,
        to: DirId,
    ) -> Result<(), RestoreError> {
        let mut open = vec![(dir, to, 0)];
        while let Some((dir, to, depth)) = open.pop() {
            if depth > DEPTH_MAX {
                return Err(PathError::TooDeep.into());
            }
            let then = past.list(&self.journal, dir)?;
            let then = then.into_iter().filter(|node| node.standing == Standing::Official);
            let mut now = self.journal.list(to, None, usize::MAX)?;
            now.retain(|node| node.standing == Standing::Official);
            for was in then {
                let same = |is: &ViewNode| is.shown.folded() == was.shown.folded();
                let is = now.iter().position(same).map(|at| now.swap_remove(at));
                let at = Register::new(to, was.shown.clone());
                match was.kind {
                    ViewKind::File(file) => {
                        self.put_leaf(plan, &at, is.as_ref(), Value::File(file))?;
                    }
                    ViewKind::Symlink(link) => {
                        self.put_leaf(plan, &at, is.as_ref(), Value::Symlink(link))?;
                    }
                    ViewKind::Dir { dir: below, attr } => {
                        let to = self.put_dir(plan, &at, is.as_ref(), &attr)?;
                        open.push((below, to, depth + 1));
                    }
                }
            }
            for later in now {
                self.remove(plan, &later)?;
            }
        }
        Ok(())
    }

    /// Removes what stands at a name, with everything in it.
    fn remove(&self, plan: &mut Plan, node: &ViewNode) -> Result<(), RestoreError> {
        if let ViewKind::Dir { dir, .. } = node.kind {
            self.empty_dir(plan, dir)?;
        }
        self.put_gone(plan, node)
    }

    fn put_gone(&self, plan: &mut Plan, node: &ViewNode) -> Result<(), RestoreError> {
        let Register { dir, name } = node.register.clone();
        let bases = self.replaced(&node.register, Some(node))?;
        plan.report.removed += 1;
        plan.ops.push(Op::Put { dir, name, value: Value::Gone { moved_to: None }, bases });
        Ok(())
    }

    /// Removes everything in a directory, the deepest first.
    fn empty_dir(&self, plan: &mut Plan, dir: DirId) -> Result<(), RestoreError> {
        let (mut open, mut found) = (vec![dir], Vec::new());
        while let Some(dir) = open.pop() {
            for node in self.journal.list(dir, None, usize::MAX)? {
                if node.standing != Standing::Official {
                    continue;
                }
                if let ViewKind::Dir { dir, .. } = node.kind {
                    open.push(dir);
                }
                found.push(node);
            }
        }
        found.iter().rev().try_for_each(|node| self.put_gone(plan, node))
    }
}

/// Why no snapshot was taken.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// There is one of that name.
    #[error("there is a snapshot {0} already")]
    Exists(String),
    /// The name could not be found in `.snapshots`.
    #[error("a snapshot cannot be called {0:?}")]
    Name(String),
    /// The name would hide a time.
    #[error(
        "a snapshot cannot be called {0}: that is a time, and times are found without snapshots"
    )]
    Time(String),
    /// The state could not be read.
    #[error("the drive's state cannot be read")]
    State(#[from] StateError),
    /// The journal did not take it.
    #[error("the snapshot was not written")]
    Write(#[from] journal::AppendError),
}

impl Drive {
    /// Gives the drive as it is now a name. Drafts are sealed by now.
    pub fn take_snapshot(&self, name: String) -> Result<(), SnapshotError> {
        let is_name = EntryName::new(&name).is_ok() && journal::op::check_label(&name).is_ok();
        if !is_name {
            return Err(SnapshotError::Name(name));
        }
        if vfs::past::time::parse(&name).is_some() {
            return Err(SnapshotError::Time(name));
        }
        // Names that are found alike are one name.
        let found = |name: &str| EntryName::new(name).map(|name| name.folded().into_owned()).ok();
        let wanted = found(&name);
        if self.journal.snapshots()?.iter().any(|snapshot| found(&snapshot.name) == wanted) {
            return Err(SnapshotError::Exists(name));
        }
        self.author(vec![Op::Snapshot { name }])?;
        Ok(())
    }
}

/// The drive's top has no name of its own.
fn shown(path: &str) -> &str {
    if path.is_empty() { "the drive" } else { path }
}

/// The register of what stands there, as it is spelled; a copy's own name where a copy stands.
fn spelled(at: &Register, node: Option<&ViewNode>) -> Register {
    match node {
        Some(node) if node.standing == Standing::Official => node.register.clone(),
        _ => at.clone(),
    }
}

fn names(path: &str) -> Result<Vec<EntryName>, PathError> {
    let parts = path.split('/').filter(|part| !part.is_empty() && *part != ".");
    let names: Result<Vec<EntryName>, PathError> = parts
        .map(|part| EntryName::new(part).map_err(|_| PathError::BadName(part.to_owned())))
        .collect();
    match names? {
        names if names.len() > DEPTH_MAX => Err(PathError::TooDeep),
        names => Ok(names),
    }
}
