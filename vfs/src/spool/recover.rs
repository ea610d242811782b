//! Taking up what a crash left in the spool.
//!
//! Leaves out: what the drive already shows of it; the caller compares.
//!
//! Invariants:
//! - reading changes nothing: a crash during recovery leaves it to be done again;
//! - everything up to the first frame that is not whole, or whose contents are not, is taken; nothing after it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use cas::{Content, Store};
use journal::id::DirId;
use journal::op::DirAttr;

use super::format::{self, Change, DirtyFile, HeadError, Part, Turn};
use super::{LOG_NAME, NEW_LOG_NAME};
use crate::drafts::{Draft, DraftValue, Key};
use crate::error::{OpenError, at};
use crate::file::cas_content;
use crate::overlay::{Overlay, Saved};

/// How many absent chunks of one content are looked at.
const MISSING_MAX: usize = 65_536;

/// An unfinished file as the log describes it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Unfinished {
    pub(crate) file: DirtyFile,
    /// What its overlay file may not hold, older parts first.
    pub(crate) inline: Vec<Part>,
}

impl Unfinished {
    /// The file as it is described now, after what was `known` of it.
    pub(crate) fn after(known: Option<Self>, file: DirtyFile) -> Self {
        let same = known.filter(|known| known.file.overlay_number() == file.overlay_number());
        Self { file, inline: same.map(|known| known.inline).unwrap_or_default() }
    }

    /// Its overlay is durable in this way; gives what the log has to say of that.
    pub(crate) fn save(&mut self, saved: Saved) -> Change {
        let file = self.file.file;
        match saved {
            Saved::InFile => {
                self.inline.clear();
                Change::Overlaid { file }
            }
            Saved::InLog(parts) => {
                self.inline.extend(parts.iter().cloned());
                Change::Inline { file, parts }
            }
        }
    }

    /// What a log has to say of it.
    pub(crate) fn changes(&self) -> Vec<Change> {
        let mut changes = vec![Change::Dirty(self.file.clone())];
        if !self.inline.is_empty() {
            changes.push(Change::Inline { file: self.file.file, parts: self.inline.clone() });
        }
        changes
    }
}

/// What a log says.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Recovered {
    pub(crate) drafts: Vec<(Key, Draft)>,
    pub(crate) attrs: Vec<(DirId, DirAttr)>,
    pub(crate) dirty: Vec<Unfinished>,
    /// Whether whole frames were left out because contents they name are not here.
    pub(crate) cut: bool,
}

/// Reads the log of `dir`, which may have none.
pub(crate) fn read(dir: &Path, store: &Store) -> Result<Recovered, OpenError> {
    let path = dir.join(LOG_NAME);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Recovered::default()),
        Err(e) => return Err(at("read", &path)(e).into()),
    };
    let turn = match format::check_head(&bytes) {
        Ok(turn) => turn,
        Err(HeadError::Short) => return Ok(Recovered::default()),
        Err(HeadError::Foreign) => return Err(OpenError::Corrupt { path }),
        Err(HeadError::TooNew(found)) => {
            return Err(OpenError::TooNew { found, supported: format::VERSION });
        }
    };
    let frames = bytes.get(format::HEAD_LEN..).unwrap_or_default();
    Ok(replay(turn, frames, &|content, rests_on| is_whole(store, content, rests_on)))
}

/// Applies frames in order; `whole` says whether a content is here, but for chunks of another one.
pub(crate) fn replay(
    turn: Turn,
    frames: &[u8],
    whole: &dyn Fn(Content, Option<Content>) -> bool,
) -> Recovered {
    let mut rest = frames;
    let mut names: HashMap<Key, Draft> = HashMap::new();
    let mut attrs: BTreeMap<DirId, DirAttr> = BTreeMap::new();
    let mut dirty: BTreeMap<u64, Unfinished> = BTreeMap::new();
    let mut cut = false;
    while let Some(changes) = format::decode_frame(turn, &mut rest) {
        if !changes.iter().all(|change| contents_whole(change, whole)) {
            cut = true;
            break;
        }
        for change in changes {
            match change {
                Change::Name { dir, folded, draft } => {
                    let key = Key::from_parts(dir, &folded);
                    match draft {
                        Some(draft) => names.insert(key, draft),
                        None => names.remove(&key),
                    };
                }
                Change::Attr { dir, attr: Some(attr) } => {
                    attrs.insert(dir, attr);
                }
                Change::Attr { dir, attr: None } => {
                    attrs.remove(&dir);
                }
                Change::Dirty(file) => {
                    let known = dirty.remove(&file.file);
                    dirty.insert(file.file, Unfinished::after(known, file));
                }
                Change::Place { file, place } => {
                    if let Some(known) = dirty.get_mut(&file) {
                        known.file.place = place;
                    }
                }
                Change::Clean { file } => {
                    dirty.remove(&file);
                }
                Change::Inline { file, parts } => {
                    if let Some(known) = dirty.get_mut(&file) {
                        known.save(Saved::InLog(parts));
                    }
                }
                Change::Overlaid { file } => {
                    if let Some(known) = dirty.get_mut(&file) {
                        known.save(Saved::InFile);
                    }
                }
            }
        }
    }
    let mut drafts: Vec<(Key, Draft)> = names.into_iter().collect();
    drafts.sort_by_key(|(_, draft)| draft.seq);
    let dirty = dirty.into_values().filter(|known| known.file.place.is_some()).collect();
    Recovered { drafts, attrs: attrs.into_iter().collect(), dirty, cut }
}

fn contents_whole(change: &Change, whole: &dyn Fn(Content, Option<Content>) -> bool) -> bool {
    match change {
        Change::Name { draft: Some(draft), .. } => match &draft.value {
            DraftValue::File { value, rests_on } => {
                whole(cas_content(value.content), rests_on.map(cas_content))
            }
            _ => true,
        },
        // Its base was synced before it was written, or is published.
        _ => true,
    }
}

/// Whether every chunk of `content` is here, but for such as `rests_on` has too: those may be with other devices.
fn is_whole(store: &Store, content: Content, rests_on: Option<Content>) -> bool {
    if rests_on == Some(content) {
        return true;
    }
    let Ok(missing) = cas::missing_chunks(content, store, MISSING_MAX) else { return false };
    if missing.complete {
        return true;
    }
    let Some(base) = rests_on else { return false };
    let Ok(reader) = store.read(base) else { return true };
    let mut known = HashSet::new();
    for id in reader.chunk_ids() {
        match id {
            Ok(id) => known.insert(id),
            // The base itself is not here: nothing can be told, and nothing of it was lost here.
            Err(_) => return true,
        };
    }
    missing.ids.iter().all(|id| known.contains(id))
}

/// Overlay files of the directory: the numbers, and the first that is free.
pub(crate) fn overlays(dir: &Path) -> Result<(Vec<u64>, u64), OpenError> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(at("list", dir))? {
        let entry = entry.map_err(at("list", dir))?;
        numbers.extend(entry.file_name().to_str().and_then(Overlay::number_of));
    }
    let free = numbers.iter().max().map_or(1, |max| max.saturating_add(1));
    Ok((numbers, free))
}

/// Removes what no log needs: the overlays given, and a log that was never put in place.
pub(crate) fn sweep<'a>(dir: &Path, overlays: impl Iterator<Item = &'a u64>) {
    let stale = overlays.map(|number| Overlay::file_name(*number)).chain([NEW_LOG_NAME.into()]);
    for name in stale {
        let path = dir.join(name);
        if let Err(error) = std::fs::remove_file(&path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "cannot remove a stale spool file");
        }
    }
}
