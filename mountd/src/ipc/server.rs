//! Listening on a drive's control socket and handing requests to its [`Service`].
//!
//! One thread accepts, one thread a connection asks the service. Leaves out what the answers are.
//!
//! Invariants:
//! - at most [`CONNECTIONS_MAX`] conversations at once; the next is told that the daemon is busy;
//! - a caller of another user is dropped without a word;
//! - [`Server::close`] returns after at most [`CLOSE_MAX`], whatever the callers do.

use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustix::event::{PollFd, PollFlags, poll};

use super::frame::{FrameError, read_frame, write_frame};
use super::message::{Hello, Reply, Request};
use super::{PROTOCOL, SOCKET_NAME, Service, socket};
use crate::report::{Code, Failure};

/// Conversations at once.
pub const CONNECTIONS_MAX: usize = 32;
/// How long a caller may take to say something, and to take an answer.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// How long [`Server::close`] waits for answers on their way.
pub const CLOSE_MAX: Duration = Duration::from_secs(5);

/// Counts the open conversations and remembers their sockets, so that closing can end them.
#[derive(Default)]
struct Open {
    streams: Mutex<Vec<Option<UnixStream>>>,
    left: Condvar,
}

impl Open {
    fn enter(&self, stream: &UnixStream) -> io::Result<Option<usize>> {
        let copy = stream.try_clone()?;
        let mut streams = self.streams.lock();
        if let Some(free) = streams.iter().position(Option::is_none) {
            if let Some(place) = streams.get_mut(free) {
                *place = Some(copy);
            }
            return Ok(Some(free));
        }
        if streams.len() >= CONNECTIONS_MAX {
            return Ok(None);
        }
        streams.push(Some(copy));
        Ok(Some(streams.len().saturating_sub(1)))
    }

    fn leave(&self, place: usize) {
        if let Some(stream) = self.streams.lock().get_mut(place) {
            *stream = None;
        }
        self.left.notify_all();
    }

    /// Ends the listening side of every conversation: those that wait for a question end, those that
    /// are being answered finish.
    fn drain(&self, within: Duration) {
        let deadline = Instant::now().checked_add(within);
        let mut streams = self.streams.lock();
        for stream in streams.iter().flatten() {
            let _ = stream.shutdown(std::net::Shutdown::Read);
        }
        while streams.iter().any(Option::is_some) {
            let timed_out = match deadline {
                Some(deadline) => self.left.wait_until(&mut streams, deadline).timed_out(),
                None => true,
            };
            if timed_out {
                tracing::warn!("a control connection did not end in time");
                return;
            }
        }
    }
}

/// A control socket that is being listened on.
pub struct Server {
    path: PathBuf,
    open: Arc<Open>,
    /// Writing end; its fall wakes the accepting thread.
    wake: Option<std::io::PipeWriter>,
    accepting: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens in `store_dir`, whose lock the caller holds, for requests to `service`.
    pub fn bind(store_dir: &Path, service: Arc<dyn Service>) -> Result<Self, Failure> {
        let path = store_dir.join(SOCKET_NAME);
        let failed = |e: io::Error| Failure::io("listen on", &path, &e);
        let listener = socket::bind(store_dir).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let (waiting, wake) = io::pipe().map_err(failed)?;
        let open = Arc::new(Open::default());
        let accepting = std::thread::Builder::new()
            .name("control".into())
            .spawn({
                let open = Arc::clone(&open);
                move || accept_all(&listener, &waiting, &open, &service)
            })
            .map_err(failed)?;
        Ok(Self { path, open, wake: Some(wake), accepting: Some(accepting) })
    }

    /// Stops listening, lets the answers on their way be sent, and takes the socket away.
    pub fn close(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        let Some(accepting) = self.accepting.take() else { return };
        self.wake = None;
        if accepting.join().is_err() {
            tracing::error!("the control socket's thread panicked");
        }
        let _ = std::fs::remove_file(&self.path);
        self.open.drain(CLOSE_MAX);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn accept_all(
    listener: &UnixListener,
    waiting: &std::io::PipeReader,
    open: &Arc<Open>,
    service: &Arc<dyn Service>,
) {
    loop {
        let mut fds = [PollFd::new(listener, PollFlags::IN), PollFd::new(waiting, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(e) => {
                tracing::error!("the control socket is lost: {e}");
                return;
            }
        }
        let [on_listener, on_waiting] = &fds;
        if !on_waiting.revents().is_empty() {
            return;
        }
        if on_listener.revents().is_empty() {
            continue;
        }
        match listener.accept() {
            Ok((stream, _)) => take_in(stream, open, service),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            // Out of descriptors or the caller has gone already: it may try again.
            Err(e) => tracing::warn!("a control connection was not accepted: {e}"),
        }
    }
}

fn take_in(stream: UnixStream, open: &Arc<Open>, service: &Arc<dyn Service>) {
    if !is_ours(&stream) {
        tracing::warn!("a control connection of another user was refused");
        return;
    }
    let bounded = stream
        .set_nonblocking(false)
        .and_then(|()| stream.set_read_timeout(Some(SILENCE_MAX)))
        .and_then(|()| stream.set_write_timeout(Some(SILENCE_MAX)));
    if let Err(e) = bounded {
        tracing::warn!("a control connection was not accepted: {e}");
        return;
    }
    let mut stream = stream;
    let place = match open.enter(&stream) {
        Ok(Some(place)) => place,
        Ok(None) => {
            let _ = write_frame(&mut stream, &Reply::Failed(Failure::busy()));
            return;
        }
        Err(e) => {
            tracing::warn!("a control connection was not accepted: {e}");
            return;
        }
    };
    let spawned = std::thread::Builder::new().name("control-request".into()).spawn({
        let open = Arc::clone(open);
        let service = Arc::clone(service);
        move || {
            let _leaving = Leaving { open: &open, place };
            if let Err(e) = converse(stream, service.as_ref()) {
                tracing::debug!("a control connection ended: {}", crate::report::chain(&e));
            }
        }
    });
    if let Err(e) = spawned {
        tracing::warn!("a control connection was not accepted: {e}");
        open.leave(place);
    }
}

/// Gives the place back even when the service panics.
struct Leaving<'a> {
    open: &'a Open,
    place: usize,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.open.leave(self.place);
    }
}

/// The kernel's word on who is at the other end.
fn is_ours(stream: &UnixStream) -> bool {
    rustix::net::sockopt::socket_peercred(stream)
        .is_ok_and(|peer| peer.uid == rustix::process::geteuid())
}

fn converse(mut stream: UnixStream, service: &dyn Service) -> Result<(), FrameError> {
    let hello: Hello = read_frame(&mut stream)?;
    write_frame(&mut stream, &Reply::Hello(Hello { protocol: PROTOCOL }))?;
    if hello.protocol != PROTOCOL {
        return Ok(());
    }
    loop {
        let request: Request = match read_frame(&mut stream) {
            Ok(request) => request,
            Err(FrameError::Ended) => return Ok(()),
            Err(e @ (FrameError::Malformed(_) | FrameError::TooLong { .. })) => {
                let failure = Failure::new(Code::Usage, crate::report::chain(&e), "");
                return write_frame(&mut stream, &Reply::Failed(failure));
            }
            Err(e) => return Err(e),
        };
        // A caller that stops listening does not stop the work: an export half done would be worse
        // than one nobody waits for.
        let mut heard = true;
        let answer = service.handle(request, &mut |step| {
            heard = heard && write_frame(&mut stream, &Reply::Progress(step)).is_ok();
        });
        let reply = match answer {
            Ok(response) => Reply::Answer(response),
            Err(failure) => Reply::Failed(failure),
        };
        match write_frame(&mut stream, &reply) {
            Err(FrameError::TooLong { len }) => {
                let failure = Failure::internal(format!("the answer has {len} bytes, too many"));
                write_frame(&mut stream, &Reply::Failed(failure))?;
            }
            other => other?,
        }
    }
}

#[cfg(test)]
mod tests;
