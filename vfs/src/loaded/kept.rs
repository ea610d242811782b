//! What editors have loaded, in a file: an editor outlives the daemon, and saves what it loaded before.
//!
//! Leaves out: other programs, which are rarely older than the mount they write to and often write without reading.
//!
//! Invariants:
//! - the file is of use while the machine runs: processes do not survive that either, so nothing waits for the disk;
//! - a file that cannot be read says nothing: what it names is then taken to know what stands there now.

use std::fs;
use std::io;
use std::path::Path;

use journal::id::{DirId, VersionId};
use journal::name::EntryName;
use serde::{Deserialize, Serialize};

use super::Loaded;
use crate::drafts::Key;
use crate::process::{ProcessId, is_alive};

/// The file in the spool's directory.
const FILE_NAME: &str = "loaded";
/// Its layout, as the first byte.
const VERSION: u8 = 1;
/// Documents of living editors; beyond that the newest are left out.
const KEPT_MAX: usize = 4_096;

#[derive(Serialize, Deserialize)]
struct Kept {
    /// The run of the machine.
    boot: String,
    loads: Vec<Row>,
}

#[derive(Serialize, Deserialize)]
struct Row {
    tgid: u32,
    start: u64,
    dir: DirId,
    name: String,
    versions: Vec<VersionId>,
}

fn boot() -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(boot.trim().to_owned())
}

impl Loaded {
    /// Writes what living editors have loaded, when that has changed.
    pub(crate) fn keep(&mut self, dir: &Path) {
        if !std::mem::take(&mut self.changed) {
            return;
        }
        if let Err(error) = self.write(dir) {
            tracing::warn!(%error, "what editors have open cannot be noted");
        }
    }

    fn write(&mut self, dir: &Path) -> io::Result<()> {
        let Some(boot) = boot() else { return Ok(()) };
        self.editors.retain(|id| is_alive(*id));
        let of_editors =
            self.by.iter().filter(|((id, _), load)| load.document && self.editors.contains(id));
        let row = |((id, key), load): (&(ProcessId, Key), &super::Load)| Row {
            tgid: id.tgid,
            start: id.start,
            dir: key.dir(),
            name: key.folded().to_owned(),
            versions: load.versions.clone(),
        };
        let kept = Kept { boot, loads: of_editors.take(KEPT_MAX).map(row).collect() };
        let bytes = postcard::to_extend(&kept, vec![VERSION]).map_err(io::Error::other)?;
        let new = dir.join(format!("{FILE_NAME}.new"));
        fs::write(&new, bytes)?;
        fs::rename(&new, dir.join(FILE_NAME))
    }

    /// What the editors that still live had loaded when the daemon before ended.
    pub(crate) fn restored(dir: &Path) -> Self {
        let mut loaded = Self::default();
        let Ok(bytes) = fs::read(dir.join(FILE_NAME)) else { return loaded };
        let Some((&VERSION, body)) = bytes.split_first() else { return loaded };
        let Ok(kept) = postcard::from_bytes::<Kept>(body) else { return loaded };
        if boot().is_none_or(|boot| boot != kept.boot) {
            return loaded;
        }
        for row in kept.loads.into_iter().take(KEPT_MAX) {
            let id = ProcessId { tgid: row.tgid, start: row.start };
            if let Ok(name) = EntryName::new(&row.name)
                && is_alive(id)
            {
                loaded.note_editor(id, &Key::new(row.dir, &name), &row.versions);
            }
        }
        loaded.changed = false;
        loaded
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{Process, Processes, Program};
    use journal::id::EntryId;

    fn key(name: &str) -> Key {
        Key::new(DirId::ROOT, &name.parse().unwrap())
    }

    fn version(n: u32) -> VersionId {
        VersionId { entry: EntryId::from_bytes([1; 32]), index: n }
    }

    #[test]
    fn what_living_editors_have_loaded_is_known_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let me = Processes::default().of(std::process::id()).unwrap();
        let editor = Process { program: Program::Editor, ..me };
        let dead = ProcessId { start: me.id.start + 1, ..me.id };
        let mut loaded = Loaded::default();
        loaded.note(editor, &key("Scene.blend"), &[version(1)]);
        loaded.note(editor, &key("notes.txt"), &[version(2)]);
        loaded.note(Process { id: dead, ..editor }, &key("Scene.blend"), &[version(3)]);
        loaded.keep(dir.path());
        let again = Loaded::restored(dir.path());
        assert_eq!(again.get(me.id, &key("Scene.blend")), Some(&[version(1)][..]));
        assert_eq!(again.get(me.id, &key("notes.txt")), None);
        assert_eq!(again.get(dead, &key("Scene.blend")), None);
        // Later loads are written too, others do not count.
        let mut again = again;
        again.note(editor, &key("Scene.blend"), &[version(4)]);
        again.keep(dir.path());
        again.note(Process { program: Program::Other, ..me }, &key("Scene.blend"), &[version(5)]);
        again.keep(dir.path());
        let third = Loaded::restored(dir.path());
        assert_eq!(third.get(me.id, &key("Scene.blend")), Some(&[version(4)][..]));
    }

    #[test]
    fn a_file_of_another_run_of_the_machine_or_of_rubbish_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        let me = Processes::default().of(std::process::id()).unwrap();
        let mut loaded = Loaded::default();
        loaded.note(Process { program: Program::Editor, ..me }, &key("a.blend"), &[version(1)]);
        loaded.keep(dir.path());
        let good = fs::read(&path).unwrap();
        let mut other = good.clone();
        // The first letter of the boot's name.
        other[2] = if other[2] == b'z' { b'y' } else { b'z' };
        for bytes in [other, vec![], vec![VERSION], vec![9, 9, 9], good[..good.len() / 2].to_vec()]
        {
            fs::write(&path, bytes).unwrap();
            assert_eq!(Loaded::restored(dir.path()).get(me.id, &key("a.blend")), None);
        }
        fs::write(&path, good).unwrap();
        assert!(Loaded::restored(dir.path()).get(me.id, &key("a.blend")).is_some());
    }
}
