//! Reading and writing frames and answers on a byte stream, with bounded buffers.
//!
//! Leaves out: what the bytes mean ([`crate::wire`]).
//!
//! Invariants:
//! - a buffer never grows beyond one read block plus one frame within its bound;
//! - [`Inbox::next_frame`] and [`Inbox::next_answer`] may be dropped while waiting: nothing is lost.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::limits;
use crate::wire::chunks::{Answer, AnswerHead};
use crate::wire::{self, DecodeError, FRAME_HEAD_LEN};

/// Why a stream gives no more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The other end is done, between two messages.
    #[error("the peer closed the stream")]
    Closed,
    /// The transport failed, or ended within a message.
    #[error("the connection broke")]
    Io(#[source] io::Error),
    /// What came is no message.
    #[error("the peer breaks the protocol")]
    Decode(#[from] DecodeError),
}

/// The receiving half of a stream.
pub(crate) struct Inbox<R> {
    stream: R,
    /// All of it is initialised; the first `filled` bytes are received.
    block: BytesMut,
    filled: usize,
    block_len: usize,
    received: u64,
}

impl<R: AsyncRead + Unpin> Inbox<R> {
    pub(crate) fn new(stream: R, block_len: usize) -> Self {
        Self { stream, block: BytesMut::zeroed(block_len), filled: 0, block_len, received: 0 }
    }

    /// Bytes received so far.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// Whether something is received and not taken.
    pub(crate) fn has_bytes(&self) -> bool {
        self.filled > 0
    }

    fn ready(&self) -> &[u8] {
        self.block.get(..self.filled).unwrap_or_default()
    }

    fn take(&mut self, len: usize) -> Bytes {
        self.filled -= len;
        self.block.split_to(len).freeze()
    }

    /// Reads once; `need` is how long the buffer must at least become.
    async fn fill(&mut self, need: usize) -> Result<(), ReadError> {
        if self.block.len() < need.max(self.filled + 1) {
            let mut block = BytesMut::zeroed(need.max(self.block_len));
            if let Some(start) = block.get_mut(..self.filled) {
                start.copy_from_slice(self.block.get(..self.filled).unwrap_or_default());
            }
            self.block = block;
        }
        let space = self.block.get_mut(self.filled..).unwrap_or_default();
        let read = self.stream.read(space).await.map_err(ReadError::Io)?;
        if read == 0 {
            return Err(match self.filled {
                0 => ReadError::Closed,
                _ => ReadError::Io(io::ErrorKind::UnexpectedEof.into()),
            });
        }
        self.filled += read;
        self.received += read as u64;
        Ok(())
    }

    /// The next frame without its length field.
    pub(crate) async fn next_frame(&mut self, bound: usize) -> Result<Bytes, ReadError> {
        loop {
            let mut need = FRAME_HEAD_LEN;
            if let Some((head, _)) = self.ready().split_first_chunk::<FRAME_HEAD_LEN>() {
                need += wire::frame_len(*head, bound)?;
                if self.filled >= need {
                    return Ok(self.take(need).slice(FRAME_HEAD_LEN..));
                }
            }
            self.fill(need).await?;
        }
    }

    /// The next answer, if it is here in whole already.
    pub(crate) fn ready_answer(&mut self) -> Result<Option<Answer>, ReadError> {
        let Some(head) = AnswerHead::decode(self.ready())? else { return Ok(None) };
        if self.filled < head.answer_len() {
            return Ok(None);
        }
        let bytes = self.take(head.answer_len());
        Ok(Some(head.with_data(&bytes)))
    }

    /// Waits for more of an answer.
    pub(crate) async fn more_of_answer(&mut self) -> Result<(), ReadError> {
        let need = AnswerHead::decode(self.ready())?.map_or(0, |head| head.answer_len());
        self.fill(need).await
    }
}

/// Writes all of `bytes` and sends it off, within `time`.
pub(crate) async fn write<W: AsyncWrite + Unpin>(
    stream: &mut W,
    bytes: &[u8],
    time: Duration,
) -> io::Result<()> {
    let write = async {
        stream.write_all(bytes).await?;
        stream.flush().await
    };
    tokio::time::timeout(time, write).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))
}

/// One frame within [`limits::GREETING_TIME`].
pub(crate) async fn read_soon<R: AsyncRead + Unpin>(
    inbox: &mut Inbox<R>,
    bound: usize,
) -> Result<Bytes, ReadError> {
    tokio::time::timeout(limits::GREETING_TIME, inbox.next_frame(bound))
        .await
        .unwrap_or(Err(ReadError::Io(io::ErrorKind::TimedOut.into())))
}
