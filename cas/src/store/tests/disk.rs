//! What only a real directory has: the marker, the index file, the reserve.

use std::fs;

use super::*;
use crate::format::PACK_HEADER_LEN;

#[test]
fn a_closed_store_opens_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(config(dir.path())).unwrap();
    let ids: Vec<_> = (0..90).map(|seed| store.put(&noise(CHUNK_LEN_MAX, seed)).unwrap()).collect();
    assert!(dir.path().join("in-use").exists());
    store.close().unwrap();
    assert!(!dir.path().join("in-use").exists());
    let usage = store.usage();
    drop(store);
    let store = Store::open(config(dir.path())).unwrap();
    assert_eq!(store.usage(), usage);
    assert!(ids.iter().all(|id| store.has(id)));
    assert_eq!(store.0.index.packs().unwrap().len(), 2, "the index was kept");
}

#[test]
fn a_store_that_was_not_closed_has_everything_that_was_put() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(config(dir.path())).unwrap();
    let ids: Vec<_> = (0..90).map(|seed| store.put(&noise(CHUNK_LEN_MAX, seed)).unwrap()).collect();
    drop(store);
    let store = Store::open(config(dir.path())).unwrap();
    assert!(ids.iter().all(|id| store.has(id)));
    assert_eq!(store.usage().chunks, 90);
}

#[test]
fn after_a_loss_of_power_the_index_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(config(dir.path())).unwrap();
    let ids: Vec<_> = (0..70).map(|seed| store.put(&noise(CHUNK_LEN_MAX, seed)).unwrap()).collect();
    store.0.seal(0);
    let info = store.0.appender.lock().packs[&0];
    assert!(info.sealed);
    // An index that looks sound and lacks what it should know.
    store.0.index.clear().unwrap();
    store.0.index.add(0, info, []);
    store.close().unwrap();
    drop(store);
    let store = Store::open(config(dir.path())).unwrap();
    assert!(!store.has(&ids[0]), "after a clean stop it is believed");
    drop(store);
    let store = Store::open(config(dir.path())).unwrap();
    assert!(!store.has(&ids[0]), "after the end of the process too");
    drop(store);
    fs::write(dir.path().join("in-use"), "atelier cas 1\nanother boot\n").unwrap();
    let store = Store::open(config(dir.path())).unwrap();
    assert!(ids.iter().all(|id| store.has(id)));
    let marker = fs::read_to_string(dir.path().join("in-use")).unwrap();
    assert!(!marker.contains("another boot"));
}

#[test]
fn a_missing_damaged_or_foreign_index_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(config(dir.path())).unwrap();
    let id = store.put(b"bytes").unwrap();
    store.close().unwrap();
    drop(store);
    let index = dir.path().join("index");
    for harm in 0..3 {
        match harm {
            0 => fs::remove_dir_all(&index).unwrap(),
            1 => fs::write(index.join("data.mdb"), [9; 50_000]).unwrap(),
            _ => {
                let file = fs::OpenOptions::new().write(true).open(index.join("data.mdb")).unwrap();
                file.set_len(8192).unwrap();
            }
        }
        let store = Store::open(config(dir.path())).unwrap();
        assert!(store.has(&id), "harm {harm}");
        store.close().unwrap();
    }
}

#[test]
fn an_index_ahead_of_its_packs_is_made_anew() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(config(dir.path())).unwrap();
    let first = store.put(&noise(1000, 1)).unwrap();
    let second = store.put(&noise(1000, 2)).unwrap();
    store.close().unwrap();
    drop(store);
    let pack = dir.path().join("packs/00000000.pack");
    let len = fs::metadata(&pack).unwrap().len();
    fs::OpenOptions::new().write(true).open(&pack).unwrap().set_len(len - 1).unwrap();
    let store = Store::open(config(dir.path())).unwrap();
    assert!(store.has(&first));
    assert!(!store.has(&second));
    assert_eq!(store.usage().chunks, 1);
    assert_eq!(store.put(&noise(1000, 2)).unwrap(), second);
    assert!(store.get(&second).unwrap() == noise(1000, 2));
}

#[test]
fn damage_behind_the_index_is_noticed_once() {
    for at in [PACK_HEADER_LEN + 500, PACK_HEADER_LEN + 1_052 + 500] {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(config(dir.path())).unwrap();
        let ids = [store.put(&noise(1000, 1)).unwrap(), store.put(&noise(1000, 2)).unwrap()];
        store.close().unwrap();
        drop(store);
        let pack = dir.path().join("packs/00000000.pack");
        let mut bytes = fs::read(&pack).unwrap();
        bytes[at] ^= 1;
        fs::write(&pack, bytes).unwrap();
        let store = Store::open(config(dir.path())).unwrap();
        assert!(store.lost_records());
        let held = ids.iter().filter(|id| store.has(id)).count();
        assert_eq!(held, 1, "the index leads to the record at {at}");
        assert_eq!(store.usage().chunks, 1);
        store.put(&noise(1000, 3)).unwrap();
        store.close().unwrap();
        drop(store);
        let store = Store::open(config(dir.path())).unwrap();
        assert!(!store.lost_records(), "the same damage was found twice");
        assert_eq!(store.usage().chunks, 2);
    }
}

#[test]
fn the_reserve_is_for_what_was_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.reserve_bytes = u64::MAX;
    let store = Store::open(config).unwrap();
    assert_eq!(store.free_bytes().unwrap(), 0);
    assert!(matches!(store.put(b"new"), Err(WriteError::Full)));
    assert!(matches!(store.writer(None).write(b"new"), Err(WriteError::Full)));
    let content = store.writer(None).finish().unwrap();
    assert_eq!(content.len, 0, "an accepted content can be finished");
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, b"").unwrap();
    let error = Store::open(config(&file)).err().unwrap();
    assert!(error.to_string().contains("file"), "{error}");
}

#[test]
fn only_the_owner_can_read_packs() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(config(dir.path())).unwrap();
    store.put(b"secret").unwrap();
    let mode = fs::metadata(dir.path().join("packs/00000000.pack")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}
