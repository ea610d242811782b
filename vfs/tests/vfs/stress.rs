//! Many programs at once: each finds what it wrote, whatever the others, the publishing thread and another member do.
//!
//! Every program has names of its own in directories all share, and knows what it left under them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cas::Store;
use journal::DirId;
use journal::op::{Content, FileValue, Op, Timestamp, Value, Xattrs};
use journal::view::ViewKind;
use rustix::fs::OFlags;
use vfs::fs::{RenameMode, Wait};
use vfs::{Config, Fs, Sealer};

use crate::drive::{Elsewhere, Hand, ME, ROOT};
use crate::files::pattern;
use crate::model::machine::quick_dir;
use crate::model::pair::{Pair, id_key};

const PROGRAMS: u64 = 4;
const STEPS: u64 = 600;
const NAMES: u64 = 6;

struct World {
    dir: tempfile::TempDir,
    store: Store,
    pair: Arc<Pair>,
    clock: Arc<Hand>,
}

impl World {
    fn start(&self) -> Fs {
        let mut config = Config::new(self.dir.path().join("spool"), 0, 0);
        config.sealer = Sealer::Caller;
        config.reserve_bytes = 0;
        config.open_publish_ms = 100;
        config.device = Some(self.pair.here.signer.device());
        let store = self.store.clone();
        let elsewhere = Arc::new(Elsewhere { store: store.clone(), others: Mutex::default() });
        let (pair, clock) = (self.pair.clone(), self.clock.clone());
        Fs::open(config, pair.clone(), pair.clone(), store, elsewhere, clock, pair).unwrap()
    }
}

/// SplitMix64: every run is its seed, but for who comes first.
struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

type Left = BTreeMap<(u64, String), Vec<u8>>;

struct Program<'a> {
    fs: &'a Fs,
    number: u64,
    dirs: [u64; 3],
    rng: Rng,
    left: Left,
}

impl Program<'_> {
    fn place(&mut self) -> (u64, String) {
        let dir = self.dirs[self.rng.below(3) as usize];
        (dir, format!("p{}-{}", self.number, self.rng.below(NAMES)))
    }

    fn data(&mut self, at: u64) -> Vec<u8> {
        let len = [5, 900, 20_000, 70_000][self.rng.below(4) as usize];
        pattern(self.rng.below(256) as u8, at, len)
    }

    fn step(&mut self) {
        let at = self.place();
        match self.rng.below(10) {
            0..4 => self.save(at),
            4..6 => self.edit(at),
            6..8 => self.rename(at),
            8 => self.unlink(at),
            _ => self.read(&at),
        }
    }

    fn save(&mut self, at: (u64, String)) {
        let flags = (OFlags::RDWR | OFlags::TRUNC).bits() as i32;
        let (entry, opened) =
            self.fs.create(ME, at.0, at.1.as_bytes(), 0o644, flags, Wait::Allowed).unwrap();
        let data = self.data(0);
        for (index, part) in data.chunks(9_000).enumerate() {
            let done = self.fs.write(opened.handle, index as u64 * 9_000, part, Wait::Allowed);
            assert_eq!(done.unwrap(), part.len());
        }
        self.close(opened.handle);
        self.fs.forget(entry.attr.ino, 1);
        self.left.insert(at, data);
    }

    fn close(&mut self, handle: u64) {
        if self.rng.below(3) == 0 {
            self.fs.fsync(handle).unwrap();
        }
        self.fs.flush(handle).unwrap();
        self.fs.release(handle).unwrap();
    }

    fn edit(&mut self, at: (u64, String)) {
        let Some(mut bytes) = self.left.remove(&at) else { return };
        let entry = self.fs.lookup(at.0, at.1.as_bytes()).unwrap();
        let flags = OFlags::RDWR.bits() as i32;
        let handle = self.fs.open(ME, entry.attr.ino, flags, Wait::Allowed).unwrap().handle;
        for _ in 0..3 {
            let offset = self.rng.below(bytes.len() as u64 + 1);
            let data = self.data(offset);
            self.fs.write(handle, offset, &data, Wait::Allowed).unwrap();
            let end = offset as usize + data.len();
            bytes.resize(bytes.len().max(end), 0);
            bytes[offset as usize..end].copy_from_slice(&data);
        }
        // Renamed while it is open, as often as not.
        let to = if self.rng.below(2) == 0 { at } else { self.moved(at) };
        same_bytes(&self.fs.read(handle, 0, 1 << 26, Wait::Allowed).unwrap(), &bytes, "while open");
        self.close(handle);
        self.fs.forget(entry.attr.ino, 1);
        self.left.insert(to, bytes);
    }

    fn moved(&mut self, from: (u64, String)) -> (u64, String) {
        let to = self.place();
        let (old, new) = ((from.0, from.1.as_bytes()), (to.0, to.1.as_bytes()));
        self.fs.rename(ME, old, new, RenameMode::Replace, Wait::Allowed).unwrap();
        self.left.remove(&to);
        to
    }

    fn rename(&mut self, from: (u64, String)) {
        let Some(bytes) = self.left.remove(&from) else { return };
        let to = self.moved(from);
        self.left.insert(to, bytes);
    }

    fn unlink(&mut self, at: (u64, String)) {
        if self.left.remove(&at).is_some() {
            self.fs.unlink(ME, at.0, at.1.as_bytes(), Wait::Allowed).unwrap();
        }
    }

    fn read(&mut self, at: &(u64, String)) {
        match (read(self.fs, at), self.left.get(at)) {
            (None, None) => {}
            (Some(found), Some(bytes)) => same_bytes(&found, bytes, "read"),
            (found, expected) => {
                panic!(
                    "{at:?}: {:?} instead of {:?}",
                    found.map(|f| f.len()),
                    expected.map(Vec::len)
                )
            }
        }
    }
}

fn same_bytes(found: &[u8], expected: &[u8], when: &str) {
    if found != expected {
        let first = found.iter().zip(expected).position(|(a, b)| a != b);
        let (len, want) = (found.len(), expected.len());
        panic!("{when}: bytes differ from {first:?} on; {len} bytes instead of {want}");
    }
}

fn read(fs: &Fs, at: &(u64, String)) -> Option<Vec<u8>> {
    let ino = fs.lookup(at.0, at.1.as_bytes()).ok()?.attr.ino;
    let handle = fs.open(ME, ino, 0, Wait::Allowed).unwrap().handle;
    let bytes = fs.read(handle, 0, 1 << 26, Wait::Allowed).unwrap();
    fs.release(handle).unwrap();
    fs.forget(ino, 1);
    Some(bytes)
}

/// The other member saves files of its own beside those of the programs here.
fn other_member(world: &World, fs: &Fs, count: u64) {
    let mut writer = world.store.writer(None);
    writer.write(format!("theirs {count}").as_bytes()).unwrap();
    let content = writer.finish().unwrap();
    let name: journal::EntryName = format!("theirs-{}", count % 5).parse().unwrap();
    let there = &world.pair.there.journal;
    let bases = there.lookup(DirId::ROOT, &name).unwrap().map(|node| node.merged);
    let value = Value::File(FileValue {
        content: Content { id: content.id, len: content.len },
        mode: 0o644,
        mtime: Timestamp::default(),
        xattrs: Xattrs::new(),
        owner: None,
    });
    let bases = bases.unwrap_or_default();
    world.pair.publish_there(vec![Op::Put { dir: DirId::ROOT, name, value, bases }]);
    let changed = world.pair.meet();
    fs.remote_changed(&changed);
    fs.next_stale(Duration::ZERO).unwrap();
}

#[test]
fn programs_at_once_find_what_they_wrote() {
    for seed in 0..4 {
        let store = Store::in_memory(id_key());
        let dir = quick_dir();
        let pair = Arc::new(Pair::new(dir.path(), store.clone()));
        let world = World { dir, store, pair, clock: Arc::default() };
        let fs = world.start();
        let dirs = [ROOT, mkdir(&fs, "d"), mkdir(&fs, "e")];
        let busy = AtomicBool::new(true);
        let rounds = AtomicU64::new(0);
        let left: Vec<Left> = std::thread::scope(|scope| {
            let programs: Vec<_> = (0..PROGRAMS)
                .map(|number| {
                    let rng = Rng(seed * 1_000 + number);
                    let mut program = Program { fs: &fs, number, dirs, rng, left: Left::new() };
                    scope.spawn(move || {
                        (0..STEPS).for_each(|_| program.step());
                        program.left
                    })
                })
                .collect();
            let publisher = scope.spawn(|| {
                while busy.load(Ordering::Acquire) {
                    world.clock.pass(7);
                    world.pair.pass(7);
                    fs.seal_due().unwrap();
                    if rounds.fetch_add(1, Ordering::Relaxed).is_multiple_of(50) {
                        fs.seal_all().unwrap();
                    }
                }
            });
            let other = scope.spawn(|| {
                let mut count = 0;
                while busy.load(Ordering::Acquire) {
                    other_member(&world, &fs, count);
                    count += 1;
                }
            });
            let left: Vec<_> = programs.into_iter().map(|program| program.join()).collect();
            busy.store(false, Ordering::Release);
            publisher.join().unwrap();
            other.join().unwrap();
            left.into_iter().map(Result::unwrap).collect()
        });
        same(&fs, &left, dirs, "seen");
        drop(fs);
        let fs = world.start();
        let dirs = [ROOT, ino(&fs, "d"), ino(&fs, "e")];
        let left = renumbered(left, dirs);
        same(&fs, &left, dirs, "after a kill");
        fs.seal_all().unwrap();
        assert_eq!(fs.drafts(), 0);
        published(&world, &left, dirs);
    }
}

fn mkdir(fs: &Fs, name: &str) -> u64 {
    fs.mkdir(ME, ROOT, name.as_bytes(), 0o755).unwrap().attr.ino
}

fn ino(fs: &Fs, name: &str) -> u64 {
    fs.lookup(ROOT, name.as_bytes()).unwrap().attr.ino
}

/// The same with the directories' new numbers; they are derived from what is the same after a start.
fn renumbered(left: Vec<Left>, dirs: [u64; 3]) -> Vec<Left> {
    for files in &left {
        assert!(files.keys().all(|(dir, _)| dirs.contains(dir)), "a directory has another number");
    }
    left
}

fn same(fs: &Fs, left: &[Left], dirs: [u64; 3], when: &str) {
    for (number, files) in left.iter().enumerate() {
        for dir in dirs {
            for name in 0..NAMES {
                let at = (dir, format!("p{number}-{name}"));
                let (found, expected) = (read(fs, &at), files.get(&at));
                assert!(found.as_ref() == expected, "{when}: {at:?} is not as it was left");
            }
        }
    }
}

fn published(world: &World, left: &[Left], dirs: [u64; 3]) {
    let journal = &world.pair.here.journal;
    let id = |name: &str| match journal.lookup(DirId::ROOT, &name.parse().unwrap()) {
        Ok(Some(view)) => match view.kind {
            ViewKind::Dir { dir, .. } => dir,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    let ids = BTreeMap::from([(dirs[0], DirId::ROOT), (dirs[1], id("d")), (dirs[2], id("e"))]);
    let mut found = Left::new();
    for (ino, dir) in &ids {
        for view in journal.list(*dir, None, usize::MAX).unwrap() {
            assert!(!view.shown.as_str().contains("conflict"), "a copy: {}", view.shown);
            if let ViewKind::File(file) = view.kind
                && !view.shown.as_str().starts_with("theirs")
            {
                let content = cas::Content { id: file.content.id, len: file.content.len };
                let mut bytes = vec![0; content.len as usize];
                world.store.read(content).unwrap().read_at(0, &mut bytes).unwrap();
                found.insert((*ino, view.shown.to_string()), bytes);
            }
        }
    }
    let expected: Left = left.iter().flat_map(|files| files.clone()).collect();
    assert!(found == expected, "what is published is not what was left");
}
