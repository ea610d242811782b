//! Serving chunks: reads requests of one stream, reads ahead from the store, writes answers in order.
//!
//! Leaves out: asking others (`transfer`).
//!
//! Invariants:
//! - membership is asked for every request;
//! - at most [`limits::REQUEST_QUEUE_MAX`] requests and [`limits::SERVE_AHEAD_MAX`] blocks of records
//!   wait for a peer, whatever it asks for and however slowly it reads.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use cas::ChunkId;
use futures::AsyncReadExt as _;
use futures::io::WriteHalf;
use journal::id::DeviceId;
use libp2p::swarm::Stream;
use tokio::sync::mpsc;

use crate::frames::{self, Inbox, ReadError};
use crate::limits;
use crate::node::{Node, Traffic};
use crate::wire::chunks::{ANSWER_HEAD_LEN, Answer, decode_request, encode_answer};

/// Longest request frame: kind and ids.
const REQUEST_LEN_MAX: usize = 1 + 32 * limits::REQUEST_IDS_MAX;
/// Bytes read from a request stream at once.
const READ_LEN: usize = 16 * 1024;

/// Why serving ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum End {
    #[error("the peer is no member any more")]
    NotMember,
    #[error("the stream ended")]
    Read(#[from] ReadError),
    #[error("the peer does not read")]
    Write,
}

/// Serves until the stream ends. Dropping it stops after the block being read.
pub(crate) async fn run(node: Arc<Node>, device: DeviceId, stream: Stream) -> End {
    let (reader, writer) = stream.split();
    let mut inbox = Inbox::new(reader, READ_LEN);
    let (requests, request_queue) = mpsc::channel::<Vec<ChunkId>>(limits::REQUEST_QUEUE_MAX);
    let (blocks, block_queue) = mpsc::channel::<Bytes>(limits::SERVE_AHEAD_MAX);
    let traffic = node.traffic(&device);
    let reading = tokio::spawn(read_ahead(node.clone(), request_queue, blocks));
    let writing = write_blocks(writer, block_queue, traffic.clone());
    tokio::pin!(writing);
    let mut counted = 0;
    let end = loop {
        // A peer that asks faster than it reads is read no further.
        let room = tokio::select! {
            room = requests.reserve() => room,
            () = &mut writing => break End::Write,
        };
        let Ok(room) = room else { break End::Write };
        let frame = tokio::select! {
            frame = inbox.next_frame(REQUEST_LEN_MAX) => frame,
            () = &mut writing => break End::Write,
        };
        traffic.add_received(inbox.received() - counted);
        counted = inbox.received();
        let ids = match frame.and_then(|frame| Ok(decode_request(frame)?)) {
            Ok(ids) => ids,
            Err(error) => break error.into(),
        };
        if !node.is_member(&device) {
            break End::NotMember;
        }
        room.send(ids);
    };
    reading.abort();
    end
}

/// Reads the records of each request on a blocking thread, ahead of the writer.
async fn read_ahead(
    node: Arc<Node>,
    mut requests: mpsc::Receiver<Vec<ChunkId>>,
    blocks: mpsc::Sender<Bytes>,
) {
    while let Some(ids) = requests.recv().await {
        let (node, blocks) = (node.clone(), blocks.clone());
        let read = tokio::task::spawn_blocking(move || read_records(&node, &ids, &blocks));
        if !matches!(read.await, Ok(true)) {
            return;
        }
    }
}

/// False when nobody takes the blocks any more.
fn read_records(node: &Node, ids: &[ChunkId], blocks: &mpsc::Sender<Bytes>) -> bool {
    let mut block = BytesMut::with_capacity(limits::SERVE_BLOCK_LEN);
    for id in ids {
        let answer = match node.chunks.get_stored(id) {
            Some(chunk) if chunk.data.len() <= limits::CHUNK_STORED_LEN_MAX => Answer::Here(chunk),
            _ => Answer::Missing,
        };
        let len = match &answer {
            Answer::Here(chunk) => ANSWER_HEAD_LEN + chunk.data.len(),
            Answer::Missing => ANSWER_HEAD_LEN,
        };
        if block.len() + len > limits::SERVE_BLOCK_LEN && !block.is_empty() {
            let full = std::mem::replace(
                &mut block,
                BytesMut::with_capacity(limits::SERVE_BLOCK_LEN.max(len)),
            );
            if blocks.blocking_send(full.freeze()).is_err() {
                return false;
            }
        }
        encode_answer(&answer, &mut block);
    }
    block.is_empty() || blocks.blocking_send(block.freeze()).is_ok()
}

async fn write_blocks(
    mut writer: WriteHalf<Stream>,
    mut blocks: mpsc::Receiver<Bytes>,
    traffic: Arc<Traffic>,
) {
    while let Some(block) = blocks.recv().await {
        if frames::write(&mut writer, &block, limits::WRITE_TIME).await.is_err() {
            return;
        }
        traffic.add_sent(block.len() as u64);
    }
}
