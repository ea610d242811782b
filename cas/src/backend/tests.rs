//! The contract, run on every backend, and that the one in memory forgets as it should.

use super::*;
use fs::FsBackend;
use mem::MemBackend;

fn contract(backend: &dyn Backend) {
    let file = backend.create("a").unwrap();
    assert_eq!(backend.create("a").err().unwrap().kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(backend.open("b").err().unwrap().kind(), io::ErrorKind::NotFound);
    assert!(file.is_empty().unwrap());

    file.append(0, &[IoSlice::new(b"one "), IoSlice::new(b""), IoSlice::new(b"two")]).unwrap();
    file.append(7, &[IoSlice::new(b" three")]).unwrap();
    let mut buf = [0; 9];
    file.read_at(4, &mut buf).unwrap();
    assert_eq!(&buf, b"two three");
    let short = file.read_at(5, &mut buf).unwrap_err();
    assert_eq!(short.kind(), io::ErrorKind::UnexpectedEof);

    let again = backend.open("a").unwrap();
    assert_eq!(again.len().unwrap(), 13);
    again.truncate(3).unwrap();
    assert_eq!(file.len().unwrap(), 3);
    file.append(3, &[IoSlice::new(b"!")]).unwrap();
    file.sync().unwrap();
    backend.sync_dir().unwrap();
    assert_eq!(backend.list().unwrap(), [("a".to_owned(), 4)]);

    file.write_again().unwrap();
    assert_eq!(file.read_vec(0, 4).unwrap(), b"one!");
    assert_eq!(file.len().unwrap(), 4);

    let many: Vec<Vec<u8>> = (0..1000u32).map(|n| n.to_le_bytes().to_vec()).collect();
    let parts: Vec<IoSlice<'_>> = many.iter().map(|part| IoSlice::new(part)).collect();
    file.append(4, &parts).unwrap();
    let mut last = [0; 4];
    file.read_at(4 + 999 * 4, &mut last).unwrap();
    assert_eq!(u32::from_le_bytes(last), 999);

    assert!(backend.free_bytes().unwrap() > 0);
    assert!(backend.path_of("a").ends_with("a"));
    backend.remove("a").unwrap();
    assert_eq!(backend.remove("a").err().unwrap().kind(), io::ErrorKind::NotFound);
    assert!(backend.list().unwrap().is_empty());
}

#[test]
fn the_disk_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    contract(&FsBackend::open(&dir.path().join("x/y")).unwrap());
}

#[test]
fn the_memory_keeps_the_contract() {
    contract(&MemBackend::new());
}

#[test]
fn a_crash_takes_what_was_not_synced() {
    let disk = MemBackend::new();
    let file = disk.create("a").unwrap();
    file.append(0, &[IoSlice::new(b"synced")]).unwrap();
    file.sync().unwrap();
    assert!(disk.crash(100).list().unwrap().is_empty(), "the name was not synced");
    disk.sync_dir().unwrap();
    file.append(6, &[IoSlice::new(b" lost")]).unwrap();
    assert_eq!(disk.crash(0).list().unwrap(), [("a".to_owned(), 6)]);
    assert_eq!(disk.crash(3).list().unwrap(), [("a".to_owned(), 9)]);
    file.truncate(2).unwrap();
    assert_eq!(disk.crash(0).list().unwrap(), [("a".to_owned(), 6)], "a cut needs a sync too");
    file.sync().unwrap();
    assert_eq!(disk.crash(0).list().unwrap(), [("a".to_owned(), 2)]);
}

#[test]
fn a_failed_sync_is_made_good_by_writing_again_alone() {
    let disk = MemBackend::new();
    let file = disk.create("a").unwrap();
    disk.sync_dir().unwrap();
    file.append(0, &[IoSlice::new(b"synced")]).unwrap();
    file.sync().unwrap();
    file.append(6, &[IoSlice::new(b" not")]).unwrap();
    disk.faults(|faults| faults.sync_errors_kept = 1);
    assert!(file.sync().is_err());
    let after = |disk: &MemBackend| disk.crash(0).open("a").unwrap().read_vec(0, 10);
    file.sync().unwrap();
    assert_eq!(after(&disk).unwrap(), b"synced\0\0\0\0", "the kernel calls them clean");
    file.write_again().unwrap();
    assert_eq!(disk.crash(0).list().unwrap(), [("a".to_owned(), 6)], "it takes a sync, too");
    file.sync().unwrap();
    assert_eq!(after(&disk).unwrap(), b"synced not");
}

#[test]
fn faults_come_when_asked_for() {
    let disk = MemBackend::new();
    let file = disk.create("a").unwrap();
    disk.faults(|faults| faults.capacity = Some(4));
    let full = file.append(0, &[IoSlice::new(b"123456")]).unwrap_err();
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    assert_eq!((file.len().unwrap(), disk.free_bytes().unwrap()), (4, 0));
    disk.faults(|faults| {
        faults.capacity = None;
        faults.syncs_left = Some(1);
    });
    file.sync().unwrap();
    assert!(file.sync().is_err());
    assert!(disk.list().is_err(), "dead machines do not answer");
}
