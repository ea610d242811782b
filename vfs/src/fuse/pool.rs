//! Threads for requests that have to wait.
//!
//! Leaves out: what they wait for; each wait has its own bound.
//!
//! Invariants: the number of threads and of waiting jobs is bounded; a full pool slows the kernel down rather than
//! growing; jobs begun are finished before the pool is gone.

use std::io;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

/// Threads; most of them sleep most of the time.
const THREADS: usize = 16;
/// Jobs that wait for a thread.
const QUEUE_MAX: usize = 256;

/// A piece of work.
pub(super) type Job = Box<dyn FnOnce() + Send>;

/// The threads and their queue.
pub(super) struct Pool {
    // Taken when the pool ends: threads stop once no sender is left.
    jobs: Option<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

/// For jobs that give other jobs.
pub(super) struct PoolHandle {
    jobs: Option<Sender<Job>>,
}

impl Pool {
    pub(super) fn new(name: &str) -> io::Result<Self> {
        let (sender, receiver): (Sender<Job>, Receiver<Job>) = bounded(QUEUE_MAX);
        let mut threads = Vec::with_capacity(THREADS);
        for index in 0..THREADS {
            let jobs = receiver.clone();
            let work = move || jobs.iter().for_each(|job| job());
            threads.push(std::thread::Builder::new().name(format!("{name}-{index}")).spawn(work)?);
        }
        Ok(Self { jobs: Some(sender), threads })
    }

    /// Queues a job, waiting for room. After the end it is dropped, which answers its request.
    pub(super) fn run(&self, job: Job) {
        if let Some(jobs) = &self.jobs
            && jobs.send(job).is_err()
        {
            tracing::warn!("a request came after the end");
        }
    }

    /// Queues a job if there is room.
    pub(super) fn try_run(&self, job: Job) -> bool {
        try_send(self.jobs.as_ref(), job)
    }

    pub(super) fn handle(&self) -> PoolHandle {
        PoolHandle { jobs: self.jobs.clone() }
    }
}

impl PoolHandle {
    /// Queues a job if there is room.
    pub(super) fn try_run(&self, job: Job) -> bool {
        try_send(self.jobs.as_ref(), job)
    }
}

fn try_send(jobs: Option<&Sender<Job>>, job: Job) -> bool {
    match jobs.map(|jobs| jobs.try_send(job)) {
        Some(Ok(())) => true,
        Some(Err(TrySendError::Full(_) | TrySendError::Disconnected(_))) | None => false,
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a pool thread panicked");
            }
        }
    }
}
