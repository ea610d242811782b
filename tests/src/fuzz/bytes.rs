//! Decoders: what they take, they give back the same; what they refuse, they refuse without harm.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use cas::chunker::Class;
use cas::format::{self, RecordHeader};
use cas::manifest::{self, Node, Record};
use cas::{ChunkId, ChunkSource, Content, ContentId, IdKey, ReadError, Reader, StoredChunk};
use journal::id::{DeviceId, DirId, DriveId, EntryId};
use journal::signed::VerifiedEntry;
use journal::{EntryName, Frontier, Op, Register, Role, Tip, VersionId};
use net::Ticket;
use net::wire::chunks::{Answer, AnswerHead, decode_request, encode_answer, encode_request};
use net::wire::locks::{Claim, Denial, LockMessage, Stage};
use net::wire::{
    Addr, Admitted, Entries, FRAME_HEAD_LEN, Have, Hello, JoinMessage, JoinProof, Message,
};

use super::fold;

fn body(frame: Vec<u8>) -> Vec<u8> {
    frame.into_iter().skip(FRAME_HEAD_LEN).collect()
}

pub(super) fn entry(input: &[u8]) {
    if let Ok(parts) = journal::codec::decode(input) {
        assert!(parts.entry.check().is_ok(), "an entry that breaks a rule was decoded");
    }
    if let Ok(entry) = VerifiedEntry::verify(input.into()) {
        assert_eq!(&**entry.bytes(), input, "the bytes of an entry changed");
    }
}

pub(super) fn entry_seeds() -> Vec<Vec<u8>> {
    fold::some_entries().iter().map(|entry| entry.bytes().to_vec()).collect()
}

pub(super) fn message(input: &[u8]) {
    if let Ok(message) = Message::decode(input) {
        let again = Message::decode(&body(message.encode()));
        assert_eq!(again, Ok(message), "a message changed on its way");
    }
}

fn some_frontier() -> Frontier {
    let entries = fold::some_entries();
    let tips = entries.iter().map(|entry| Tip {
        device: entry.entry().device,
        seq: entry.entry().seq,
        entry: entry.id(),
    });
    Frontier { tips: tips.take(3).collect() }
}

fn some_addrs() -> Vec<Addr> {
    let texts = ["/ip4/192.0.2.7/tcp/4001", "/ip6/2001:db8::1/udp/4001/quic-v1"];
    texts.iter().filter_map(|text| Addr::new(text.parse().ok()?)).collect()
}

pub(super) fn some_messages() -> Vec<Message> {
    let entries = fold::some_entries();
    let (frontier, device) = (some_frontier(), DeviceId::from_bytes([3; 32]));
    let bytes = entries.iter().map(|entry| Arc::clone(entry.bytes())).collect();
    vec![
        Message::Hello(Hello { frontier: frontier.clone(), addrs: some_addrs(), wall_ms: 5 }),
        Message::Offered,
        Message::Entries(Entries { batch: 1, frontier: frontier.clone(), entries: bytes }),
        Message::Have(Have { upto: 0, frontier: frontier.clone() }),
        Message::Want(entries.iter().map(VerifiedEntry::id).collect()),
        Message::Holds(frontier.clone()),
        Message::Addresses(vec![(device, some_addrs())]),
        Message::Probe(7),
        Message::Probed(7, frontier),
        Message::Lacks(1 << 40),
    ]
}

pub(super) fn message_seeds() -> Vec<Vec<u8>> {
    some_messages().iter().map(|message| body(message.encode())).collect()
}

pub(super) fn join(input: &[u8]) {
    if let Ok(message) = JoinMessage::decode(input) {
        let again = JoinMessage::decode(&body(message.encode()));
        assert_eq!(again, Ok(message), "a message changed on its way");
    }
}

pub(super) fn join_seeds() -> Vec<Vec<u8>> {
    let device = DeviceId::from_bytes([4; 32]);
    let genesis = fold::some_entries().first().map(|e| e.bytes().to_vec()).unwrap_or_default();
    let messages = [
        JoinMessage::Challenge([9; 32]),
        JoinMessage::Proof(Box::new(JoinProof {
            invite_key: [1; 32],
            device,
            name: "Ann".into(),
            answer: [2; 64],
            admit: [3; 64],
        })),
        JoinMessage::Admitted(Admitted { genesis, addrs: vec![(device, some_addrs())] }),
        JoinMessage::Refused(net::JoinRefusal::Used),
    ];
    messages.iter().map(|message| body(message.encode())).collect()
}

/// A message, and what a table that is new to the sender makes of it.
pub(super) fn locks(input: &[u8]) {
    let Ok(message) = LockMessage::decode(input) else { return };
    let again = LockMessage::decode(&body(message.encode()));
    assert_eq!(again.as_ref(), Ok(&message), "a message changed on its way");
    let (me, peer) = (DeviceId::from_bytes([1; 32]), DeviceId::from_bytes([4; 32]));
    let at = |boot_ms| net::locks::Now { boot_ms, wall_ms: boot_ms };
    let mut table = net::locks::Table::new(me, 1, at(1));
    table.handle_members(at(1), [peer].into(), [peer].into());
    table.handle_connected(at(20_000), peer);
    for message in [LockMessage::Hello(1), LockMessage::Ready, message.clone(), message] {
        // Whether it is in place is not the question.
        let _ = table.handle_message(at(20_001), peer, message);
    }
    table.handle_time(at(40_000));
}

pub(super) fn lock_seeds() -> Vec<Vec<u8>> {
    let Ok(name) = EntryName::new("scene.blend") else { return Vec::new() };
    let register = Register::new(DirId::ROOT, name);
    let holder = DeviceId::from_bytes([4; 32]);
    let entry = fold::some_entries().first().map_or(EntryId::from_bytes([5; 32]), |e| e.id());
    let claim = Claim {
        id: 1,
        scope: net::Scope::Name(register.clone()),
        above: vec![DirId::ROOT],
        priority: 9,
        bases: vec![VersionId::new(entry, 0)],
        stage: Stage::Held,
        age_ms: 5,
        unreachable: 0,
    };
    let below = Claim { id: 2, scope: net::Scope::Below(DirId::ROOT), ..claim.clone() };
    let denial =
        Denial { id: 1, holder, priority: 8, stage: Stage::Held, age_ms: 0, unreachable: 1 };
    let messages = [
        LockMessage::Hello(7),
        LockMessage::Claims(vec![claim, below]),
        LockMessage::Grants(vec![(1, true)]),
        LockMessage::Deny(denial),
        LockMessage::Unknown(vec![1]),
        LockMessage::Release(vec![1, 2]),
        LockMessage::Renew(3, vec![(1, 1)]),
        LockMessage::Renewed(3),
        LockMessage::Present(vec![register.clone()]),
        LockMessage::Absent(vec![register]),
    ];
    messages.iter().map(|message| body(message.encode())).collect()
}

/// A request, or answers one after the other as they stand on a stream.
pub(super) fn chunks(input: &[u8]) {
    let mut left = Bytes::copy_from_slice(input);
    if let Ok(ids) = decode_request(left.clone()) {
        assert_eq!(body(encode_request(&ids)), input, "a request changed on its way");
    }
    while let Ok(Some(head)) = AnswerHead::decode(&left) {
        if left.len() < head.answer_len() {
            break;
        }
        let one = left.split_to(head.answer_len());
        let answer = head.with_data(&one);
        let mut again = BytesMut::new();
        encode_answer(&answer, &mut again);
        assert_eq!(again, one, "an answer changed on its way");
        if let Answer::Here(chunk) = answer {
            stored_chunk(&chunk);
        }
    }
}

pub(super) fn chunk_seeds() -> Vec<Vec<u8>> {
    let ids: Vec<ChunkId> = (0..3).map(|n| ChunkId::from_bytes([n; 32])).collect();
    let mut answers = BytesMut::new();
    for data in stored_seeds() {
        encode_answer(&Answer::Missing, &mut answers);
        encode_answer(&Answer::Here(chunk_of(&data)), &mut answers);
    }
    vec![body(encode_request(&ids)), answers.to_vec()]
}

pub(super) fn ticket(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(ticket) = text.parse::<Ticket>() {
        let again: Result<Ticket, _> = ticket.to_string().parse();
        assert!(again.is_ok_and(|again| again == ticket), "a ticket changed on its way");
    }
}

pub(super) fn ticket_seeds() -> Vec<Vec<u8>> {
    let ticket = Ticket {
        drive: DriveId::from_bytes([1; 32]),
        secret: [2; 32],
        role: Role::Editor,
        expires: 1_800_000_000_000,
        inviter: DeviceId::from_bytes([3; 32]),
        addrs: some_addrs().iter().map(|addr| addr.as_multiaddr().clone()).collect(),
    };
    vec![ticket.to_string().into_bytes()]
}

/// Names, and times as people type them.
pub(super) fn names(input: &[u8]) {
    if let Ok(name) = EntryName::from_bytes(input) {
        assert!((1..=255).contains(&input.len()) && !input.contains(&b'/') && !input.contains(&0));
        let folded = EntryName::new(&name.folded());
        assert!(folded.is_ok_and(|f| f.folded() == name.folded()), "folding twice differs");
    }
    if let Ok(text) = std::str::from_utf8(input) {
        let _ = vfs::past::time::parse(text);
    }
}

pub(super) fn name_seeds() -> Vec<Vec<u8>> {
    let long = "é".repeat(127);
    let texts =
        ["scene.blend", "a\u{301}", "가", "..", "2026-11-23T16.04.05Z", "2026-11-23 16:04", &long];
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// Answers every chunk with a manifest node, as far as its name says, and otherwise with nothing.
struct Only(ChunkId, Bytes);

impl ChunkSource for Only {
    fn chunk(&self, id: &ChunkId) -> Result<Bytes, ReadError> {
        if *id == self.0 { Ok(self.1.clone()) } else { Err(ReadError::Missing { id: *id }) }
    }
}

/// A node, and a reader of the content it would be the root of.
pub(super) fn manifest(input: &[u8]) {
    let bytes = Bytes::copy_from_slice(input);
    let Ok(node) = Node::decode(&bytes) else { return };
    let total: u64 = node.records().map(|record| record.len).fold(0, u64::saturating_add);
    assert_eq!(total, node.total_len(), "a node's parts are not its whole");
    let id = ChunkId::from_bytes([5; 32]);
    let content = Content { id: ContentId::manifest(id), len: node.total_len() };
    // It may name itself as its child: that leads nowhere.
    let Ok(reader) = Reader::open(content, Arc::new(Only(id, bytes))) else { return };
    for offset in [0, content.len / 3, content.len.saturating_sub(1), u64::MAX] {
        let _ = reader.read_at(offset, &mut [0; 64]);
        let _ = reader.next_data(offset);
        let _ = reader.next_hole(offset);
    }
    let _ = reader.chunk_ids().take(10_000).count();
}

pub(super) fn manifest_seeds() -> Vec<Vec<u8>> {
    let record = |n: u8, len| Record { id: ChunkId::from_bytes([n; 32]), len };
    let flat = [record(1, 16_000), Record::hole(1 << 20), record(2, 20_000), record(3, 7)];
    let above = [record(5, 16_000 + (1 << 20)), record(6, 70_000)];
    vec![
        manifest::encode(0, Class::for_len(0), &flat),
        manifest::encode(0, Class::for_len(1 << 30), &flat),
        manifest::encode(1, Class::for_len(0), &above),
        manifest::encode(2, Class::for_len(0), &above),
    ]
}

/// The first byte is the flags, the next four the raw length, the rest the data.
fn chunk_of(input: &[u8]) -> StoredChunk {
    let raw_len = input.get(1..5).and_then(|len| len.try_into().ok()).map_or(0, u32::from_le_bytes);
    let data = Bytes::copy_from_slice(input.get(5..).unwrap_or_default());
    StoredChunk { flags: input.first().copied().unwrap_or(0), raw_len, data }
}

fn stored_chunk(chunk: &StoredChunk) {
    if let Some(raw) = chunk.raw_unverified() {
        assert_eq!(raw.len(), chunk.raw_len as usize, "another length than declared");
    }
    assert_eq!(chunk.raw(&IdKey::from_bytes([1; 32]), &ChunkId::from_bytes([0; 32])), None);
}

pub(super) fn stored(input: &[u8]) {
    stored_chunk(&chunk_of(input));
}

pub(super) fn stored_seeds() -> Vec<Vec<u8>> {
    let text = b"to be or not to be, that is the question; ".repeat(100);
    let store = cas::Store::in_memory(IdKey::from_bytes([1; 32]));
    let written = |data: &[u8]| {
        let mut writer = store.writer(None);
        writer.write(data).ok()?;
        let content = writer.finish().ok()?;
        let chunk = store.get_stored(&content.id.root()).ok()?;
        Some([&[chunk.flags][..], &chunk.raw_len.to_le_bytes(), &chunk.data].concat())
    };
    [&text[..], b"short", b""].iter().filter_map(|data| written(data)).collect()
}

/// Heads, records and footers of packs.
pub(super) fn pack_parts(input: &[u8]) {
    let _ = format::decode_pack_header(input, 1);
    if let Some(header) = RecordHeader::decode(input) {
        assert_eq!(&header.encode()[..], &input[..format::RECORD_HEADER_LEN]);
    }
    for at in [0, input.len().saturating_sub(format::FOOTER_TRAILER_LEN)] {
        let tail = input.get(at..).unwrap_or_default();
        if let Some((offset, count)) = format::decode_trailer(tail, input.len() as u64) {
            assert!(u64::from(offset) + format::footer_len(count) <= input.len() as u64);
            let _ = format::decode_footer(input.get(offset as usize..).unwrap_or_default());
        }
    }
    if let Some(entries) = format::decode_footer(input) {
        assert!(entries.len() <= format::PACK_RECORDS_MAX);
    }
}

/// One of each operation that needs nothing but itself.
pub(super) fn plain_ops() -> Vec<Op> {
    vec![
        Op::Snapshot { name: "before the cut".into() },
        Op::Rename { what: journal::op::Named::Drive, name: "film".into() },
        Op::Locks(journal::LockPolicy::Advisory),
    ]
}
