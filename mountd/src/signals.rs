//! The wish that the daemon ends, from a signal, a request or a closed mount.
//!
//! Leaves out the ending itself. SIGTERM, SIGINT and SIGHUP ask for an orderly end; a person who asks
//! [`PATIENCE`] times gets a disorderly one (the next start recovers).

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::signal::unix::{SignalKind, signal};

use crate::report::Failure;

/// So many signals end the process at once.
const PATIENCE: u32 = 3;

#[derive(Default)]
struct Shared {
    requested: Mutex<bool>,
    changed: Condvar,
}

/// Whether the daemon is to end; clones share it.
#[derive(Clone, Default)]
pub struct Stop {
    shared: Arc<Shared>,
}

impl Stop {
    /// One that no signal reaches.
    pub fn new() -> Self {
        Self::default()
    }

    /// One that the process's signals reach from now on.
    pub fn on_signals() -> Result<Self, Failure> {
        let stop = Self::new();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .map_err(Failure::internal)?;
        let (mut term, mut int, mut hup) = {
            let _inside = runtime.enter();
            let listen = |kind| signal(kind).map_err(Failure::internal);
            (
                listen(SignalKind::terminate())?,
                listen(SignalKind::interrupt())?,
                listen(SignalKind::hangup())?,
            )
        };
        let asked = stop.clone();
        let watch = move || {
            runtime.block_on(async {
                for count in 1_u32.. {
                    let which = tokio::select! {
                        _ = term.recv() => "SIGTERM",
                        _ = int.recv() => "SIGINT",
                        _ = hup.recv() => "SIGHUP",
                    };
                    tracing::info!("{which}: ending");
                    asked.request();
                    if count >= PATIENCE {
                        std::process::exit(1);
                    }
                }
            });
        };
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(watch)
            .map_err(Failure::internal)?;
        Ok(stop)
    }

    /// Asks for the end.
    pub fn request(&self) {
        *self.shared.requested.lock() = true;
        self.shared.changed.notify_all();
    }

    /// Whether the end has been asked for.
    pub fn is_requested(&self) -> bool {
        *self.shared.requested.lock()
    }

    /// Waits until the end is asked for.
    pub fn wait(&self) {
        let mut requested = self.shared.requested.lock();
        while !*requested {
            self.shared.changed.wait(&mut requested);
        }
    }

    /// Waits until the end is asked for, at most so long; says whether it was.
    pub fn wait_for(&self, at_most: Duration) -> bool {
        let mut requested = self.shared.requested.lock();
        self.shared.changed.wait_while_for(&mut requested, |r| !*r, at_most);
        *requested
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_wakes_whoever_waits() {
        let stop = Stop::new();
        assert!(!stop.wait_for(Duration::from_millis(1)));
        let waiting = std::thread::spawn({
            let stop = stop.clone();
            move || stop.wait()
        });
        stop.request();
        waiting.join().unwrap();
        assert!(stop.is_requested() && stop.wait_for(Duration::ZERO));
    }

    #[test]
    fn a_signal_is_a_request() {
        let stop = Stop::on_signals().unwrap();
        assert!(!stop.is_requested());
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::HUP)
            .unwrap();
        assert!(stop.wait_for(Duration::from_secs(10)));
    }
}
