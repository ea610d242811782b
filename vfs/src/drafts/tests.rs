//! Drafts against a plain model, and the save dances of real applications.

use std::convert::Infallible;

use cas::{ChunkId, ContentId};
use journal::id::EntryId;
use journal::op::{Timestamp, Xattrs};
use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits { ops_max: 4_000, bytes_max: 200_000 };

fn drafts() -> Drafts {
    Drafts::new(Timing { quiet_ms: 50, seal_max_ms: 2_000 })
}

fn name(text: &str) -> EntryName {
    text.parse().unwrap()
}

fn key(text: &str) -> Key {
    Key::new(DirId::ROOT, &name(text))
}

fn file(byte: u8) -> DraftValue {
    let content = Content { id: ContentId::chunk(ChunkId::from_bytes([byte; 32])), len: 1 };
    let value = FileValue {
        content,
        mode: 0o644,
        mtime: Timestamp::default(),
        xattrs: Xattrs::new(),
        owner: None,
    };
    DraftValue::File { value, rests_on: None }
}

fn version(n: u8) -> VersionId {
    VersionId::new(EntryId::from_bytes([n; 32]), 0)
}

fn live(n: u8) -> Below {
    Below { name: None, bases: vec![version(n)], live: true, resolves: None }
}

fn put(drafts: &mut Drafts, now: u64, at: &str, value: DraftValue, below: Below) {
    drafts.put(now, &key(at), &name(at), value, || Ok::<_, Infallible>(below)).unwrap();
}

fn rename(
    drafts: &mut Drafts,
    now: u64,
    from: &str,
    to: &str,
    value: DraftValue,
    below: (Below, Below),
) {
    let (from_key, to_key, from_name, to_name) = (key(from), key(to), name(from), name(to));
    let from = Side { key: &from_key, name: &from_name, below: below.0 };
    let to = Side { key: &to_key, name: &to_name, below: below.1 };
    drafts.rename(now, from, to, value);
}

fn names(batch: &Batch) -> Vec<&str> {
    batch.names.iter().map(|name| name.key.folded()).collect()
}

#[test]
fn a_change_goes_after_a_quiet_time_and_at_the_latest_after_the_longest() {
    let mut d = drafts();
    put(&mut d, 0, "a", file(1), Below::default());
    assert_eq!(d.next_due_ms(), Some(50));
    assert!(d.take_due(49, LIMITS).is_none());
    for now in (40..3_000).step_by(40) {
        put(&mut d, now, "a", file(1), Below::default());
        if let Some(batch) = d.take_due(now, LIMITS) {
            assert_eq!(now, 2_000);
            assert_eq!(names(&batch), ["a"]);
            return;
        }
    }
    panic!("never published");
}

#[test]
fn changes_of_one_name_do_not_hold_back_another() {
    let mut d = drafts();
    put(&mut d, 0, "a", file(1), Below::default());
    put(&mut d, 40, "b", file(1), Below::default());
    assert_eq!(names(&d.take_due(50, LIMITS).unwrap()), ["a"]);
}

#[test]
fn the_bases_are_those_of_the_first_change() {
    let mut d = drafts();
    put(&mut d, 0, "a", file(1), live(1));
    put(&mut d, 1, "a", file(2), live(9));
    let batch = d.take_due(60, LIMITS).unwrap();
    assert!(matches!(&batch.ops[..], [Op::Put { bases, .. }] if *bases == [version(1)]));
}

#[test]
fn a_change_made_while_its_batch_is_out_is_based_on_what_the_batch_made() {
    let mut d = drafts();
    put(&mut d, 0, "a", file(1), live(1));
    let batch = d.take_due(60, LIMITS).unwrap();
    put(&mut d, 70, "a", file(2), live(9));
    assert!(d.take_due(1_000, LIMITS).is_none(), "two batches of one name were out");
    d.published(&batch, &[version(5)]);
    let next = d.take_due(1_000, LIMITS).unwrap();
    assert!(matches!(&next.ops[..], [Op::Put { bases, .. }] if *bases == [version(5)]));
    d.published(&next, &[version(6)]);
    assert!(d.is_empty());
}

#[test]
fn a_new_file_removed_while_its_batch_is_out_is_removed_for_the_others_too() {
    let mut d = drafts();
    put(&mut d, 0, "a", file(1), Below::default());
    let batch = d.take_due(60, LIMITS).unwrap();
    put(&mut d, 70, "a", DraftValue::GONE, Below::default());
    d.published(&batch, &[version(5)]);
    assert!(d.take_due(1_000, LIMITS).is_none());
    let next = d.take_due(2_100, LIMITS).unwrap();
    assert!(
        matches!(&next.ops[..], [Op::Put { value: Value::Gone { .. }, bases, .. }] if *bases == [version(5)])
    );
}

#[test]
fn a_batch_that_comes_back_changes_nothing() {
    let mut d = drafts();
    put(&mut d, 0, "x", file(1), live(1));
    rename(&mut d, 1, "x", "x1", file(1), (Below::default(), Below::default()));
    put(&mut d, 2, "x", file(2), Below::default());
    put(&mut d, 2, "new", file(2), Below::default());
    let batch = d.take_due(60, LIMITS).unwrap();
    put(&mut d, 70, "x", file(3), Below::default());
    put(&mut d, 70, "new", DraftValue::GONE, Below::default());
    d.returned(batch, 500);
    assert!(d.get(&key("new")).is_none(), "it never was published");
    assert!(d.take_due(499, LIMITS).is_none());
    let batch = d.take_due(500, LIMITS).unwrap();
    assert_eq!(names(&batch), ["x1", "x"]);
    let Op::Put { bases, value: Value::File(value), .. } = batch.ops.last().unwrap() else {
        panic!()
    };
    assert_eq!(
        (bases, value.content.id),
        (&vec![version(1)], ContentId::chunk(ChunkId::from_bytes([3; 32])))
    );
}

#[test]
fn a_save_by_renames_is_held_until_the_name_is_back() {
    let mut d = drafts();
    put(&mut d, 0, "x.blend@", file(2), Below::default());
    rename(&mut d, 10, "x.blend", "x.blend1", file(1), (live(1), live(7)));
    assert!(d.take_due(1_500, LIMITS).is_none());
    rename(&mut d, 1_500, "x.blend@", "x.blend", file(2), (Below::default(), Below::default()));
    let batch = d.take_due(1_560, LIMITS).unwrap();
    let puts: Vec<(&str, &[VersionId])> = batch
        .ops
        .iter()
        .map(|op| match op {
            Op::Put { name, bases, value: Value::File(_), .. } => (name.as_str(), &bases[..]),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(puts, [("x.blend1", &[version(7)][..]), ("x.blend", &[version(1)][..])]);
}

#[test]
fn a_name_that_stays_away_goes_with_all_that_is_tied_to_it() {
    let mut d = drafts();
    rename(&mut d, 0, "a", "b", file(1), (live(1), Below::default()));
    put(&mut d, 0, "other", file(1), Below::default());
    assert_eq!(names(&d.take_due(60, LIMITS).unwrap()), ["other"]);
    assert!(d.take_due(1_999, LIMITS).is_none());
    let batch = d.take_due(2_000, LIMITS).unwrap();
    assert_eq!(names(&batch), ["b", "a"]);
    let moved = Some((DirId::ROOT, name("b")));
    assert!(
        matches!(&batch.ops[1], Op::Put { value: Value::Gone { moved_to }, .. } if *moved_to == moved)
    );
}

#[test]
fn endless_renames_do_not_wait_for_ever() {
    let mut d = drafts();
    for now in (0..20_000).step_by(500) {
        rename(&mut d, now, "a", "b", file(1), (live(1), live(2)));
        put(&mut d, now + 100, "a", file(2), live(1));
        if d.take_due(now + 100, LIMITS).is_some() {
            assert!(now <= GROUP_AGE_MAX_MS + 500);
            return;
        }
    }
    panic!("never published");
}

#[test]
fn a_batch_is_bounded_but_never_splits_what_a_rename_ties() {
    let mut d = drafts();
    for i in 0..500 {
        rename(&mut d, 0, &format!("a{i}"), &format!("b{i}"), file(1), (live(1), Below::default()));
    }
    let limits = Limits { ops_max: 101, bytes_max: usize::MAX };
    let mut seen = 0;
    while let Some(batch) = d.take_due(2_000, limits) {
        assert!(batch.ops.len() <= 102);
        let mut ties = std::collections::HashMap::new();
        for name in names(&batch) {
            *ties.entry(name[1..].to_owned()).or_insert(0) += 1;
        }
        assert!(ties.values().all(|n| *n == 2), "a rename was split");
        seen += batch.names.len();
        let versions = vec![version(9); batch.ops.len()];
        d.published(&batch, &versions);
    }
    assert_eq!(seen, 1_000);
    assert!(d.is_empty() && d.next_due_ms().is_none());
}

#[test]
fn attributes_of_a_directory_wait_and_are_overtaken_like_names() {
    let mut d = drafts();
    let dir = DirId::from_bytes([4; 32]);
    let attr = |mode| DirAttr { mode, ..DirAttr::default() };
    d.set_dir_attr(0, dir, attr(0o700));
    let batch = d.take_due(50, LIMITS).unwrap();
    d.set_dir_attr(60, dir, attr(0o711));
    d.published(&batch, &[version(1)]);
    assert_eq!(d.dir_attr(dir), Some(&attr(0o711)));
    let batch = d.take_due(200, LIMITS).unwrap();
    assert!(matches!(&batch.ops[..], [Op::SetDir { attr: a, .. }] if *a == attr(0o711)));
    d.published(&batch, &[version(2)]);
    assert!(d.is_empty());
}

#[derive(Clone, Debug)]
enum Act {
    Put(u8),
    Remove(u8),
    Rename(u8, u8),
    Take,
    Publish,
    Return,
    Pass(u16),
}

fn act() -> impl Strategy<Value = Act> {
    let n = 0..5u8;
    prop_oneof![
        3 => n.clone().prop_map(Act::Put),
        2 => n.clone().prop_map(Act::Remove),
        3 => (n.clone(), n).prop_map(|(a, b)| Act::Rename(a, b)),
        2 => Just(Act::Take),
        2 => Just(Act::Publish),
        1 => Just(Act::Return),
        2 => (1..3_000u16).prop_map(Act::Pass),
    ]
}

/// What others see: name to version and content byte; a removed name keeps the version that says so.
type Seen = std::collections::BTreeMap<String, (VersionId, Option<u8>)>;

fn byte(value: &Value) -> Option<u8> {
    match value {
        Value::File(file) => Some(file.content.id.root().as_bytes()[0]),
        _ => None,
    }
}

proptest! {
    #[test]
    fn whatever_happens_what_is_published_is_what_was_done(acts in prop::collection::vec(act(), 1..80)) {
        let mut d = drafts();
        let (mut now, mut stamp, mut entries) = (0u64, 0u8, 0u8);
        let mut here = std::collections::BTreeMap::<String, u8>::new();
        let mut there = Seen::new();
        let mut out: Option<Batch> = None;
        let below = |there: &Seen, at: &str| match there.get(at) {
            Some((version, byte)) => Below { name: None, bases: vec![*version], live: byte.is_some(), resolves: None },
            None => Below::default(),
        };
        let publish = |d: &mut Drafts, there: &mut Seen, batch: Batch, entries: &mut u8| {
            *entries += 1;
            let versions: Vec<_> = (0..batch.ops.len())
                .map(|i| VersionId::new(EntryId::from_bytes([*entries; 32]), i as u32)).collect();
            for (op, version) in batch.ops.iter().zip(&versions) {
                let Op::Put { name, value, bases, .. } = op else { panic!("{op:?}") };
                let old = there.get(name.as_str()).map(|(version, _)| *version);
                assert_eq!(old.into_iter().collect::<Vec<_>>(), *bases, "not based on what was there");
                there.insert(name.to_string(), (*version, byte(value)));
            }
            d.published(&batch, &versions);
        };
        for act in acts {
            now += 1;
            match act {
                Act::Put(n) => {
                    stamp = stamp.wrapping_add(1);
                    let at = format!("n{n}");
                    put(&mut d, now, &at, file(stamp), below(&there, &at));
                    here.insert(at, stamp);
                }
                Act::Remove(n) => {
                    let at = format!("n{n}");
                    if here.remove(&at).is_some() {
                        put(&mut d, now, &at, DraftValue::GONE, below(&there, &at));
                    }
                }
                Act::Rename(a, b) => {
                    let (from, to) = (format!("n{a}"), format!("n{b}"));
                    if a != b && let Some(value) = here.remove(&from) {
                        rename(&mut d, now, &from, &to, file(value), (below(&there, &from), below(&there, &to)));
                        here.insert(to, value);
                    }
                }
                Act::Take => if out.is_none() {
                    out = d.take_due(now, LIMITS);
                },
                Act::Publish => if let Some(batch) = out.take() {
                    publish(&mut d, &mut there, batch, &mut entries);
                },
                Act::Return => if let Some(batch) = out.take() {
                    d.returned(batch, now);
                },
                Act::Pass(ms) => now += u64::from(ms),
            }
            // What is here is what is there, but for the drafts.
            for (at, value) in &here {
                let shown = match d.get(&key(at)).map(|draft| &draft.value) {
                    Some(DraftValue::File { value, .. }) => byte(&Value::File(value.clone())),
                    Some(_) => None,
                    None => there.get(at).and_then(|(_, byte)| *byte),
                };
                prop_assert_eq!(shown, Some(*value));
            }
        }
        if let Some(batch) = out.take() {
            publish(&mut d, &mut there, batch, &mut entries);
        }
        while let Some(due) = d.next_due_ms() {
            now = now.max(due);
            match d.take_due(now, LIMITS) {
                Some(batch) => publish(&mut d, &mut there, batch, &mut entries),
                None => now += 1,
            }
        }
        prop_assert!(d.is_empty());
        let there: std::collections::BTreeMap<String, u8> = there.into_iter().filter_map(|(k, (_, v))| Some((k, v?))).collect();
        prop_assert_eq!(here, there);
    }
}
