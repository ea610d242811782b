//! Which version of a document a process has in front of it (DESIGN 5.3).
//!
//! A save that replaces a whole file says nothing of what it was made from: the program has read it long before, under
//! another handle. So what each process read, and what came of what it saved, is remembered by name.
//!
//! Leaves out: what of it lasts longer than the daemon (`kept`), what counts as reading ([`crate::fs`]), and what follows from a stale save (the journal).
//!
//! Invariants: at most [`LOADED_MAX`] are remembered; what ended processes had is forgotten first; a process of which nothing is
//! remembered is taken to know what stands there now.

use std::collections::{HashMap, HashSet, VecDeque};

use journal::id::VersionId;

use crate::documents::is_document_name;
use crate::drafts::Key;
use crate::process::{Process, ProcessId, Program, is_alive};

mod kept;

/// Pairs of process and name.
const LOADED_MAX: usize = 65_536;

/// What processes have loaded.
#[derive(Default)]
pub(crate) struct Loaded {
    by: HashMap<(ProcessId, Key), Load>,
    /// In the order in which they were noted, some of them noted again since.
    order: VecDeque<(ProcessId, Key, u64)>,
    turns: u64,
    /// Those of the processes that are editors.
    editors: HashSet<ProcessId>,
    /// What editors have loaded of documents has changed since it was written ([`Self::keep`]).
    changed: bool,
}

struct Load {
    versions: Vec<VersionId>,
    turn: u64,
    /// An editor's, of a document.
    document: bool,
}

impl Loaded {
    /// The process has these versions, which are one, in front of it.
    pub(crate) fn note(&mut self, process: Process, key: &Key, versions: &[VersionId]) {
        match process.program == Program::Editor && is_document_name(key.folded()) {
            true => self.note_editor(process.id, key, versions),
            false => self.note_any(process.id, key, versions, false),
        }
    }

    fn note_editor(&mut self, process: ProcessId, key: &Key, versions: &[VersionId]) {
        self.editors.insert(process);
        self.note_any(process, key, versions, true);
    }

    fn note_any(&mut self, process: ProcessId, key: &Key, versions: &[VersionId], document: bool) {
        let of = (process, key.clone());
        if self.by.get(&of).is_some_and(|load| load.versions == versions) {
            return;
        }
        self.turns += 1;
        self.changed |= document;
        self.by.insert(of, Load { versions: versions.to_vec(), turn: self.turns, document });
        self.order.push_back((process, key.clone(), self.turns));
        let by = &self.by;
        let counts = |(process, key, turn): &(ProcessId, Key, u64)| {
            by.get(&(*process, key.clone())).is_some_and(|load| load.turn == *turn)
        };
        if self.order.len() > 2 * LOADED_MAX {
            self.order.retain(counts);
        }
        if self.by.len() > LOADED_MAX {
            self.make_room();
        }
    }

    /// Forgets a quarter: first what processes had that have ended, then the oldest, and documents of editors only when
    /// nothing else is left.
    fn make_room(&mut self) {
        let mut alive: HashMap<ProcessId, bool> = HashMap::new();
        self.by
            .retain(|(process, _), _| *alive.entry(*process).or_insert_with(|| is_alive(*process)));
        let spared = self.by.values().filter(|load| load.document).count();
        let left = (LOADED_MAX - LOADED_MAX / 4).max(spared.min(LOADED_MAX));
        let mut kept = VecDeque::new();
        while let Some((process, key, turn)) = self.order.pop_front() {
            let of = (process, key);
            let Some(load) = self.by.get(&of).filter(|load| load.turn == turn) else { continue };
            if self.by.len() > left && (!load.document || spared > LOADED_MAX) {
                self.by.remove(&of);
            } else {
                kept.push_back((of.0, of.1, turn));
            }
        }
        self.order = kept;
    }

    /// What the process has loaded of this name.
    pub(crate) fn get(&self, process: ProcessId, key: &Key) -> Option<&[VersionId]> {
        self.by.get(&(process, key.clone())).map(|load| &*load.versions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Processes;
    use journal::id::{DirId, EntryId};

    fn version(n: u32) -> VersionId {
        VersionId { entry: EntryId::from_bytes([1; 32]), index: n }
    }

    fn key(n: usize) -> Key {
        Key::new(DirId::ROOT, &format!("f{n}").parse().unwrap())
    }

    fn process(id: ProcessId) -> Process {
        Process { id, program: Program::Other }
    }

    #[test]
    fn the_latest_load_counts_and_what_ended_processes_had_is_forgotten_first() {
        let me = Processes::default().of(std::process::id()).unwrap();
        let editor = Process { program: Program::Editor, ..me };
        let ended = process(ProcessId { start: me.id.start + 1, ..me.id });
        let document = Key::new(DirId::ROOT, &"scene.blend".parse().unwrap());
        let mut loaded = Loaded::default();
        loaded.note(me, &key(0), &[version(1)]);
        loaded.note(me, &key(0), &[version(2)]);
        loaded.note(editor, &document, &[version(3)]);
        assert_eq!(loaded.get(me.id, &key(0)), Some(&[version(2)][..]));
        assert_eq!(loaded.get(ended.id, &key(0)), None);
        // Many programs that read a lot and end forget nothing of one that lives.
        for n in 0..2 * LOADED_MAX {
            loaded.note(ended, &key(n), &[version(1)]);
        }
        assert!(loaded.by.len() <= LOADED_MAX && loaded.get(me.id, &key(0)).is_some());
        // One that reads a lot and lives forgets what is old, and no document of an editor.
        for n in 1..2 * LOADED_MAX {
            loaded.note(me, &key(n), &[version(1)]);
        }
        assert!(loaded.by.len() <= LOADED_MAX);
        assert_eq!(loaded.get(me.id, &key(0)), None);
        assert_eq!(loaded.get(me.id, &document), Some(&[version(3)][..]));
        // Noting one name over and over forgets no other, and takes no more room.
        let before = loaded.by.len();
        for n in 0..5 * LOADED_MAX {
            loaded.note(me, &key(2 * LOADED_MAX - 1), &[version(n as u32)]);
        }
        assert!(loaded.order.len() <= 2 * LOADED_MAX + 1 && loaded.by.len() == before);
    }
}
