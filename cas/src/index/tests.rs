//! The table in memory and the one in LMDB answer alike.

use super::*;

fn id(first: u8, last: u8) -> ChunkId {
    let mut bytes = [first; 32];
    bytes[31] = last;
    ChunkId::from_bytes(bytes)
}

fn at(pack: u32, offset: u32) -> Location {
    Location { pack, offset, len: 100 }
}

const INFO: PackInfo = PackInfo { end: 500, records: 3, sealed: false };

fn both(test: impl Fn(&Index)) {
    test(&Index::in_memory());
    let dir = tempfile::tempdir().unwrap();
    let index = Index::on_disk(Lmdb::open(dir.path()).unwrap());
    test(&index);
    index.close().unwrap();
}

#[test]
fn ids_with_one_prefix_are_all_candidates_newest_first() {
    both(|index| {
        index.add(1, INFO, [(id(7, 1), at(1, 16)), (id(7, 2), at(1, 116))]);
        assert_eq!(index.recent(&id(7, 1)), Some(at(1, 16)));
        assert_eq!(index.recent(&id(7, 3)), None, "recent is exact");
        index.flush().unwrap();
        assert_eq!(index.recent(&id(7, 1)), None);
        index.add(2, INFO, [(id(7, 1), at(2, 16))]);
        index.flush().unwrap();
        let found = index.candidates(&id(7, 3)).unwrap();
        assert_eq!(found, [at(2, 16), at(1, 116), at(1, 16)]);
        index.add(2, INFO, [(id(7, 1), at(2, 16))]);
        index.flush().unwrap();
        assert_eq!(index.candidates(&id(7, 1)).unwrap().len(), 3, "the same record counts once");
        assert_eq!(index.candidates(&id(8, 1)).unwrap(), []);
        assert_eq!(index.packs().unwrap().len(), 2);
        index.clear().unwrap();
        assert_eq!(index.candidates(&id(7, 1)).unwrap(), []);
        assert!(index.packs().unwrap().is_empty());
    });
}

#[test]
fn one_prefix_has_boundedly_many_candidates() {
    both(|index| {
        for pack in 0..40 {
            index.add(pack, INFO, [(id(7, 1), at(pack, 16))]);
            index.flush().unwrap();
        }
        let found = index.candidates(&id(7, 1)).unwrap();
        assert_eq!(found.len(), CANDIDATES_MAX);
        assert_eq!(found[0], at(39, 16));
    });
}

#[test]
fn lmdb_remembers_and_damage_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let index = Index::on_disk(Lmdb::open(dir.path()).unwrap());
    index.add(1, INFO, [(id(7, 1), at(1, 16))]);
    index.flush().unwrap();
    index.close().unwrap();
    let index = Index::on_disk(Lmdb::open(dir.path()).unwrap());
    assert_eq!(index.candidates(&id(7, 1)).unwrap(), [at(1, 16)]);
    assert_eq!(index.packs().unwrap()[&1], INFO);
    index.close().unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(dir.path().join("data.mdb")).unwrap();
    file.set_len(8192).unwrap();
    let error = Lmdb::open(dir.path()).err().expect("a cut file is refused");
    assert_eq!(error.source.kind(), std::io::ErrorKind::InvalidData);
    std::fs::write(dir.path().join("data.mdb"), [7; 100_000]).unwrap();
    let error = Lmdb::open(dir.path()).err().expect("garbage is refused");
    assert_eq!(error.source.kind(), std::io::ErrorKind::InvalidData);
    lmdb::wipe(dir.path()).unwrap();
    lmdb::wipe(dir.path()).unwrap();
    Lmdb::open(dir.path()).unwrap();
}
