//! Golden bytes of every message, round trips, refusals, and bytes that are no message at all.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use cas::{ChunkId, StoredChunk};
use data_encoding::HEXLOWER;
use journal::chain::{Frontier, Tip};
use journal::id::{DeviceId, EntryId};

use super::chunks::*;
use super::*;
use crate::testing::Rng;

fn frontier() -> Frontier {
    let tip = Tip {
        device: DeviceId::from_bytes([1; 32]),
        seq: 300,
        entry: EntryId::from_bytes([2; 32]),
    };
    Frontier { tips: vec![tip] }
}

fn addr() -> Addr {
    Addr::new("/ip4/10.0.0.7/tcp/4001".parse().unwrap()).unwrap()
}

const TIP: &str = concat!(
    "01",
    "0101010101010101010101010101010101010101010101010101010101010101",
    "ac02",
    "0202020202020202020202020202020202020202020202020202020202020202",
);

/// Every message with its bytes after the length field. A change here is a new protocol version.
fn golden() -> Vec<(Message, String)> {
    let entries: Vec<Arc<[u8]>> = vec![Arc::from(b"one".as_slice()), Arc::from(b"".as_slice())];
    let id = "03".repeat(32);
    vec![
        (
            Message::Hello(Hello { frontier: frontier(), addrs: vec![addr()], wall_ms: 1 }),
            format!("01{TIP}0108040a000007060fa101"),
        ),
        (
            Message::Entries(Entries { batch: 2, frontier: frontier(), entries }),
            format!("020200000000000000{}{TIP}030000006f6e6500000000", "43000000"),
        ),
        (Message::Have(Have { upto: 128, frontier: frontier() }), format!("038001{TIP}")),
        (Message::Want(vec![EntryId::from_bytes([3; 32])]), format!("0401{id}")),
        (Message::Offered, "05".into()),
        (Message::Holds(frontier()), format!("06{TIP}")),
        (
            Message::Addresses(vec![(DeviceId::from_bytes([3; 32]), vec![addr()])]),
            format!("0701{id}0108040a000007060fa1"),
        ),
        (Message::Probe(7), "0807".into()),
        (Message::Probed(7, frontier()), format!("0907{TIP}")),
        (Message::Lacks(300), "0aac02".into()),
    ]
}

fn golden_join() -> Vec<(JoinMessage, String)> {
    let proof = JoinProof {
        invite_key: [1; 32],
        device: DeviceId::from_bytes([2; 32]),
        name: "ab".into(),
        answer: [3; 64],
        admit: [4; 64],
    };
    let key = |n: &str| n.repeat(32);
    let proof_hex =
        format!("02{}{}026162{}{}", key("01"), key("02"), "03".repeat(64), "04".repeat(64));
    let admitted = Admitted {
        genesis: vec![9, 8],
        addrs: vec![(DeviceId::from_bytes([2; 32]), vec![addr()])],
    };
    vec![
        (JoinMessage::Challenge([5; 32]), format!("01{}", key("05"))),
        (JoinMessage::Proof(Box::new(proof)), proof_hex),
        (JoinMessage::Admitted(admitted), format!("0302090801{}0108040a000007060fa1", key("02"))),
        (JoinMessage::Refused(JoinRefusal::Invalid), "0400".into()),
        (JoinMessage::Refused(JoinRefusal::Expired), "0401".into()),
        (JoinMessage::Refused(JoinRefusal::Used), "0402".into()),
        (JoinMessage::Refused(JoinRefusal::Void), "0403".into()),
        (JoinMessage::Refused(JoinRefusal::Unable), "0404".into()),
        (JoinMessage::Refused(JoinRefusal::Busy), "0405".into()),
    ]
}

fn body(frame: &[u8]) -> &[u8] {
    let (head, body) = frame.split_first_chunk::<4>().unwrap();
    assert_eq!(frame_len(*head, limits::FRAME_LEN_MAX), Ok(body.len()));
    body
}

#[test]
fn journal_messages_have_their_golden_bytes() {
    for (message, hex) in golden() {
        let frame = message.encode();
        assert_eq!(HEXLOWER.encode(body(&frame)), hex, "{message:?}");
        assert_eq!(Message::decode(body(&frame)), Ok(message));
    }
}

#[test]
fn join_messages_have_their_golden_bytes() {
    for (message, hex) in golden_join() {
        let frame = message.encode();
        assert_eq!(HEXLOWER.encode(body(&frame)), hex, "{message:?}");
        assert_eq!(JoinMessage::decode(body(&frame)), Ok(message));
    }
}

#[test]
fn chunk_requests_and_answers_have_their_golden_bytes() {
    let ids = [ChunkId::from_bytes([1; 32]), ChunkId::from_bytes([2; 32])];
    let frame = encode_request(&ids);
    let hex = format!("410000000{}{}{}", 1, "01".repeat(32), "02".repeat(32));
    assert_eq!(HEXLOWER.encode(&frame), hex);
    assert_eq!(decode_request(Bytes::from(frame).slice(4..)), Ok(ids.to_vec()));
    let chunk = StoredChunk { flags: 1, raw_len: 300, data: Bytes::from_static(b"xyz") };
    let mut out = BytesMut::new();
    encode_answer(&Answer::Missing, &mut out);
    encode_answer(&Answer::Here(chunk.clone()), &mut out);
    assert_eq!(
        HEXLOWER.encode(&out),
        "0000000000000000000001012c01000003000000".to_owned() + "78797a"
    );
    let (first, second) = out.split_at(ANSWER_HEAD_LEN);
    let head = AnswerHead::decode(first).unwrap().unwrap();
    assert_eq!(head.with_data(&Bytes::copy_from_slice(first)), Answer::Missing);
    let head = AnswerHead::decode(second).unwrap().unwrap();
    assert_eq!(head.answer_len(), second.len());
    assert_eq!(head.with_data(&Bytes::copy_from_slice(second)), Answer::Here(chunk));
}

#[test]
fn every_truncation_and_every_extra_byte_is_refused() {
    for (message, _) in golden() {
        let frame = message.encode();
        let body = body(&frame);
        for len in 0..body.len() {
            let cut = Message::decode(&body[..len]);
            assert!(cut.is_err() || matches!(message, Message::Entries(_)), "{message:?} {len}");
            assert_ne!(cut, Ok(message.clone()));
        }
        assert!(Message::decode(&[body, &[0]].concat()).is_err(), "{message:?}");
    }
    for (message, _) in golden_join() {
        let frame = message.encode();
        let body = body(&frame);
        for len in 0..body.len() {
            assert!(JoinMessage::decode(&body[..len]).is_err(), "{message:?} {len}");
        }
        assert!(JoinMessage::decode(&[body, &[0]].concat()).is_err(), "{message:?}");
    }
}

#[test]
fn unknown_kinds_are_named() {
    assert_eq!(Message::decode(&[99]), Err(DecodeError::UnknownKind(99)));
    assert_eq!(JoinMessage::decode(&[99]), Err(DecodeError::UnknownKind(99)));
    assert_eq!(decode_request(Bytes::from_static(&[9])), Err(DecodeError::UnknownKind(9)));
    assert_eq!(AnswerHead::decode(&[9; 10]), Err(DecodeError::UnknownKind(9)));
    assert_eq!(Message::decode(&[]), Err(DecodeError::Malformed));
}

#[test]
fn lengths_and_counts_beyond_their_bounds_are_refused() {
    let too_long = |e: DecodeError| matches!(e, DecodeError::TooLong { .. });
    assert!(too_long(frame_len([0, 0, 16, 1], limits::FRAME_LEN_MAX).unwrap_err()));
    assert_eq!(frame_len([0; 4], 10), Err(DecodeError::Malformed));
    let many = vec![EntryId::from_bytes([0; 32]); limits::WANT_IDS_MAX + 1];
    assert!(too_long(Message::decode(body(&Message::Want(many).encode())).unwrap_err()));
    let addrs = vec![addr(); limits::ADDRS_PER_DEVICE_MAX + 1];
    let hello = Hello { frontier: Frontier::default(), addrs, wall_ms: 0 };
    assert!(too_long(Message::decode(body(&Message::Hello(hello).encode())).unwrap_err()));
    let entry: Arc<[u8]> = vec![0; limits::ENTRY_LEN_MAX + 1].into();
    let entries = Entries { batch: 1, frontier: Frontier::default(), entries: vec![entry] };
    assert!(too_long(Message::decode(body(&Message::Entries(entries).encode())).unwrap_err()));
    let ids = vec![ChunkId::from_bytes([0; 32]); limits::REQUEST_IDS_MAX + 1];
    let request = Bytes::from(encode_request(&ids)).slice(4..);
    assert!(too_long(decode_request(request).unwrap_err()));
    let mut answer = vec![1, 0, 0, 0, 0, 0];
    answer.extend_from_slice(&(limits::CHUNK_STORED_LEN_MAX as u32 + 1).to_le_bytes());
    assert!(too_long(AnswerHead::decode(&answer).unwrap_err()));
    let name = "x".repeat(limits::NAME_LEN_MAX + 1);
    let (answer, admit) = ([0; 64], [0; 64]);
    let device = DeviceId::from_bytes([0; 32]);
    let proof = JoinProof { invite_key: [0; 32], device, name, answer, admit };
    let frame = JoinMessage::Proof(Box::new(proof)).encode();
    assert!(too_long(JoinMessage::decode(body(&frame)).unwrap_err()));
}

#[test]
fn arbitrary_bytes_never_panic_and_never_decode_to_what_they_are_not() {
    let mut rng = Rng::new(1);
    let seeds: Vec<Vec<u8>> = golden()
        .iter()
        .map(|(m, _)| body(&m.encode()).to_vec())
        .chain(golden_join().iter().map(|(m, _)| body(&m.encode()).to_vec()))
        .collect();
    for _ in 0..20_000 {
        let mut bytes = seeds[rng.below(seeds.len())].clone();
        for _ in 0..=rng.below(4) {
            let at = rng.below(bytes.len());
            bytes[at] = rng.next() as u8;
        }
        if let Ok(message) = Message::decode(&bytes) {
            assert_eq!(Message::decode(body(&message.encode())), Ok(message));
        }
        if let Ok(message) = JoinMessage::decode(&bytes) {
            assert_eq!(JoinMessage::decode(body(&message.encode())), Ok(message));
        }
        let _ = AnswerHead::decode(&bytes);
        let _ = decode_request(bytes.into());
    }
}

#[test]
fn only_addresses_of_our_transports_are_taken() {
    for good in [
        "/ip4/1.2.3.4/tcp/1",
        "/ip6/::1/udp/5/quic-v1",
        "/dns4/example.org/tcp/443",
        "/dns/example.org/udp/1/quic-v1",
    ] {
        assert!(Addr::new(good.parse().unwrap()).is_some(), "{good}");
    }
    for bad in ["/ip4/1.2.3.4/udp/1", "/ip4/1.2.3.4/tcp/1/ws", "/unix/etc", "/memory/1", "/tcp/1"] {
        assert!(Addr::new(bad.parse().unwrap()).is_none(), "{bad}");
    }
    let peer = libp2p::PeerId::random();
    let with_peer = format!("/ip4/1.2.3.4/tcp/1/p2p/{peer}").parse().unwrap();
    assert_eq!(Addr::new(with_peer).unwrap().to_string(), "/ip4/1.2.3.4/tcp/1");
    let relay = format!("/ip4/1.2.3.4/tcp/1/p2p/{peer}/p2p-circuit").parse().unwrap();
    assert!(Addr::new(relay).is_none());
}

/// The largest of everything still fits a frame.
const _: () = {
    let entries = limits::BATCH_LEN_MAX + 4 * limits::BATCH_ENTRIES_MAX;
    let frontier = journal::chain::TIPS_MAX * (32 + 10 + 32) + 4;
    assert!(limits::ENTRY_LEN_MAX <= limits::BATCH_LEN_MAX);
    assert!(entries + frontier + 32 <= limits::FRAME_LEN_MAX);
};

#[test]
fn a_frontier_of_too_many_tips_is_refused() {
    let tips = vec![frontier().tips[0]; journal::chain::TIPS_MAX + 1];
    let long = Frontier { tips };
    for message in [
        Message::Hello(Hello { frontier: long.clone(), addrs: vec![], wall_ms: 0 }),
        Message::Have(Have { upto: 0, frontier: long.clone() }),
        Message::Holds(long.clone()),
        Message::Probed(0, long.clone()),
        Message::Entries(Entries {
            batch: 1,
            frontier: long,
            entries: vec![Arc::from([0u8].as_slice())],
        }),
    ] {
        let error = Message::decode(body(&message.encode())).unwrap_err();
        assert!(matches!(error, DecodeError::TooLong { what: "frontier", .. }));
    }
}
