//! Collections: what is needed stays, what is not goes, whatever comes between.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use proptest::prelude::*;

use super::*;
use crate::backend::Backend;
use crate::chunker::Class;
use crate::reader::Content;
use crate::rewrite::{Edits, rewrite};

fn go_on(_: SweepStep) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Collects everything but these.
fn collect(store: &Store, needed: &[Content]) -> Swept {
    let mut collector = store.collect().unwrap();
    needed.iter().for_each(|content| collector.keep(*content).unwrap());
    collector.sweep(Sweep::Remove, &mut go_on).unwrap()
}

fn write(store: &Store, bytes: &[u8]) -> Content {
    let mut writer = store.writer_as(Class::Cdc16K);
    writer.write(bytes).unwrap();
    writer.finish().unwrap()
}

fn reads(store: &Store, content: Content, bytes: &[u8]) {
    let mut found = vec![0; bytes.len()];
    let read = store.read(content).unwrap().read_at(0, &mut found).unwrap();
    assert!(read == bytes.len() && found == bytes, "{:?} reads otherwise", content.id);
}

fn files(disk: &MemBackend) -> u64 {
    disk.list().unwrap().iter().map(|(_, len)| len).sum()
}

fn each(test: impl Fn(&Store)) {
    test(&Store::in_memory(KEY));
    let dir = tempfile::tempdir().unwrap();
    test(&Store::open(config(dir.path())).unwrap());
}

#[test]
fn what_is_needed_stays_and_the_rest_goes() {
    each(|store| {
        let (kept, gone) = (noise(300_000, 1), noise(900_000, 2));
        let (a, b) = (write(store, &kept), write(store, &gone));
        let small = (write(store, b"small"), write(store, b"smell"));
        store.sync().unwrap();
        let before = store.usage();
        let swept = collect(store, &[a, small.0]);
        let after = store.usage();
        assert_eq!(before.stored_bytes - after.stored_bytes, swept.freed_bytes());
        assert!(after.stored_bytes < 320_000, "{after:?}");
        assert_eq!(swept.stopped, None);
        reads(store, a, &kept);
        reads(store, small.0, b"small");
        assert!(!store.has(&b.id.root()) && !store.has(&small.1.id.root()));
        assert!(matches!(store.get(&b.id.root()), Err(ReadError::Missing { .. })));
        assert_eq!(store.quarantined(), [], "gone is not damaged");
        assert_eq!(store.scrub(&mut |_| {}).unwrap().bad, []);
        // What is gone can come back.
        let again = write(store, &gone);
        assert_eq!(again, b);
        reads(store, b, &gone);
        reads(store, a, &kept);
    });
}

#[test]
fn a_second_collection_finds_nothing_to_do() {
    each(|store| {
        let kept = noise(300_000, 1);
        let a = write(store, &kept);
        write(store, &noise(900_000, 2));
        collect(store, &[a]);
        let before = store.usage();
        let swept = collect(store, &[a]);
        assert_eq!((swept.packs_removed, swept.moved_bytes, swept.unneeded_bytes), (0, 0, 0));
        assert_eq!(store.usage(), before);
    });
}

#[test]
fn counting_changes_nothing_and_tells_what_would_go() {
    each(|store| {
        let a = write(store, &noise(300_000, 1));
        write(store, &noise(900_000, 2));
        let before = store.usage();
        let mut collector = store.collect().unwrap();
        collector.keep(a).unwrap();
        let counted = collector.sweep(Sweep::Count, &mut go_on).unwrap();
        assert_eq!(store.usage(), before);
        let swept = collect(store, &[a]);
        assert_eq!(counted.freed_bytes(), swept.freed_bytes());
        assert_eq!(counted.unneeded_bytes, swept.unneeded_bytes);
        assert!(counted.freed_bytes() > 850_000);
    });
}

#[test]
fn packs_that_are_nearly_full_of_needed_chunks_stay() {
    let disk = MemBackend::new();
    let store = on(&disk);
    let needed: Vec<_> = (0..9).map(|seed| write(&store, &noise(50_000, seed))).collect();
    write(&store, &noise(50_000, 99));
    store.sync().unwrap();
    let before = disk.list().unwrap();
    let swept = collect(&store, &needed);
    assert_eq!(disk.list().unwrap(), before, "a tenth is not worth a copy");
    assert!(swept.unneeded_bytes >= 50_000 && swept.moved_bytes == 0);
}

#[test]
fn packs_without_anything_needed_go_at_no_cost() {
    let disk = MemBackend::new();
    let store = on(&disk);
    for seed in 0..200 {
        store.put(&noise(CHUNK_LEN_MAX, seed)).unwrap();
    }
    let kept = store.put(b"kept").unwrap();
    let kept = Content { id: crate::ContentId::chunk(kept), len: 4 };
    assert_eq!(store.usage().packs, 4);
    let swept = collect(&store, &[kept]);
    assert_eq!(swept.packs_removed, 4);
    assert!(swept.moved_bytes < 100);
    assert!(files(&disk) < 1_000);
    reads(&store, kept, b"kept");
}

#[test]
fn the_empty_content_is_never_gone() {
    let store = Store::in_memory(KEY);
    let empty = write(&store, b"");
    write(&store, &noise(1_000, 1));
    collect(&store, &[]);
    assert!(store.pin(empty).is_ok());
    assert_eq!(store.usage().chunks, 1);
}

#[test]
fn one_collection_at_a_time_and_the_next_after_it() {
    let store = Store::in_memory(KEY);
    let first = store.collect().unwrap();
    assert!(matches!(store.collect(), Err(GcError::Busy)));
    drop(first);
    store.collect().unwrap();
}

#[test]
fn a_content_that_is_held_stays_until_it_is_let_go() {
    each(|store| {
        let bytes = noise(200_000, 1);
        let content = write(store, &bytes);
        let (one, other) = (store.hold(content), store.hold(content));
        collect(store, &[]);
        reads(store, content, &bytes);
        drop(one);
        collect(store, &[]);
        reads(store, content, &bytes);
        drop(other);
        collect(store, &[]);
        assert!(store.pin(content).is_err());
        assert_eq!(store.usage().chunks, 0);
    });
}

#[test]
fn pinning_needs_every_chunk() {
    let store = Store::in_memory(KEY);
    let content = write(&store, &noise(200_000, 1));
    let pinned = store.pin(content).unwrap();
    collect(&store, &[]);
    reads(&store, content, &noise(200_000, 1));
    drop(pinned);
    let reader = store.read(content).unwrap();
    let last = reader.chunk_ids().last().unwrap().unwrap();
    store.0.quarantine.add(store.0.backend.as_ref(), &last);
    let refused = store.pin(content).err().unwrap();
    assert!(matches!(refused, ReadError::Missing { id } if id == last));
    assert_eq!(store.0.pins.held().len(), 0, "what is refused is not held");
}

#[test]
fn a_content_held_during_a_collection_stays() {
    each(|store| {
        let bytes = noise(200_000, 1);
        let content = write(store, &bytes);
        let collector = store.collect().unwrap();
        // No longer held when the sweep begins: whoever opened it may have handed it on.
        drop(store.hold(content));
        collector.sweep(Sweep::Remove, &mut go_on).unwrap();
        reads(store, content, &bytes);
    });
}

#[test]
fn who_is_told_of_a_chunk_during_a_collection_has_it() {
    each(|store| {
        let bytes = noise(200_000, 1);
        let content = write(store, &bytes);
        let other = write(store, &noise(100_000, 2));
        let collector = store.collect().unwrap();
        // A save of the same bytes: nothing is stored, all of it relies on what is here.
        assert_eq!(write(store, &bytes), content);
        // And one of other bytes, which lie in a pack that is older than the collection.
        let fresh = write(store, &noise(100_000, 3));
        collector.sweep(Sweep::Remove, &mut go_on).unwrap();
        reads(store, content, &bytes);
        reads(store, fresh, &noise(100_000, 3));
        assert!(!store.has(&other.id.root()));
    });
}

#[test]
fn a_writer_that_found_its_chunks_before_the_collection_keeps_them() {
    each(|store| {
        let bytes = noise(6_000_000, 1);
        write(store, &bytes);
        let mut writer = store.writer_as(Class::Cdc16K);
        writer.write(&bytes).unwrap();
        collect(store, &[]);
        let content = writer.finish().unwrap();
        reads(store, content, &bytes);
        // And through a long manifest, whose nodes are found to be there too.
        collect(store, &[content]);
        reads(store, content, &bytes);
    });
}

#[test]
fn a_writer_of_new_chunks_keeps_them() {
    each(|store| {
        let bytes = noise(6_000_000, 1);
        let mut writer = store.writer_as(Class::Cdc16K);
        let (first, second) = bytes.split_at(4_000_000);
        writer.write(first).unwrap();
        collect(store, &[]);
        writer.write(second).unwrap();
        collect(store, &[]);
        let content = writer.finish().unwrap();
        reads(store, content, &bytes);
    });
}

struct One(std::ops::Range<u64>);

impl Edits for One {
    fn ranges(&self) -> &[std::ops::Range<u64>] {
        std::slice::from_ref(&self.0)
    }

    fn read_at(&self, _: u64, buf: &mut [u8]) -> std::io::Result<()> {
        buf.fill(7);
        Ok(())
    }
}

#[test]
fn a_change_in_place_during_a_collection_keeps_what_it_takes_over() {
    let store = Store::in_memory(KEY);
    // More chunks before the change than one node can name, so that a node is taken over as a whole.
    let mut bytes = noise(90_000_000, 1);
    let content = write(&store, &bytes);
    let reader = store.read(content).unwrap();
    assert!(reader.chunk_ids().count() > 2_000);
    let collector = store.collect().unwrap();
    let at = 89_000_000..89_000_100;
    let changed = rewrite(&store, Some(&reader), &One(at.clone()), content.len).unwrap();
    bytes[at.start as usize..at.end as usize].fill(7);
    collector.sweep(Sweep::Remove, &mut go_on).unwrap();
    reads(&store, changed, &bytes);
}

#[test]
fn a_damaged_manifest_ends_the_collection_before_anything_goes() {
    let disk = MemBackend::new();
    let store = on(&disk);
    let content = write(&store, &noise(200_000, 1));
    store.0.quarantine.add(&disk, &content.id.root());
    let before = store.usage();
    let mut collector = store.collect().unwrap();
    let refused = collector.keep(content).err().unwrap();
    assert!(matches!(refused, GcError::Damaged { id } if id == content.id.root()));
    drop(collector);
    assert_eq!(store.usage(), before);
}

#[test]
fn a_pack_with_a_damaged_chunk_that_is_needed_stays() {
    let disk = MemBackend::new();
    let store = on(&disk);
    let kept = store.put(&noise(1_000, 1)).unwrap();
    store.put(&noise(50_000, 2)).unwrap();
    store.sync().unwrap();
    assert!(disk.flip("00000000.pack", crate::format::PACK_HEADER_LEN + 500));
    let swept = collect(&store, &[Content { id: crate::ContentId::chunk(kept), len: 1_000 }]);
    assert_eq!((swept.packs_removed, swept.packs_damaged), (0, 1));
    assert_eq!(store.quarantined(), [kept], "and is known to be damaged now");
}

#[test]
fn damage_nobody_needs_repaired_is_forgotten() {
    let disk = MemBackend::new();
    let store = on(&disk);
    let id = store.put(&noise(1_000, 1)).unwrap();
    store.sync().unwrap();
    assert!(disk.flip("00000000.pack", crate::format::PACK_HEADER_LEN + 500));
    assert!(store.get(&id).is_err());
    assert_eq!(store.quarantined(), [id]);
    collect(&store, &[]);
    assert_eq!(store.quarantined(), []);
    assert_eq!(store.usage().chunks, 0);
}

#[test]
fn on_a_full_disk_it_gives_back_what_costs_nothing_and_says_where_it_stops() {
    let disk = MemBackend::new();
    let store = on(&disk);
    let mut needed = Vec::new();
    // Two packs with a quarter needed, one with nothing.
    for pack in 0..3u64 {
        for seed in 0..64 {
            let id = store.put(&noise(CHUNK_LEN_MAX, pack * 100 + seed)).unwrap();
            if pack < 2 && seed % 4 == 0 {
                needed.push(Content { id: crate::ContentId::chunk(id), len: CHUNK_LEN_MAX as u64 });
            }
        }
    }
    store.sync().unwrap();
    let before = files(&disk);
    // The unneeded pack makes the room that the others' copies take.
    disk.faults(|faults| faults.capacity = Some(before));
    let swept = collect(&store, &needed);
    assert_eq!(swept.stopped, None);
    assert!(files(&disk) < before / 4, "{} of {before}", files(&disk));
    needed.iter().for_each(|content| assert!(store.has(&content.id.root())));
    // With nothing to begin with it stops, and says so.
    let disk = MemBackend::new();
    let store = on(&disk);
    let ids: Vec<_> = (0..60).map(|seed| store.put(&noise(CHUNK_LEN_MAX, seed)).unwrap()).collect();
    store.sync().unwrap();
    let before = files(&disk);
    disk.faults(|faults| faults.capacity = Some(before + 1_000));
    let needed: Vec<_> = ids[..30]
        .iter()
        .map(|id| Content { id: crate::ContentId::chunk(*id), len: CHUNK_LEN_MAX as u64 })
        .collect();
    let swept = collect(&store, &needed);
    assert_eq!(swept.stopped, Some(Stopped::Full));
    ids.iter().for_each(|id| assert!(store.get(id).is_ok(), "{id} is lost"));
    disk.faults(|faults| faults.capacity = None);
    let swept = collect(&store, &needed);
    assert_eq!(swept.stopped, None);
    assert!(files(&disk) < before * 2 / 3);
}

#[test]
fn it_ends_when_it_is_asked_to() {
    let store = Store::in_memory(KEY);
    for seed in 0..200 {
        store.put(&noise(CHUNK_LEN_MAX, seed)).unwrap();
    }
    let collector = store.collect().unwrap();
    let swept = collector.sweep(Sweep::Remove, &mut |_| ControlFlow::Break(())).unwrap();
    assert_eq!((swept.stopped, swept.packs_removed), (Some(Stopped::Asked), 1));
    assert_eq!(store.usage().packs, 3);
    assert_eq!(collect(&store, &[]).packs_removed, 3);
}

/// A life with a collection in the middle; gives what a returned sync, or the collection, has promised.
fn live(store: &Store) -> Result<BTreeMap<u64, Content>, ()> {
    let mut promised = BTreeMap::new();
    for seed in 0..12u64 {
        promised.insert(seed, write_or(store, seed)?);
    }
    store.sync().map_err(|_| ())?;
    Ok(promised)
}

fn write_or(store: &Store, seed: u64) -> Result<Content, ()> {
    let mut writer = store.writer_as(Class::Cdc16K);
    writer.write(&noise(40_000, seed)).map_err(|_| ())?;
    writer.finish().map_err(|_| ())
}

#[test]
fn dying_anywhere_in_a_collection_loses_nothing_that_is_needed() {
    // Every third content is needed.
    let sweep = |store: &Store, promised: &BTreeMap<u64, Content>| -> Result<(), GcError> {
        let mut collector = store.collect()?;
        for (seed, content) in promised {
            if seed % 3 == 0 {
                collector.keep(*content)?;
            }
        }
        collector.sweep(Sweep::Remove, &mut go_on).map(|_| ())
    };
    let whole = MemBackend::new();
    let store = on(&whole);
    let promised = live(&store).unwrap();
    let before = whole.faults(|faults| faults.syncs);
    sweep(&store, &promised).unwrap();
    let syncs = whole.faults(|faults| faults.syncs) - before;
    assert!(syncs >= 3, "{syncs}");
    for sync in 0..=syncs {
        let disk = MemBackend::new();
        let store = on(&disk);
        let promised = live(&store).unwrap();
        disk.faults(|faults| faults.syncs_left = Some(sync));
        let _ = sweep(&store, &promised);
        for tail in [0, 1, 60, 5_000, 100_000] {
            let after = disk.crash(tail);
            let store = on(&after);
            for (seed, content) in promised.iter().filter(|(seed, _)| *seed % 3 == 0) {
                reads(&store, *content, &noise(40_000, *seed));
            }
            assert_eq!(store.scrub(&mut |_| {}).unwrap().bad, []);
            // The next one goes on where this one ended.
            sweep(&store, &promised).unwrap();
            for (seed, content) in &promised {
                match seed % 3 {
                    0 => reads(&store, *content, &noise(40_000, *seed)),
                    _ => assert!(!store.has(&content.id.root())),
                }
            }
            assert!(store.usage().stored_bytes < 200_000, "{:?}", store.usage());
            let bytes: u64 = files(&after);
            assert_eq!(bytes, store.usage().stored_bytes);
        }
    }
}

#[test]
fn a_failed_write_in_a_collection_loses_nothing() {
    for errors in 1..5 {
        for synced in [false, true] {
            let disk = MemBackend::new();
            let store = on(&disk);
            let promised = live(&store).unwrap();
            disk.faults(|faults| match synced {
                true => faults.sync_errors_kept = errors,
                false => faults.append_errors = errors,
            });
            let needed: Vec<Content> = promised.values().step_by(3).copied().collect();
            let mut collector = store.collect().unwrap();
            needed.iter().for_each(|content| collector.keep(*content).unwrap());
            let _ = collector.sweep(Sweep::Remove, &mut go_on);
            let after = on(&disk.crash(0));
            for (seed, content) in promised.iter().step_by(3) {
                reads(&after, *content, &noise(40_000, *seed));
            }
        }
    }
}

#[test]
fn the_index_on_disk_forgets_what_went() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(config(dir.path())).unwrap();
    let kept = write(&store, &noise(300_000, 1));
    write(&store, &noise(900_000, 2));
    store.0.index.flush().unwrap();
    collect(&store, &[kept]);
    // Killed: not closed.
    drop(store);
    let store = Store::open(config(dir.path())).unwrap();
    assert!(!store.lost_records(), "the index led to a pack that is gone");
    reads(&store, kept, &noise(300_000, 1));
    let usage = store.usage();
    store.close().unwrap();
    drop(store);
    let store = Store::open(config(dir.path())).unwrap();
    assert_eq!(store.usage(), usage);
    assert!(!store.lost_records());
}

#[test]
fn readers_and_writers_beside_collections_miss_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(config(dir.path())).unwrap();
    let kept: Vec<Content> = (0..8).map(|seed| write(&store, &noise(90_000, seed))).collect();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut rounds = 0;
            while !done.load(Ordering::Acquire) {
                for (seed, content) in kept.iter().enumerate() {
                    reads(&store, *content, &noise(90_000, seed as u64));
                }
                rounds += 1;
            }
            rounds
        });
        let writers: Vec<_> = (0..2u64)
            .map(|thread| {
                let (store, done) = (&store, &done);
                scope.spawn(move || {
                    let mut round = 0u64;
                    while !done.load(Ordering::Acquire) {
                        // The same few contents again and again: found here, stored, collected, found missing.
                        let seed = 100 + (round * 7 + thread) % 5;
                        let mut writer = store.writer_as(Class::Cdc16K);
                        writer.write(&noise(120_000, seed)).unwrap();
                        let hold = writer.finish_held().unwrap();
                        reads(store, hold.content(), &noise(120_000, seed));
                        round += 1;
                    }
                })
            })
            .collect();
        for _ in 0..60 {
            collect(&store, &kept);
        }
        done.store(true, Ordering::Release);
        assert!(reader.join().unwrap() > 0);
        writers.into_iter().for_each(|writer| writer.join().unwrap());
    });
    assert_eq!(store.quarantined(), []);
    collect(&store, &kept);
    let seeds = 100..105;
    seeds.for_each(|seed| assert!(store.pin(write(&store, &noise(120_000, seed))).is_ok()));
    assert_eq!(store.scrub(&mut |_| {}).unwrap().bad, []);
}

#[test]
fn at_whatever_moment_of_a_sweep_one_is_told_of_a_chunk_it_stays() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(config(dir.path())).unwrap();
    let (mut told, mut gone) = (0, 0);
    for round in 0..400u64 {
        let ids: Vec<ChunkId> =
            (0..600).map(|n| store.put(&(round * 1_000 + n).to_le_bytes()).unwrap()).collect();
        store.sync().unwrap();
        let asked = ids[(round % 600) as usize];
        let read = ids[((round + 300) % 600) as usize];
        let collector = store.collect().unwrap();
        let swept = AtomicBool::new(false);
        let answer = std::thread::scope(|scope| {
            let asking = scope.spawn(|| {
                // At another moment each time.
                (0..round * 37 % 6_000).for_each(|_| std::hint::spin_loop());
                store.has(&asked)
            });
            let reading = scope.spawn(|| {
                while !swept.load(Ordering::Acquire) {
                    match store.get(&read) {
                        Ok(_) | Err(ReadError::Missing { .. }) => {}
                        Err(error) => panic!("round {round}: {error}"),
                    }
                }
            });
            collector.sweep(Sweep::Remove, &mut go_on).unwrap();
            swept.store(true, Ordering::Release);
            reading.join().unwrap();
            asking.join().unwrap()
        });
        match answer {
            true => assert!(store.get(&asked).is_ok(), "round {round}: told of, and gone"),
            false => gone += 1,
        }
        told += u64::from(answer);
        collect(&store, &[]);
    }
    assert!(told > 0 && gone > 0, "{told} told, {gone} gone: the moments were all alike");
    assert_eq!(store.quarantined(), []);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_needed_set_survives_any_number_of_collections(
        contents in proptest::collection::vec((0..6u64, 1..200_000usize), 1..10),
        rounds in proptest::collection::vec(any::<u16>(), 1..4),
        crash in any::<bool>(),
    ) {
        let mut disk = MemBackend::new();
        let mut store = on(&disk);
        // Some share their beginnings.
        let bytes = |(seed, len): (u64, usize)| noise(len, seed);
        let mut live: Vec<((u64, usize), Content)> =
            contents.iter().map(|one| (*one, write(&store, &bytes(*one)))).collect();
        store.sync().unwrap();
        for mask in rounds {
            let mut bit = 0;
            live.retain(|_| { bit += 1; mask & (1 << bit) != 0 });
            let needed: Vec<Content> = live.iter().map(|(_, content)| *content).collect();
            let swept = collect(&store, &needed);
            prop_assert_eq!(swept.stopped, None);
            if crash {
                disk = disk.crash(0);
                store = on(&disk);
            }
            for (one, content) in &live {
                reads(&store, *content, &bytes(*one));
            }
            let mut ids = std::collections::BTreeSet::new();
            let mut room = 0u64;
            for content in &needed {
                for id in store.read(*content).unwrap().chunk_ids() {
                    let id = id.unwrap();
                    if ids.insert(id) {
                        room += store.get_stored(&id).unwrap().data.len() as u64 + 92;
                    }
                }
            }
            let packs = store.usage();
            // At most a quarter of a pack stays unneeded, plus its head and end.
            prop_assert!(
                packs.stored_bytes <= room * 4 / 3 + packs.packs * 64 + 400,
                "{} bytes for {}", packs.stored_bytes, room
            );
        }
    }
}
