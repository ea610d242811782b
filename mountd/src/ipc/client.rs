//! Asking a drive's daemon.
//!
//! Leaves out which store belongs to a path ([`crate::paths`]) and how answers are shown.
//!
//! Invariants: a daemon that says nothing is given up after [`SILENCE_MAX`]; a daemon of another
//! version is told apart from a broken one.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::frame::{FrameError, read_frame, write_frame};
use super::message::{Hello, Progress, Reply, Request, Response};
use super::{PROTOCOL, socket};
use crate::report::Failure;

/// How long the daemon may be silent during a request before it counts as hanging.
pub const SILENCE_MAX: Duration = Duration::from_secs(120);
/// How long the first word may take.
const HELLO_MAX: Duration = Duration::from_secs(10);

/// The daemon could not be reached.
#[derive(Debug)]
pub enum ConnectError {
    /// Nobody listens: it is not running.
    NobodyListens,
    /// Somebody does, but not to us.
    Failed(Failure),
}

/// An open conversation.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
}

impl Client {
    /// Connects to the daemon of the store in `store_dir` and exchanges versions.
    pub fn connect(store_dir: &Path) -> Result<Self, ConnectError> {
        let mut stream = socket::connect(store_dir).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ConnectError::NobodyListens
            }
            _ => ConnectError::Failed(Failure::no_answer(e)),
        })?;
        set_timeouts(&stream, HELLO_MAX).map_err(ConnectError::Failed)?;
        greet(&mut stream).map_err(ConnectError::Failed)?;
        Ok(Self { stream })
    }

    /// Asks, and waits for the answer; `progress` hears how far it is.
    pub fn ask(
        &mut self,
        request: &Request,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Response, Failure> {
        let silence = match request {
            // A sync is silent for as long as it was told to wait.
            Request::Sync { timeout_ms } => {
                SILENCE_MAX.saturating_add(Duration::from_millis(*timeout_ms))
            }
            _ => SILENCE_MAX,
        };
        set_timeouts(&self.stream, silence)?;
        write_frame(&mut self.stream, request).map_err(|e| lost(&e))?;
        loop {
            match read_frame(&mut self.stream).map_err(|e| lost(&e))? {
                Reply::Progress(step) => progress(step),
                Reply::Answer(response) => return Ok(response),
                Reply::Failed(failure) => return Err(failure),
                Reply::Hello(_) => return Err(Failure::no_answer("it greets twice")),
            }
        }
    }
}

fn greet(stream: &mut UnixStream) -> Result<(), Failure> {
    // A full server says so and closes without listening to us; its word counts more than that our
    // own could not be sent.
    let sent = write_frame(stream, &Hello { protocol: PROTOCOL });
    match read_frame(stream) {
        Ok(Reply::Hello(hello)) if hello.protocol == PROTOCOL => sent.map_err(|e| lost(&e)),
        Ok(Reply::Hello(_)) => Err(Failure::other_version("the running daemon")),
        Ok(Reply::Failed(failure)) => Err(failure),
        Ok(_) => Err(Failure::no_answer("its first word makes no sense")),
        Err(e) => Err(lost(&e)),
    }
}

fn set_timeouts(stream: &UnixStream, silence: Duration) -> Result<(), Failure> {
    stream
        .set_read_timeout(Some(silence))
        .and_then(|()| stream.set_write_timeout(Some(silence)))
        .map_err(Failure::no_answer)
}

fn lost(error: &FrameError) -> Failure {
    Failure::no_answer(crate::report::chain(error))
}
