//! A drive on disk, entries of another device, and news as the network brings them.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use journal::op::{FileValue, Timestamp, Xattrs};
use journal::view::ViewKind;
use journal::{DirId, EntryName, GenesisSpec, Journal, Signer, VersionId};
use net::{ChunkHost, Event, JournalHost};
use vfs::Tree as _;

use super::*;
use crate::clock::SystemClock;

const ID_KEY: [u8; 32] = [7; 32];

/// A drive, and the journal of the member that writes in it.
struct World {
    dir: tempfile::TempDir,
    drive: Arc<Drive>,
    other: Journal,
    other_signer: Signer,
}

fn signer(n: u8) -> Signer {
    Signer::derive(&[n; 32], &[n; 32])
}

fn bytes(seed: u8) -> Vec<u8> {
    let mut reader = blake3::Hasher::new().update(&[seed]).finalize_xof();
    let mut bytes = vec![0; 3_000];
    reader.fill(&mut bytes);
    bytes
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let spec = GenesisSpec {
            drive_name: "drive".into(),
            device_name: "first".into(),
            id_key: cas::id::IdKey::from_bytes(ID_KEY),
            posix_owners: false,
        };
        let (other_signer, now) = (signer(1), SystemClock.now());
        let other = Journal::create(&dir.path().join("other"), &other_signer, spec, now).unwrap();
        let journal = dir.path().join("journal");
        let journal = Journal::adopt(&journal, &other.drive().genesis).unwrap();
        let drive = Self::drive_of(dir.path(), journal, Opened::Clean);
        Self { dir, drive, other, other_signer }
    }

    fn drive_of(dir: &Path, journal: Journal, opened: Opened) -> Arc<Drive> {
        let store = Store::open(cas::store::Config {
            dir: dir.join("cas"),
            id_key: cas::id::IdKey::from_bytes(ID_KEY),
            reserve_bytes: 0,
            workers: 1,
        });
        let store = store.unwrap();
        let fetching = Fetching::load(dir, Keep::All, opened, &store);
        Drive::new(journal, store, signer(2), Path::new("/nowhere"), None, fetching)
    }

    fn reopen(self, opened: Opened) -> Self {
        let Self { dir, drive, other, other_signer } = self;
        drive.close().unwrap();
        drop(drive);
        let journal = Journal::open(&dir.path().join("journal"), opened).unwrap();
        let drive = Self::drive_of(dir.path(), journal, opened);
        Self { dir, drive, other, other_signer }
    }

    fn write(&self, bytes: &[u8]) -> Content {
        let mut writer = self.drive.store.writer(Some(bytes.len() as u64));
        writer.write(bytes).unwrap();
        writer.finish().unwrap()
    }

    /// The other device saves `content` under `name`, over `bases`, and the entry comes here.
    fn receive(&self, content: Content, bases: &[VersionId]) -> VersionId {
        let value = Value::File(FileValue {
            content: journal::op::Content { id: content.id, len: content.len },
            mode: 0o644,
            mtime: Timestamp::default(),
            xattrs: Xattrs::new(),
            owner: None,
        });
        let put = Op::Put { dir: DirId::ROOT, name: name(), value, bases: bases.to_vec() };
        let authored = self.other.author(&self.other_signer, vec![put], SystemClock.now()).unwrap();
        let entry = authored.bytes.clone();
        let received = JournalHost::receive(&*self.drive, self.other_signer.device(), &[entry]);
        assert_eq!(received.unwrap().applied.len(), 1);
        authored.versions[0]
    }

    fn shown(&self) -> ContentId {
        match self.drive.lookup(DirId::ROOT, &name()).unwrap().unwrap().kind {
            ViewKind::File(file) => file.content.id,
            kind => panic!("{kind:?}"),
        }
    }

    /// Flips a bit of the stored bytes.
    fn spoil(&self, bytes: &[u8]) {
        let needle = &bytes[1_000..1_100];
        let mut hits = 0;
        for pack in std::fs::read_dir(self.dir.path().join("cas/packs")).unwrap() {
            let pack: PathBuf = pack.unwrap().path();
            let Some(content) = pack.is_file().then(|| std::fs::read(&pack).unwrap()) else {
                continue;
            };
            let Some(at) = content.windows(needle.len()).position(|w| w == needle) else {
                continue;
            };
            let file = std::fs::OpenOptions::new().write(true).open(&pack).unwrap();
            file.write_all_at(&[needle[0] ^ 1], at as u64).unwrap();
            hits += 1;
        }
        assert!(hits > 0, "the bytes stand in no pack");
    }
}

fn name() -> EntryName {
    EntryName::new("film").unwrap()
}

#[test]
fn while_nobody_who_is_connected_has_the_newest_bytes_the_older_version_is_shown() {
    let world = World::new();
    let old = world.write(&bytes(1));
    let version = world.receive(old, &[]);
    let new = Content { id: ContentId::chunk(ChunkId::from_bytes([3; 32])), len: 10 };
    world.receive(new, &[version]);
    assert_eq!(world.shown(), old.id, "nobody is connected");
    let friend = signer(3).device();
    world.drive.take_news([Event::PeerUp(friend)]);
    assert_eq!(world.shown(), new.id, "the friend may have it");
    world.drive.take_news([Event::ContentOutOfReach(new)]);
    assert_eq!(world.shown(), old.id, "the friend lacks it");
    world.drive.take_news([Event::ContentWithinReach(new)]);
    assert_eq!(world.shown(), new.id, "the friend has news");
    world.drive.take_news([Event::ContentOutOfReach(new), Event::ContentArrived(new)]);
    assert_eq!(world.shown(), new.id, "it is here");
}

#[test]
fn a_name_that_was_looked_at_is_shown_anew_although_only_the_walk_found_its_content() {
    let world = World::new();
    let lacking = Content { id: ContentId::chunk(ChunkId::from_bytes([3; 32])), len: 10 };
    world.receive(lacking, &[]);
    let world = world.reopen(Opened::Clean);
    world.drive.walk_contents();
    assert!(world.drive.fetching.is_pending(&lacking.id));
    world.shown();
    let names = world.drive.content_arrived(&lacking);
    assert_eq!(names, [Register { dir: DirId::ROOT, name: name() }]);
}

#[test]
fn damage_found_while_serving_takes_back_what_is_held_until_it_is_healed() {
    let world = World::new();
    let content = world.write(&bytes(1));
    world.receive(content, &[]);
    let calls = world.drive.walks();
    world.drive.walk_contents();
    let frontier = world.drive.journal.frontier();
    assert_eq!(world.drive.held(), Some(frontier.clone()));
    let chunk = content.id.root();
    let sound = world.drive.store.get_stored(&chunk).unwrap();

    world.spoil(&bytes(1));
    assert!(ChunkHost::get_stored(&*world.drive, &chunk).is_none());
    assert_eq!(world.drive.held(), None, "damage does not end a claim");
    calls.try_recv().expect("nobody looks what is damaged");
    world.drive.walk_contents();
    assert!(world.drive.fetching.is_pending(&content.id), "what is damaged is not fetched again");
    assert_eq!(world.drive.held(), None);

    world.drive.put_stored(chunk, sound).unwrap();
    world.drive.take_news([Event::ContentArrived(content)]);
    assert_eq!(world.drive.held(), Some(frontier));
}

#[test]
fn what_was_held_before_is_announced_only_when_it_can_still_be_so() {
    let world = World::new();
    let content = world.write(&bytes(1));
    world.receive(content, &[]);
    world.drive.walk_contents();
    let held = world.drive.held();
    assert!(held.is_some());
    let world = world.reopen(Opened::Clean);
    assert_eq!(world.drive.held(), held, "nothing could have been lost");
    let world = world.reopen(Opened::PowerLoss);
    assert_eq!(world.drive.held(), None, "power was lost");
    world.drive.walk_contents();
    assert_eq!(world.drive.held(), held);

    // Damage that is known of: by a read whose answer nobody could give.
    world.spoil(&bytes(1));
    world.drive.store.get(&content.id.root()).unwrap_err();
    let world = world.reopen(Opened::Clean);
    assert_eq!(world.drive.held(), None, "a chunk is known to be damaged");
    world.drive.walk_contents();
    assert!(world.drive.fetching.is_pending(&content.id));
}

#[test]
fn a_received_entry_whose_content_was_here_already_is_held_only_once_that_is_durable() {
    let world = World::new();
    world.drive.walk_contents();
    world.drive.held();
    assert!(!world.drive.fetching.pending.lock().unsynced);
    let content = world.write(&bytes(1));
    world.receive(content, &[]);
    assert!(!world.drive.fetching.is_pending(&content.id));
    assert!(world.drive.fetching.pending.lock().unsynced, "held before it is durable");
}

#[test]
fn what_nobody_has_and_no_version_keeps_is_not_waited_for() {
    let world = World::new();
    world.drive.walk_contents();
    let (friend, now) = (signer(3).device(), SystemClock.now());
    let nothing = Op::Retain(journal::Policy { keep_all_s: 0, keep_daily_s: 0 });
    let retained = world.other.author(&world.other_signer, vec![nothing], now).unwrap();
    let device = world.other_signer.device();
    JournalHost::receive(&*world.drive, device, &[retained.bytes]).unwrap();
    let lacking = Content { id: ContentId::chunk(ChunkId::from_bytes([3; 32])), len: 10 };
    let version = world.receive(lacking, &[]);
    world.drive.take_news([Event::PeerUp(friend), Event::ContentOutOfReach(lacking)]);
    assert!(world.drive.fetching.is_pending(&lacking.id), "it is what the name shows");
    let newer = world.write(&bytes(1));
    world.receive(newer, &[version]);
    world.drive.take_news([Event::ContentWithinReach(lacking)]);
    assert!(world.drive.fetching.is_pending(&lacking.id), "somebody may have it");
    world.drive.take_news([Event::ContentOutOfReach(lacking)]);
    assert!(!world.drive.fetching.is_pending(&lacking.id), "it is waited for for ever");
    assert_eq!(world.drive.arriving(), (0, 0));
    assert_eq!(world.drive.held(), Some(world.drive.journal.frontier()));
    assert_eq!(world.shown(), newer.id);

    // Also after a start that looks at everything, and for whoever gets all entries at once.
    let world = world.reopen(Opened::PowerLoss);
    world.drive.walk_contents();
    assert!(!world.drive.fetching.is_pending(&lacking.id));
    assert_eq!(world.drive.held(), Some(world.drive.journal.frontier()));
}

#[test]
fn a_version_that_is_gone_is_not_shown_instead_of_one_that_is_out_of_reach() {
    let world = World::new();
    let gone = Content { id: ContentId::chunk(ChunkId::from_bytes([4; 32])), len: 10 };
    let first = world.receive(gone, &[]);
    let new = Content { id: ContentId::chunk(ChunkId::from_bytes([3; 32])), len: 10 };
    world.receive(new, &[first]);
    // As if the policy had let go of it.
    world.drive.fetching.remove(&gone.id);
    assert_eq!(world.shown(), new.id, "a read of it would fail all the same");
}
