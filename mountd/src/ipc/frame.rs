//! Frames: a length of four bytes (big-endian) and that many bytes of JSON.
//!
//! Leaves out what the JSON says and how long a side waits (the socket's time-outs).
//!
//! Invariants: a frame of more than [`FRAME_LEN_MAX`] bytes is neither written nor read, and memory
//! for one is taken only as its bytes arrive.

use std::io::{self, Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Largest frame, bytes of JSON. A history of a hundred thousand versions fits.
pub const FRAME_LEN_MAX: usize = 16 << 20;

/// A frame could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The other side has gone, between two frames.
    #[error("the other side closed the connection")]
    Ended,
    /// The other side has gone or is silent in the middle of a frame, or the socket failed.
    #[error("the connection failed")]
    Io(#[source] io::Error),
    /// Nothing came in time.
    #[error("no answer in time")]
    TimedOut,
    /// Larger than the bound.
    #[error("a message of {len} bytes is over the limit of {FRAME_LEN_MAX}")]
    TooLong {
        /// Its length.
        len: usize,
    },
    /// The JSON does not say what was expected.
    #[error("a message that makes no sense")]
    Malformed(#[source] serde_json::Error),
}

impl FrameError {
    fn from_io(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::TimedOut,
            _ => Self::Io(error),
        }
    }
}

/// Writes one frame.
pub fn write_frame<T: Serialize>(to: &mut impl Write, value: &T) -> Result<(), FrameError> {
    let body = serde_json::to_vec(value).map_err(FrameError::Malformed)?;
    let too_long = FrameError::TooLong { len: body.len() };
    if body.len() > FRAME_LEN_MAX {
        return Err(too_long);
    }
    let len = u32::try_from(body.len()).map_err(|_| too_long)?;
    let mut bytes = Vec::with_capacity(body.len().saturating_add(4));
    bytes.extend_from_slice(&len.to_be_bytes());
    bytes.extend_from_slice(&body);
    to.write_all(&bytes).and_then(|()| to.flush()).map_err(FrameError::from_io)
}

/// Reads one frame.
pub fn read_frame<T: DeserializeOwned>(from: &mut impl Read) -> Result<T, FrameError> {
    let mut head = [0_u8; 4];
    read_head(from, &mut head)?;
    let len = usize::try_from(u32::from_be_bytes(head)).unwrap_or(usize::MAX);
    if len > FRAME_LEN_MAX {
        return Err(FrameError::TooLong { len });
    }
    // `take` grows the buffer with what arrives: a lying length costs the liar's bytes, not ours.
    let mut body = Vec::new();
    from.take(len as u64).read_to_end(&mut body).map_err(FrameError::from_io)?;
    if body.len() < len {
        return Err(FrameError::Io(io::ErrorKind::UnexpectedEof.into()));
    }
    serde_json::from_slice(&body).map_err(FrameError::Malformed)
}

/// The four bytes of the length; the end before the first of them is an orderly end.
fn read_head(from: &mut impl Read, head: &mut [u8; 4]) -> Result<(), FrameError> {
    let (first, rest) = head.split_at_mut(1);
    loop {
        match from.read(first) {
            Ok(0) => return Err(FrameError::Ended),
            Ok(_) => break,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(FrameError::from_io(e)),
        }
    }
    from.read_exact(rest).map_err(FrameError::from_io)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_a_length_and_json() {
        let mut bytes = Vec::new();
        write_frame(&mut bytes, &"hi").unwrap();
        assert_eq!(bytes, b"\x00\x00\x00\x04\"hi\"");
        let mut from = bytes.as_slice();
        assert_eq!(read_frame::<String>(&mut from).unwrap(), "hi");
        assert!(matches!(read_frame::<String>(&mut from), Err(FrameError::Ended)));
    }

    #[test]
    fn a_length_over_the_limit_is_refused_before_anything_is_read() {
        let mut bytes = u32::MAX.to_be_bytes().to_vec();
        bytes.extend_from_slice(b"whatever");
        let mut from = bytes.as_slice();
        assert!(matches!(read_frame::<String>(&mut from), Err(FrameError::TooLong { .. })));
        assert_eq!(from, b"whatever");
    }

    #[test]
    fn a_frame_over_the_limit_is_not_written() {
        let long = "x".repeat(FRAME_LEN_MAX);
        let mut bytes = Vec::new();
        assert!(matches!(write_frame(&mut bytes, &long), Err(FrameError::TooLong { .. })));
        assert!(bytes.is_empty());
    }

    #[test]
    fn every_cut_and_any_garbage_is_an_error() {
        let mut bytes = Vec::new();
        write_frame(&mut bytes, &vec!["a", "b"]).unwrap();
        for cut in 0..bytes.len() {
            let mut from = &bytes[..cut];
            assert!(read_frame::<Vec<String>>(&mut from).is_err(), "cut at {cut}");
        }
        let mut from: &[u8] = b"\x00\x00\x00\x03{]}";
        assert!(matches!(read_frame::<Vec<String>>(&mut from), Err(FrameError::Malformed(_))));
    }
}
