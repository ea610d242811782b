//! Golden bytes of version 1, and that nothing else passes for them.

use proptest::prelude::*;

use super::*;
use crate::id::IdKey;

/// A pack with one raw chunk, one compressed chunk and a footer, as version 1 wrote it.
const GOLDEN_PACK: &[u8] = include_bytes!("../../golden/pack/v1/00000007.pack");

fn id(byte: u8) -> ChunkId {
    ChunkId::from_bytes([byte; 32])
}

/// The golden pack, made by today's code.
fn pack() -> Vec<u8> {
    let key = IdKey::from_bytes([0x11; 32]);
    let raw = b"a chunk that is too short to be compressed";
    let packed = [0x1f, 0x61, 0x01, 0x00, 0x43, 0x50, 0x61, 0x61, 0x61, 0x61, 0x61];
    let long = vec![b'a'; 92];
    let mut bytes = encode_pack_header(7).to_vec();
    let mut entries = Vec::new();
    let records =
        [(0, 42, ChunkId::of(&key, raw), &raw[..]), (1, 92, ChunkId::of(&key, &long), &packed[..])];
    for (flags, raw_len, id, data) in records {
        let header = RecordHeader::for_data(id, flags, raw_len, data);
        let offset = bytes.len() as u32;
        entries.push(FooterEntry { id, offset, len: header.record_len() });
        bytes.extend_from_slice(&header.encode());
        bytes.extend_from_slice(data);
    }
    let footer = encode_footer(bytes.len() as u32, &entries);
    bytes.extend_from_slice(&footer);
    bytes
}

#[test]
fn pack_bytes_are_frozen() {
    assert_eq!(pack(), GOLDEN_PACK);
}

#[test]
fn the_golden_pack_is_read() {
    assert_eq!(decode_pack_header(GOLDEN_PACK, 7), Ok(()));
    let len = GOLDEN_PACK.len();
    let trailer = &GOLDEN_PACK[len - FOOTER_TRAILER_LEN..];
    let (offset, count) = decode_trailer(trailer, len as u64).unwrap();
    assert_eq!(count, 2);
    let entries = decode_footer(&GOLDEN_PACK[offset as usize..]).unwrap();
    assert!(entries.is_sorted());
    for entry in entries {
        let record = &GOLDEN_PACK[entry.offset as usize..(entry.offset + entry.len) as usize];
        let header = RecordHeader::decode(record).unwrap();
        assert_eq!(header.id, entry.id);
        let data = &record[RECORD_HEADER_LEN..];
        assert_eq!(header.checksum(data), header.crc);
        let chunk = crate::StoredChunk {
            flags: header.flags,
            raw_len: header.raw_len,
            data: bytes::Bytes::copy_from_slice(data),
        };
        assert!(chunk.raw(&IdKey::from_bytes([0x11; 32]), &entry.id).is_some());
    }
}

#[test]
fn a_flipped_bit_in_a_header_is_seen() {
    for at in 0..PACK_HEADER_LEN * 8 {
        let mut header = encode_pack_header(3);
        header[at / 8] ^= 1 << (at % 8);
        assert!(decode_pack_header(&header, 3).is_err(), "bit {at}");
    }
    assert_eq!(decode_pack_header(&encode_pack_header(3), 4), Err(HeaderError::Invalid));
}

#[test]
fn a_newer_pack_is_refused_with_its_version() {
    let mut header = encode_pack_header(3);
    header[4] = 2;
    assert_eq!(decode_pack_header(&header, 3), Err(HeaderError::TooNew(2)));
}

#[test]
fn a_flipped_bit_in_a_record_is_seen() {
    let data = b"some data";
    let sound = RecordHeader::for_data(id(1), 0, 9, data);
    let mut record = sound.encode().to_vec();
    record.extend_from_slice(data);
    for at in 0..record.len() * 8 {
        let mut bytes = record.clone();
        bytes[at / 8] ^= 1 << (at % 8);
        let passes = RecordHeader::decode(&bytes).is_some_and(|header| {
            header.checksum(bytes.get(RECORD_HEADER_LEN..).unwrap()) == header.crc
                && header.stored_len == sound.stored_len
        });
        assert!(!passes, "bit {at}");
    }
}

#[test]
fn a_flipped_bit_in_a_footer_is_seen() {
    let entries = [
        FooterEntry { id: id(9), offset: 16, len: 100 },
        FooterEntry { id: id(2), offset: 116, len: 60 },
    ];
    let footer = encode_footer(176, &entries);
    let pack_len = 176 + footer.len() as u64;
    for at in 0..footer.len() * 8 {
        let mut bytes = footer.clone();
        bytes[at / 8] ^= 1 << (at % 8);
        let trailer = &bytes[bytes.len() - FOOTER_TRAILER_LEN..];
        let passes = decode_trailer(trailer, pack_len)
            .is_some_and(|(offset, count)| (offset, count) == (176, 2))
            && decode_footer(&bytes).is_some();
        assert!(!passes, "bit {at}");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), len in any::<u64>()) {
        let _ = decode_pack_header(&bytes, 0);
        let _ = RecordHeader::decode(&bytes);
        let _ = decode_trailer(&bytes, len);
        let _ = decode_footer(&bytes);
    }
}
