//! The store's threads: workers for writers, and a keeper for what nobody waits for.
//!
//! Leaves out: what they do.
//!
//! Invariants: queues are bounded or hold numbers only; threads end when the store is dropped; without threads the
//! caller does the work.

use std::sync::OnceLock;
use std::sync::Weak;

use crossbeam_channel::{Sender, bounded, unbounded};

use super::Inner;

/// Jobs that wait for each worker.
const QUEUE_PER_WORKER: usize = 2;

type Job = Box<dyn FnOnce() + Send>;

/// Work of the keeper.
pub(super) enum Chore {
    /// Give a full pack its footer. At most as many as there are unsealed packs.
    Seal(u32),
    /// Write the index. At most one is queued.
    Flush,
}

/// Ways to the threads.
#[derive(Default)]
pub(crate) struct Pool {
    workers: Option<(usize, Sender<Job>)>,
    keeper: OnceLock<Sender<Chore>>,
}

impl Pool {
    /// A pool of `workers` threads.
    pub(super) fn start(workers: usize) -> std::io::Result<Self> {
        let (sender, receiver) = bounded::<Job>(workers * QUEUE_PER_WORKER);
        for number in 0..workers {
            let receiver = receiver.clone();
            std::thread::Builder::new().name(format!("cas-worker-{number}")).spawn(move || {
                for job in receiver {
                    job();
                }
            })?;
        }
        Ok(Self { workers: Some((workers, sender)), keeper: OnceLock::new() })
    }

    /// Starts the keeper of a store.
    pub(super) fn start_keeper(&self, store: Weak<Inner>) -> std::io::Result<()> {
        let (sender, receiver) = unbounded();
        std::thread::Builder::new().name("cas-keeper".to_owned()).spawn(move || {
            for chore in receiver {
                let Some(store) = store.upgrade() else { return };
                match chore {
                    Chore::Seal(number) => {
                        store.seal(number);
                        store.flush_index();
                    }
                    Chore::Flush => store.flush_index(),
                }
            }
        })?;
        let _ = self.keeper.set(sender);
        Ok(())
    }

    /// How many jobs one writer may have under way.
    pub(crate) fn jobs_max(&self) -> usize {
        self.workers.as_ref().map_or(1, |(count, _)| count * QUEUE_PER_WORKER)
    }

    /// Runs a job on a worker, or here when there are none. Waits while the queue is full.
    pub(crate) fn run(&self, job: Job) {
        match &self.workers {
            Some((_, sender)) => {
                if let Err(unsent) = sender.send(job) {
                    (unsent.0)();
                }
            }
            None => job(),
        }
    }

    pub(super) fn has_keeper(&self) -> bool {
        self.keeper.get().is_some()
    }

    /// Queues a chore; false when there is no keeper.
    pub(super) fn keep(&self, chore: Chore) -> bool {
        self.keeper.get().is_some_and(|keeper| keeper.send(chore).is_ok())
    }
}
