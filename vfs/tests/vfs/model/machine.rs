//! The file system and its reference, and one operation on both.
//!
//! The reference cannot be folded ahead of the run, as `proptest-state-machine` would have it: what a crash keeps of what
//! was not synced, and what others make official, is seen, checked against what is allowed, and then taken over. So the
//! machine's plan only says what may be generated, and the reference lives here.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use cas::Store;
use cas::backend::mem::MemBackend;
use journal::EntryName;
use journal::op::Timestamp;
use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest};
use rustix::fs::{FallocateFlags, OFlags};
use rustix::io::Errno;
use vfs::attr::{SetAttr, SetTime};
use vfs::fs::{Wait, XattrMode};
use vfs::{Clock, Config, Fs, FsError, Sealer};

use super::operation::{Access, Company, Offset, Operation, Place, operation};
use super::pair::{Gate, Pair, Reached, When, id_key, log_end};
use super::reference::{Id, Kept, Node, Paths, ROOT, Reference, Value};
use super::{check, their};
use crate::drive::{Elsewhere, Hand, ME};
use crate::files::pattern;

/// What a run is about.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub company: Company,
    /// Whether a sync of an open file publishes it, as it does every 30 seconds.
    pub sync_publishes: bool,
}

/// What may happen in a run.
pub struct Plan;

impl ReferenceStateMachine for Plan {
    type State = Setup;
    type Transition = Operation;

    fn init_state() -> BoxedStrategy<Setup> {
        let company = prop_oneof![Just(Company::Alone), Just(Company::Together)];
        (company, prop::bool::weighted(0.3))
            .prop_map(|(company, sync_publishes)| Setup { company, sync_publishes })
            .boxed()
    }

    fn transitions(setup: &Setup) -> BoxedStrategy<Operation> {
        thread_local! {
            // To make them takes longer than an operation.
            static ALONE: BoxedStrategy<Operation> = operation(Company::Alone);
            static TOGETHER: BoxedStrategy<Operation> = operation(Company::Together);
        }
        match setup.company {
            Company::Alone => ALONE.with(Clone::clone),
            Company::Together => TOGETHER.with(Clone::clone),
        }
    }

    fn apply(setup: Setup, _: &Operation) -> Setup {
        setup
    }
}

/// An open file.
#[derive(Clone, Copy)]
pub struct Slot {
    pub file: Id,
    pub handle: u64,
    pub reads: bool,
    pub writes: bool,
}

/// An open directory, with what it listed and what is left of it.
pub struct Listing {
    handle: u64,
    next: u64,
    left: Option<Vec<String>>,
}

/// Both.
pub struct Machine {
    dir: tempfile::TempDir,
    backend: MemBackend,
    pub store: Store,
    pub pair: Arc<Pair>,
    clock: Arc<Hand>,
    fs: Option<Arc<Fs>>,
    pub setup: Setup,
    pub reference: Reference,
    pub inos: HashMap<Id, u64>,
    /// How often the kernel would hold each inode.
    told: HashMap<u64, u64>,
    pub slots: BTreeMap<u8, Slot>,
    listing: Option<Listing>,
    /// What a crash might leave, since the last sync.
    history: Vec<Paths<Kept>>,
    /// The state of `history` each path was published in, or a later one.
    published_at: BTreeMap<String, usize>,
    synced_len: u64,
    pub their: their::Work,
    flight: Option<Flight>,
    steps: usize,
}

/// A publication that is stopped in its middle.
struct Flight {
    go_on: Sender<()>,
    thread: JoinHandle<()>,
    /// What was closed when it began.
    logged: Paths<Value>,
}

impl StateMachineTest for Machine {
    type SystemUnderTest = Self;
    type Reference = Plan;

    fn init_test(setup: &Setup) -> Self {
        Self::new(*setup)
    }

    fn apply(mut machine: Self, _: &Setup, operation: Operation) -> Self {
        machine.step(operation);
        machine
    }

    fn teardown(mut machine: Self, _: Setup) {
        machine.end();
    }
}

/// A directory where nothing waits for a disk, if there is one.
pub fn quick_dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// A name as names are compared.
pub fn folded(name: &str) -> String {
    name.parse::<EntryName>().unwrap().folded().into_owned()
}

/// Both must answer alike; gives the answers when they are good.
#[track_caller]
fn agree<T, U>(got: Result<T, FsError>, want: Result<U, Errno>) -> Option<(T, U)> {
    match (got, want) {
        (Ok(got), Ok(want)) => Some((got, want)),
        (Err(got), Err(want)) => {
            assert_eq!(vfs::errno::errno(&got), want.raw_os_error(), "{got} instead of {want}");
            None
        }
        (Ok(_), Err(want)) => panic!("it worked, but {want} was due"),
        (Err(got), Ok(_)) => panic!("{got:?}, but it should have worked"),
    }
}

impl Machine {
    pub fn new(setup: Setup) -> Self {
        let (dir, backend) = (quick_dir(), MemBackend::new());
        let store = Store::on_backend(Arc::new(backend.clone()), id_key()).unwrap();
        let pair = Arc::new(Pair::new(dir.path(), store.clone()));
        let mut machine = Self {
            dir,
            backend,
            store,
            pair,
            clock: Arc::default(),
            fs: None,
            setup,
            reference: Reference::new(setup.sync_publishes),
            inos: HashMap::new(),
            told: HashMap::new(),
            slots: BTreeMap::new(),
            listing: None,
            history: Vec::new(),
            published_at: BTreeMap::new(),
            synced_len: 0,
            their: their::Work::default(),
            flight: None,
            steps: 0,
        };
        machine.start();
        machine.begun();
        machine.reference.now = machine.clock.wall();
        machine
    }

    pub fn fs(&self) -> &Fs {
        self.fs.as_ref().unwrap()
    }

    fn spool(&self) -> PathBuf {
        self.dir.path().join("spool")
    }

    fn log_len(&self) -> u64 {
        log_end(&self.spool().join("log"))
    }

    fn start(&mut self) {
        let mut config = Config::new(self.spool(), 0, 0);
        config.sealer = Sealer::Caller;
        config.reserve_bytes = 0;
        config.device = Some(self.pair.here.signer.device());
        config.open_publish_ms = if self.setup.sync_publishes { 0 } else { u64::MAX };
        let store = self.store.clone();
        let elsewhere = Elsewhere { store: store.clone(), others: Mutex::default() };
        let (pair, clock) = (self.pair.clone(), self.clock.clone());
        let opened =
            Fs::open(config, pair.clone(), pair.clone(), store, Arc::new(elsewhere), clock, pair);
        self.fs = Some(Arc::new(opened.unwrap()));
        self.inos = HashMap::from([(ROOT, crate::drive::ROOT)]);
        self.told.clear();
        self.slots.clear();
        self.listing = None;
    }

    /// Notes that the kernel holds an inode once more.
    pub fn told(&mut self, ino: u64) -> u64 {
        *self.told.entry(ino).or_default() += 1;
        ino
    }

    /// One operation on both, and a look at everything.
    pub fn step(&mut self, operation: Operation) {
        let lands = !operation.needs_no_publishing() || self.moves_a_dir(operation);
        if lands && let Some(flight) = self.flight.take() {
            self.land(flight);
        }
        let before = self.reference.logged().clone();
        let overtaken = self.slots.values().any(|slot| self.reference.is_overtaken(slot.file));
        self.act(operation);
        self.steps += 1;
        let sealed = check::published(self, &before, operation);
        // Where a name is given up, or a removed directory made again, another's work may come to light.
        let may_differ = matches!(
            operation,
            Operation::Sync
                | Operation::Rename { .. }
                | Operation::Unlink { .. }
                | Operation::Rmdir { .. }
                | Operation::Mkdir { .. }
        );
        if self.their.arrived && (overtaken || sealed || may_differ) {
            their::take_over(self);
        }
        if sealed {
            self.log_was_durable();
        }
        check::visible(self, self.steps.is_multiple_of(4));
        self.synced_len = self.synced_len.min(self.log_len());
        self.history.push(self.reference.kept());
    }

    fn moves_a_dir(&self, operation: Operation) -> bool {
        let Operation::Rename { from, .. } = operation else { return false };
        self.node(from).is_some_and(|(id, _)| matches!(self.reference.nodes[&id], Node::Dir(_)))
    }

    /// A publication begins and stops in its middle, if there is anything to publish.
    fn publish(&mut self, when: When) {
        // A change beside another's work has to be published at once and would wait for ever.
        if self.their.arrived {
            return;
        }
        let ((arrived, arrival), (go_on, going_on)) = (channel(), channel());
        self.pair.set_gate(Some(Gate { when, arrived: arrived.clone(), go_on: going_on }));
        let fs = self.fs.clone().unwrap();
        let thread = std::thread::spawn(move || {
            fs.seal_due().unwrap();
            drop(fs);
            // Nobody listens when the gate was passed.
            let _ = arrived.send(Reached::End);
        });
        let reached = arrival.recv().unwrap();
        self.pair.set_gate(None);
        if reached == Reached::End {
            thread.join().unwrap();
            return;
        }
        self.log_was_durable();
        let logged = self.reference.logged().clone();
        self.flight = Some(Flight { go_on, thread, logged });
    }

    /// Lets a stopped publication go on to its end.
    fn land(&mut self, flight: Flight) {
        // It is over when it had nothing to publish.
        let _ = flight.go_on.send(());
        flight.thread.join().unwrap();
        check::published(self, &flight.logged, Operation::Seal);
        check::visible(self, true);
    }

    /// Before a publication everything in the log is made durable.
    fn log_was_durable(&mut self) {
        self.synced_len = self.synced_len.max(self.pair.log_len());
        self.history.drain(..self.history.len().saturating_sub(1));
        self.published_at.clear();
    }

    /// The last look: closed, published, taken to the other member, nothing is lost.
    pub fn end(&mut self) {
        for slot in self.slots.keys().copied().collect::<Vec<_>>() {
            self.step(Operation::Release { slot });
        }
        self.step(Operation::Sync);
        self.step(Operation::SealAll);
        self.step(Operation::Settle);
        // The next publication finds nothing that has to stay in the spool.
        self.step(Operation::Mkdir { at: Place { dir: "", name: "end" } });
        self.step(Operation::Settle);
        let left = std::fs::read_dir(self.spool()).unwrap().count();
        assert_eq!(left, 1, "the spool holds more than a log");
        assert!(self.log_len() <= 16, "the log holds more than its head");
        self.step(Operation::Kill);
        self.step(Operation::Settle);
        their::take_over(self);
    }

    pub fn published(&mut self, path: String) {
        self.published_at.insert(path, self.history.len().saturating_sub(1));
    }

    /// A directory both know, and its inode.
    fn dir(&self, path: &str) -> Option<(Id, u64)> {
        let id = self.reference.find_dir(path)?;
        Some((id, self.inos[&id]))
    }

    /// What stands at a place, and its inode.
    fn node(&self, at: Place) -> Option<(Id, u64)> {
        let (dir, _) = self.dir(at.dir)?;
        let id = self.reference.child(dir, &folded(at.name))?;
        Some((id, self.inos[&id]))
    }

    fn act(&mut self, operation: Operation) {
        use Operation as Do;
        match operation {
            Do::Create { slot, at, exclusive } => self.create(slot, at, exclusive),
            Do::Open { slot, at, access } => self.open(slot, at, access),
            Do::Write { slot, at, len, fill } => self.write(slot, at, len, fill),
            Do::Read { slot, at, len } => self.read(slot, at, len),
            Do::Truncate { slot, at } => self.truncate(slot, at),
            Do::SetLen { at, len } => self.set_len(at, len),
            Do::Reserve { slot, at, len, keep } => {
                let mode = if keep { FallocateFlags::KEEP_SIZE } else { FallocateFlags::empty() };
                self.fallocate(slot, at, len, mode);
            }
            Do::Zero { slot, at, len, keep } => {
                let mut mode = FallocateFlags::ZERO_RANGE;
                mode.set(FallocateFlags::KEEP_SIZE, keep);
                self.fallocate(slot, at, len, mode);
            }
            Do::Punch { slot, at, len } => {
                let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                self.fallocate(slot, at, len, mode);
            }
            Do::Seek { slot, at, data } => self.seek(slot, at, data),
            Do::Flush { slot } => self.flush(slot),
            Do::Release { slot } => self.release(slot),
            Do::Fsync { slot } => self.fsync(slot),
            Do::Fsyncdir => {
                self.fs().fsyncdir().unwrap();
                self.synced();
            }
            Do::Rename { from, to, mode } => {
                let (Some(old), Some(new)) = (self.dir(from.dir), self.dir(to.dir)) else { return };
                let ends = [(old.1, from.name.as_bytes()), (new.1, to.name.as_bytes())];
                let got = self.fs().rename(ME, ends[0], ends[1], mode, Wait::Allowed);
                let names = [from.name, to.name].map(folded);
                for (dir, name) in [(old.0, &names[0]), (new.0, &names[1])] {
                    let id = self.reference.child(dir, name);
                    if let Some(Node::File(file)) = id.map(|id| &self.reference.nodes[&id]) {
                        self.their.moved(file.bytes.clone());
                    }
                }
                // Another's work stands there by now: nothing is done, and what stands there is taken over.
                if self.their.arrived && matches!(got, Err(FsError::Stale)) {
                    return;
                }
                let ends = [(old.0, names[0].as_str()), (new.0, names[1].as_str())];
                agree(got, self.reference.rename(ends[0], ends[1], mode));
            }
            Do::Unlink { at } => {
                let Some((dir, ino)) = self.dir(at.dir) else { return };
                let got = self.fs().unlink(ME, ino, at.name.as_bytes(), Wait::Allowed);
                agree(got, self.reference.unlink(dir, &folded(at.name)));
            }
            Do::Mkdir { at } => {
                let Some((dir, ino)) = self.dir(at.dir) else { return };
                let got = self.fs().mkdir(ME, ino, at.name.as_bytes(), 0o750);
                let want = self.reference.mkdir(dir, &folded(at.name), 0o750);
                if let Some((entry, id)) = agree(got, want) {
                    let ino = self.told(entry.attr.ino);
                    self.inos.insert(id, ino);
                }
            }
            Do::Rmdir { at } => {
                let Some((dir, ino)) = self.dir(at.dir) else { return };
                let got = self.fs().rmdir(ME, ino, at.name.as_bytes());
                agree(got, self.reference.rmdir(dir, &folded(at.name)));
            }
            Do::Symlink { at, len } => {
                let Some((dir, ino)) = self.dir(at.dir) else { return };
                let target = vec![b't'; usize::from(len)];
                let got = self.fs().symlink(ME, ino, at.name.as_bytes(), &target);
                let want = self.reference.symlink(dir, &folded(at.name), &target);
                if let Some((entry, id)) = agree(got, want) {
                    let ino = self.told(entry.attr.ino);
                    self.inos.insert(id, ino);
                }
            }
            Do::Chmod { at, mode } => {
                let Some((id, ino)) = self.node(at) else { return };
                let set = SetAttr { mode: Some(mode), ..SetAttr::default() };
                self.fs().setattr(ME, ino, None, set).unwrap();
                self.reference.chmod(id, mode);
            }
            Do::SetTime { at, secs } => {
                let Some((id, ino)) = self.node(at) else { return };
                let time = Timestamp { secs: secs.into(), nanos: 5 };
                let set = SetAttr { mtime: Some(SetTime::At(time)), ..SetAttr::default() };
                self.fs().setattr(ME, ino, None, set).unwrap();
                self.reference.set_time(id, time);
            }
            Do::SetXattr { at, name, value, mode } => {
                let Some((id, ino)) = self.node(at) else { return };
                let name = format!("user.{name}").into_bytes();
                let mode =
                    [XattrMode::Any, XattrMode::Create, XattrMode::Replace][usize::from(mode)];
                let got = self.fs().setxattr(ino, &name, &[value], mode);
                agree(got, self.reference.set_xattr(id, &name, &[value], mode));
            }
            Do::RemoveXattr { at, name } => {
                let Some((id, ino)) = self.node(at) else { return };
                let name = format!("user.{name}").into_bytes();
                let got = self.fs().removexattr(ino, &name);
                agree(got, self.reference.remove_xattr(id, &name));
            }
            Do::OpenDir { dir } => self.open_dir(dir),
            Do::ReadDir { count } => self.read_dir(count),
            Do::Forget => self.forget(),
            Do::Publish { stop } => self.publish(stop),
            Do::Seal => {
                self.fs().seal_due().unwrap();
            }
            Do::Pass { ms } => self.pass(ms, 20),
            Do::Settle => {
                self.pass(20_000, 100);
                self.catch_up();
                check::settled(self);
            }
            Do::SealAll => {
                self.fs().seal_all().unwrap();
                self.reference.publish_all();
                self.catch_up();
                check::all_published(self);
            }
            Do::Remount => self.remount(),
            Do::Kill => self.kill(),
            Do::PowerLoss { kept } => self.lose_power(kept),
            Do::Their(theirs) => their::act(self, theirs),
            Do::Sync => their::meet(self),
        }
    }

    fn create(&mut self, slot: u8, at: Place, exclusive: bool) {
        self.release(slot);
        let Some((dir, ino)) = self.dir(at.dir) else { return };
        let mut flags = OFlags::RDWR;
        flags.set(OFlags::EXCL, exclusive);
        let got = self.fs().create(
            ME,
            ino,
            at.name.as_bytes(),
            0o640,
            flags.bits() as i32,
            Wait::Allowed,
        );
        let want = self.reference.create(dir, &folded(at.name), 0o640, exclusive);
        if let Some(((entry, opened), id)) = agree(got, want) {
            let ino = self.told(entry.attr.ino);
            self.inos.insert(id, ino);
            self.reference.open(id, true, false);
            let (file, handle) = (id, opened.handle);
            self.slots.insert(slot, Slot { file, handle, reads: true, writes: true });
        }
    }

    fn open(&mut self, slot: u8, at: Place, access: Access) {
        self.release(slot);
        let Some((id, ino)) = self.node(at) else { return };
        let flags = match access {
            Access::Read => OFlags::RDONLY,
            Access::Write => OFlags::WRONLY,
            Access::Both => OFlags::RDWR,
            Access::Anew => OFlags::RDWR | OFlags::TRUNC,
        };
        let want = match &self.reference.nodes[&id] {
            Node::File(_) => Ok(()),
            Node::Dir(_) => Err(Errno::ISDIR),
            Node::Link(_) => Err(Errno::INVAL),
        };
        let got = self.fs().open(ME, ino, flags.bits() as i32, Wait::Allowed);
        if let Some((opened, ())) = agree(got, want) {
            let writes = access != Access::Read;
            self.reference.open(id, writes, access == Access::Anew);
            let reads = access != Access::Write;
            self.slots.insert(slot, Slot { file: id, handle: opened.handle, reads, writes });
        }
    }

    fn writer(&self, slot: u8) -> Option<(Slot, usize)> {
        let slot = *self.slots.get(&slot).filter(|slot| slot.writes)?;
        Some((slot, self.reference.file(slot.file).bytes.len()))
    }

    fn write(&mut self, slot: u8, at: Offset, len: u16, fill: u8) {
        let Some((slot, file_len)) = self.writer(slot) else { return };
        let at = at.of(file_len);
        let data = pattern(fill, at, len.into());
        let wrote = self.fs().write(slot.handle, at, &data, Wait::Allowed).unwrap();
        assert_eq!(wrote, data.len());
        self.reference.write(slot.file, at, &data);
    }

    fn read(&mut self, slot: u8, at: Offset, len: u16) {
        let Some(slot) = self.slots.get(&slot).filter(|slot| slot.reads) else { return };
        let bytes = &self.reference.file(slot.file).bytes;
        let at = at.of(bytes.len());
        let (from, end) = (at as usize, bytes.len().min(at as usize + usize::from(len)));
        let got = self.fs().read(slot.handle, at, len.into(), Wait::Allowed).unwrap();
        assert!(got == bytes.get(from..end).unwrap_or_default(), "other bytes were read");
    }

    fn truncate(&mut self, slot: u8, at: Offset) {
        let Some((slot, file_len)) = self.writer(slot) else { return };
        let len = at.of(file_len);
        let set = SetAttr { len: Some(len), ..SetAttr::default() };
        let ino = self.inos[&slot.file];
        self.fs().setattr(ME, ino, Some(slot.handle), set).unwrap();
        self.reference.set_len(slot.file, len);
    }

    fn set_len(&mut self, at: Place, len: u16) {
        let Some((id, ino)) = self.node(at) else { return };
        if matches!(self.reference.nodes[&id], Node::Link(_)) {
            return;
        }
        let set = SetAttr { len: Some(len.into()), ..SetAttr::default() };
        let is_dir = matches!(self.reference.nodes[&id], Node::Dir(_));
        let want = if is_dir { Err(Errno::ISDIR) } else { Ok(()) };
        if agree(self.fs().setattr(ME, ino, None, set), want).is_some() {
            self.reference.set_len(id, len.into());
        }
    }

    fn fallocate(&mut self, slot: u8, at: Offset, len: u16, mode: FallocateFlags) {
        let Some(slot) = self.slots.get(&slot).copied() else { return };
        let file_len = self.reference.file(slot.file).bytes.len();
        let at = at.of(file_len);
        let want = if slot.writes { Ok(()) } else { Err(Errno::BADF) };
        let got = self.fs().fallocate(slot.handle, mode.bits(), at, len.into());
        if agree(got, want).is_none() || mode == FallocateFlags::KEEP_SIZE {
            return;
        }
        if mode.is_empty() {
            let end = (at as usize + usize::from(len)).max(file_len);
            self.reference.change_bytes(slot.file, |bytes| bytes.resize(end, 0));
        } else {
            let keep = mode.contains(FallocateFlags::KEEP_SIZE);
            self.reference.zero(slot.file, at, len.into(), keep);
        }
    }

    fn seek(&mut self, slot: u8, at: Offset, data: bool) {
        let Some(slot) = self.slots.get(&slot) else { return };
        let bytes = &self.reference.file(slot.file).bytes;
        let at = at.of(bytes.len());
        let rest = bytes.get(at as usize..).unwrap_or_default();
        match self.fs().lseek(slot.handle, at, data) {
            Ok(found) => {
                assert!(found >= at && found <= bytes.len() as u64, "{found} found from {at}");
                let passed = &bytes[at as usize..found as usize];
                if data {
                    assert!(passed.iter().all(|byte| *byte == 0), "data was passed as a hole");
                } else if found < bytes.len() as u64 {
                    assert_eq!(bytes[found as usize], 0, "data is said to be a hole");
                }
            }
            Err(FsError::NoOffset) if data => {
                assert!(rest.iter().all(|byte| *byte == 0), "data was passed as a hole");
            }
            Err(error) => assert!(rest.is_empty(), "{error}"),
        }
    }

    fn flush(&mut self, slot: u8) {
        let Some(slot) = self.slots.get(&slot).copied() else { return };
        self.fs().flush(slot.handle).unwrap();
        self.reference.flush(slot.file, slot.writes);
    }

    fn release(&mut self, slot: u8) {
        self.flush(slot);
        let Some(slot) = self.slots.remove(&slot) else { return };
        self.fs().release(slot.handle).unwrap();
        self.reference.release(slot.file, slot.writes);
    }

    fn close_all(&mut self) {
        for slot in self.slots.keys().copied().collect::<Vec<_>>() {
            self.release(slot);
        }
    }

    fn fsync(&mut self, slot: u8) {
        let Some(slot) = self.slots.get(&slot).copied() else { return };
        self.fs().fsync(slot.handle).unwrap();
        self.reference.sync(slot.file);
        self.synced();
    }

    /// What is there now no crash may take away.
    fn synced(&mut self) {
        self.synced_len = self.log_len();
        self.history = vec![self.reference.kept()];
        self.published_at.clear();
    }

    fn open_dir(&mut self, dir: &str) {
        let Some((_, ino)) = self.dir(dir) else { return };
        if let Some(listing) = self.listing.take() {
            self.fs().releasedir(listing.handle);
        }
        let handle = self.fs().opendir(ME, ino).unwrap();
        let names = check::list(self, ino);
        let id = self.reference.find_dir(dir).unwrap();
        let want: Vec<String> = self.reference.dir(id).names.keys().cloned().collect();
        assert_eq!(names, want, "listing of {dir:?}");
        self.listing = Some(Listing { handle, next: 0, left: Some(want) });
        self.read_dir(2);
    }

    /// Reads on in a listing: what it had at its beginning, whatever has changed since.
    fn read_dir(&mut self, count: usize) {
        let Some(mut listing) = self.listing.take() else { return };
        let mut names = Vec::new();
        self.fs()
            .readdir(listing.handle, listing.next, |entry| {
                if names.len() == count {
                    return false;
                }
                names.push(entry.name.to_string());
                listing.next = entry.next;
                true
            })
            .unwrap();
        let end = names.len() < count;
        let mut left = listing.left.take().unwrap_or_default();
        for name in names.iter().filter(|name| !matches!(name.as_str(), "." | "..")) {
            let at = left.iter().position(|left| *left == folded(name));
            left.remove(at.unwrap_or_else(|| panic!("{name:?} twice, or never there")));
        }
        if end {
            assert_eq!(left, [""; 0], "names were left out of a listing");
            self.fs().releasedir(listing.handle);
        } else {
            self.listing = Some(Listing { left: Some(left), ..listing });
        }
    }

    /// The kernel is short of memory and lets go of all inodes.
    fn forget(&mut self) {
        for (ino, times) in std::mem::take(&mut self.told) {
            self.fs().forget(ino, times);
        }
        let open: Vec<Id> = self.slots.values().map(|slot| slot.file).collect();
        let reference = &self.reference;
        self.inos.retain(|id, _| {
            let dirty = matches!(&reference.nodes[id], Node::File(file) if file.dirty && file.place.is_some());
            *id == ROOT || open.contains(id) || dirty
        });
    }

    fn pass(&mut self, ms: u64, steps: u64) {
        for _ in 0..steps {
            let step_ms = (ms / steps).max(1);
            self.clock.pass(step_ms);
            self.pair.pass(step_ms);
            self.fs().seal_due().unwrap();
        }
        self.reference.now = self.clock.wall();
    }

    fn remount(&mut self) {
        self.close_all();
        self.fs().seal_all().unwrap();
        self.catch_up();
        check::all_published(self);
        drop(self.fs.take());
        self.start();
        assert_eq!(self.fs().drafts(), 0, "drafts are left after an unmount");
        let found = check::walk(self);
        self.take_over(found);
    }

    /// What is found becomes what is expected.
    pub fn take_over(&mut self, found: Paths<check::Found>) {
        self.their.sees(&found);
        let values =
            found.iter().map(|(at, found)| (at.clone(), (found.value.clone(), found.mtime)));
        let ids = self.reference.replace(&values.collect());
        self.inos = HashMap::from([(ROOT, crate::drive::ROOT)]);
        self.inos.extend(ids.iter().map(|(path, id)| (*id, found[path].ino)));
        self.reference.now = self.clock.wall();
    }

    fn catch_up(&mut self) {
        if self.their.arrived {
            their::take_over(self);
        }
    }

    /// Takes over what is seen, and keeps what is still the same inode.
    pub fn adopt(&mut self, found: Paths<check::Found>) {
        // Numbers of what is removed and closed may be given anew.
        let mut known_ids = self.reference.named();
        known_ids.extend(self.slots.values().map(|slot| slot.file));
        let known_ids = known_ids.iter().filter_map(|id| Some((*self.inos.get(id)?, *id)));
        let by_ino: HashMap<u64, Id> = known_ids.collect();
        let mut known = Paths::new();
        for (path, found) in &found {
            let Some(id) = by_ino.get(&found.ino) else { continue };
            match (&self.reference.nodes[id], &found.value) {
                (Node::File(file), Value::File { bytes, .. }) => {
                    assert!(file.bytes == **bytes, "{path:?} is the same inode with other bytes");
                }
                (Node::Dir(_), Value::Dir { .. }) | (Node::Link(_), Value::Link(_)) => {}
                (was, now) => panic!("{path:?}: an inode was {was:?} and is {now:?}"),
            }
            known.insert(path.clone(), *id);
        }
        let values =
            found.iter().map(|(at, found)| (at.clone(), (found.value.clone(), found.mtime)));
        let ids = self.reference.adopt(&values.collect(), &known);
        self.inos.extend(ids.iter().map(|(path, id)| (*id, found[path].ino)));
        let reference = &self.reference;
        self.inos.retain(|id, _| reference.nodes.contains_key(id));
    }

    /// The daemon is killed: what it had told the operating system is there.
    fn kill(&mut self) {
        drop(self.fs.take());
        self.start();
        let found = check::walk(self);
        check::kept(self, &[self.reference.kept()], &found);
        self.take_over(found);
        self.begun();
    }

    /// The power goes: what was not synced is there in part.
    fn lose_power(&mut self, kept: u8) {
        drop(self.fs.take());
        let len = self.log_len();
        self.synced_len = self.synced_len.min(len);
        let left = self.synced_len + (len - self.synced_len) * u64::from(kept) / 255;
        let log = std::fs::File::options().write(true).open(self.spool().join("log")).unwrap();
        log.set_len(left).unwrap();
        let tail = if kept.is_multiple_of(2) { 0 } else { usize::MAX };
        self.backend = self.backend.crash(tail);
        self.store = Store::on_backend(Arc::new(self.backend.clone()), id_key()).unwrap();
        *self.pair.store.lock().unwrap() = self.store.clone();
        self.start();
        let found = check::walk(self);
        let mut history = std::mem::take(&mut self.history);
        history.push(self.reference.kept());
        check::kept(self, &history, &found);
        check::no_older_than_published(self, &history, &self.published_at, &found);
        self.take_over(found);
        self.begun();
    }

    /// A start makes what it found durable.
    fn begun(&mut self) {
        self.synced();
    }
}

/// Whether a value is a directory.
pub fn is_dir(value: &Value) -> bool {
    matches!(value, Value::Dir { .. })
}
