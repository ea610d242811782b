//! Golden bytes, the shape of long manifests, and hostile nodes.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::id::{ContentId, ContentKind, IdKey};
use crate::reader::Content;

/// A node of two chunks around a hole, as version 1 wrote it.
const GOLDEN: &[u8] = include_bytes!("../../golden/manifest/v1/node");
const KEY: IdKey = IdKey::from_bytes([5; 32]);

fn golden_records() -> [Record; 3] {
    let chunk = |byte, len| Record { id: ChunkId::from_bytes([byte; 32]), len };
    [chunk(0xa1, 16_384), Record::hole(1 << 40), chunk(0xb2, 77)]
}

/// A record with an id that looks like one.
fn record(number: u64) -> Record {
    Record { id: ChunkId::of(&KEY, &number.to_le_bytes()), len: 1 + number % 1000 }
}

#[derive(Default)]
struct Nodes(HashMap<ChunkId, Bytes>);

impl Nodes {
    fn put(&mut self, bytes: Vec<u8>) -> Result<ChunkId, crate::WriteError> {
        let id = ChunkId::of(&KEY, &bytes);
        self.0.insert(id, bytes.into());
        Ok(id)
    }

    fn build(&mut self, records: impl IntoIterator<Item = Record>) -> Content {
        let mut builder = Builder::new(Class::Cdc16K);
        for record in records {
            builder.push(record, &mut |bytes| self.put(bytes)).unwrap();
        }
        builder.finish(&mut |bytes| self.put(bytes)).unwrap()
    }

    fn node(&self, id: &ChunkId) -> Node {
        Node::decode(&self.0[id]).unwrap()
    }

    /// All leaf records below a node.
    fn flat(&self, id: &ChunkId, levels: &mut Vec<usize>) -> Vec<Record> {
        let node = self.node(id);
        levels.push(node.count());
        if node.level() == 0 {
            return node.records().collect();
        }
        node.records()
            .flat_map(|record| {
                let child = self.node(&record.id);
                assert_eq!((child.total_len(), child.level() + 1), (record.len, node.level()));
                self.flat(&record.id, levels)
            })
            .collect()
    }
}

#[test]
fn node_bytes_are_frozen() {
    assert_eq!(encode(0, Class::Cdc16K, &golden_records()), GOLDEN);
    let node = Node::decode(&Bytes::from_static(GOLDEN)).unwrap();
    assert_eq!((node.level(), node.class(), node.count()), (0, Class::Cdc16K, 3));
    assert_eq!(node.records().collect::<Vec<_>>(), golden_records());
    assert_eq!(node.total_len(), 16_384 + (1 << 40) + 77);
}

#[test]
fn records_are_found_by_offset() {
    let node = Node::decode(&Bytes::from_static(GOLDEN)).unwrap();
    assert_eq!(node.index_at(0), 0);
    assert_eq!(node.index_at(16_383), 0);
    assert_eq!(node.index_at(16_384), 1);
    assert_eq!(node.index_at(16_384 + (1 << 40)), 2);
    assert_eq!(node.index_at(node.total_len()), 3);
    assert_eq!(node.record(2).unwrap().1, 16_384 + (1 << 40));
    assert_eq!(node.record(3), None);
}

#[test]
fn the_empty_content_and_one_chunk_have_no_manifest() {
    let mut nodes = Nodes::default();
    let empty = nodes.build([]);
    assert_eq!(empty, Content { id: ContentId::chunk(ChunkId::of(&KEY, b"")), len: 0 });
    let one = nodes.build([record(5)]);
    assert_eq!(one, Content { id: ContentId::chunk(record(5).id), len: record(5).len });
    let hole = nodes.build([Record::hole(3), Record::hole(4)]);
    assert_eq!((hole.id.kind(), hole.len), (ContentKind::Manifest, 7));
    let records: Vec<_> = nodes.node(&hole.id.root()).records().collect();
    assert_eq!(records, [Record::hole(7)], "adjacent holes are one");
}

#[test]
fn a_long_list_is_cut_into_levels_and_comes_back() {
    let mut nodes = Nodes::default();
    let records: Vec<_> = (0..1_500_000).map(record).collect();
    let content = nodes.build(records.iter().copied());
    assert_eq!(content.len, records.iter().map(|record| record.len).sum::<u64>());
    assert_eq!(nodes.node(&content.id.root()).level(), 2);
    let mut counts = Vec::new();
    assert!(nodes.flat(&content.id.root(), &mut counts) == records);
    assert!(counts.iter().all(|count| *count <= NODE_RECORDS_MAX));
    let average = records.len() / counts.len();
    assert!((700..1400).contains(&average), "{average}");
}

#[test]
fn a_change_in_the_middle_changes_few_nodes() {
    let mut nodes = Nodes::default();
    let mut records: Vec<_> = (0..50_000).map(record).collect();
    nodes.build(records.iter().copied());
    let before = nodes.0.len();
    records.splice(20_000..20_001, [record(900_001), record(900_002)]);
    nodes.build(records);
    assert!(nodes.0.len() - before <= 4, "{} new nodes", nodes.0.len() - before);
}

#[test]
fn nodes_taken_over_give_the_same_manifest() {
    let mut nodes = Nodes::default();
    let records: Vec<_> = (0..20_000).map(record).collect();
    let whole = nodes.build(records.iter().copied());
    let root = nodes.node(&whole.id.root());
    let mut builder = Builder::new(Class::Cdc16K);
    for (index, leaf) in root.records().enumerate() {
        assert!(builder.takes_node());
        if index + 1 < root.count() {
            builder.push_node(leaf, &mut |bytes| nodes.put(bytes)).unwrap();
        } else {
            for record in nodes.node(&leaf.id).records().collect::<Vec<_>>() {
                builder.push(record, &mut |bytes| nodes.put(bytes)).unwrap();
            }
        }
    }
    assert_eq!(builder.finish(&mut |bytes| nodes.put(bytes)).unwrap(), whole);
}

#[test]
fn a_content_cannot_be_longer_than_a_length() {
    let mut builder = Builder::new(Class::Cdc16K);
    let put = &mut |_| Ok(ChunkId::from_bytes([1; 32]));
    builder.push(Record::hole(u64::MAX), put).unwrap();
    assert!(matches!(builder.push(record(1), put), Err(crate::WriteError::TooLong)));
}

#[test]
fn nodes_that_lie_are_refused() {
    let good = encode(0, Class::Cdc16K, &golden_records());
    let decode = |bytes: &[u8]| Node::decode(&Bytes::copy_from_slice(bytes)).err();
    assert_eq!(decode(&good), None);
    let mut newer = good.clone();
    newer[4] = 2;
    assert_eq!(decode(&newer), Some(DecodeError::TooNew(2)));
    let chunk = |len| Record { id: ChunkId::from_bytes([1; 32]), len };
    let lies = [
        good[..good.len() - 1].to_vec(),
        good[..HEADER_LEN + 2 * RECORD_LEN].to_vec(),
        [good.clone(), vec![0]].concat(),
        encode(0, Class::Cdc16K, &[]),
        encode(3, Class::Cdc16K, &[chunk(5)]),
        encode(0, Class::Cdc16K, &[chunk(0)]),
        encode(0, Class::Cdc16K, &[chunk(CHUNK_LEN_MAX as u64 + 1)]),
        encode(0, Class::Cdc16K, &[Record::hole(u64::MAX), chunk(1)]),
        encode(1, Class::Cdc16K, &[Record::hole(5), chunk(1)]),
        encode(0, Class::Cdc16K, &vec![chunk(1); NODE_RECORDS_MAX + 1]),
    ];
    for lie in lies {
        assert_eq!(decode(&lie), Some(DecodeError::Invalid));
    }
    for at in [0, 5, 6, 7, 8, 16, 17, 20] {
        let mut flipped = good.clone();
        flipped[at] ^= 0x80;
        assert_eq!(decode(&flipped), Some(DecodeError::Invalid), "byte {at}");
    }
}

proptest! {
    #[test]
    fn arbitrary_nodes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut node = GOLDEN[..8].to_vec();
        node.extend_from_slice(&bytes);
        let _ = Node::decode(&Bytes::from(bytes));
        let _ = Node::decode(&Bytes::from(node));
    }
}
