//! Fetching chunks: carries out what [`crate::fetch`] decides.
//!
//! One task owns the scheduler; each peer has two lane tasks, foreground and background, each with one
//! long-lived stream on which requests are pipelined. What arrives is verified and kept by the host on
//! blocking threads, a batch at a time.
//!
//! Leaves out: which chunk is asked of whom (fetch) and serving others (`serve`).
//!
//! Invariants:
//! - a lane reads no further while [`limits::STORE_QUEUE_MAX`] batches wait for the store;
//! - outcomes reach the scheduler in the order of the answers;
//! - a lane that owes answers and is silent for [`limits::CHUNK_SILENCE_TIME`] is given up.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use cas::{ChunkId, Content, ContentId, MissingChunks, StoredChunk};
use futures::AsyncReadExt as _;
use futures::io::{ReadHalf, WriteHalf};
use journal::id::DeviceId;
use libp2p::swarm::Stream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::error::FetchError;
use crate::fetch::{Effect, Outcome, Priority, Scheduler};
use crate::frames::{self, Inbox, ReadError};
use crate::handle::Event;
use crate::host::{ChunkHost, PutError};
use crate::limits;
use crate::node::{Node, Traffic};
use crate::wire::chunks::{Answer, encode_request};

/// What the fetching task is told.
pub(crate) enum Input {
    Want(Vec<Content>, Priority),
    Unwant(Vec<ContentId>),
    Fetch(Vec<ChunkId>, oneshot::Sender<Result<(), FetchError>>),
    PeerUp { peer: DeviceId, session: u64, distance: u64, open: Opener },
    PeerDown { peer: DeviceId, session: u64 },
    PeerNews(DeviceId),
    Outcomes { peer: DeviceId, session: u64, lane: Priority, outcomes: Vec<(ChunkId, Outcome)> },
    LaneLost { peer: DeviceId, session: u64, lane: Priority, fault: Fault },
    Examined { asked: Vec<Content>, results: Vec<(ContentId, Option<MissingChunks>)> },
}

/// Whose doing the end of a lane was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A link breaks.
    Nobody,
    /// The peer sent what no peer may send, or nothing.
    Peer,
}

/// Opens a chunk stream to one peer.
pub(crate) type Opener =
    Arc<dyn Fn() -> futures::future::BoxFuture<'static, Option<Stream>> + Send + Sync>;

/// Tells the driver that a peer broke the rules.
pub(crate) type Strikes = mpsc::UnboundedSender<DeviceId>;

/// How often the remaining bytes are told to others, at most.
const LACK_INTERVAL: Duration = Duration::from_millis(500);
/// Inputs waiting for the fetching task, count.
const INPUT_QUEUE_MAX: usize = 256;
/// Requests waiting for a lane, count: its window is smaller.
const LANE_QUEUE_MAX: usize = limits::WINDOW_IDS_MAX;

/// The way to the fetching task.
pub(crate) fn channel() -> (mpsc::Sender<Input>, mpsc::Receiver<Input>) {
    mpsc::channel(INPUT_QUEUE_MAX)
}

struct Lanes {
    session: u64,
    requests: [mpsc::Sender<Vec<ChunkId>>; 2],
    tasks: [JoinHandle<()>; 2],
    open: Opener,
}

impl Drop for Lanes {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

struct Fetcher {
    node: Arc<Node>,
    scheduler: Scheduler,
    lanes: BTreeMap<DeviceId, Lanes>,
    tickets: BTreeMap<u64, oneshot::Sender<Result<(), FetchError>>>,
    back: mpsc::Sender<Input>,
    strikes: Strikes,
}

/// Runs until it is aborted; its lanes end with it.
pub(crate) async fn run(
    node: Arc<Node>,
    mut inputs: mpsc::Receiver<Input>,
    back: mpsc::Sender<Input>,
    strikes: Strikes,
) {
    let scheduler = Scheduler::default();
    let mut fetcher = Fetcher {
        scheduler,
        lanes: BTreeMap::new(),
        tickets: BTreeMap::new(),
        back,
        strikes,
        node,
    };
    let mut tell_lack = tokio::time::interval(LACK_INTERVAL);
    tell_lack.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        fetcher.carry_out();
        let now_ms = fetcher.node.now_ms();
        let wait = fetcher.scheduler.next_ms().map(|at| at.saturating_sub(now_ms).max(1));
        tokio::select! {
            input = inputs.recv() => match input {
                Some(input) => fetcher.handle(input),
                None => return,
            },
            () = tokio::time::sleep(Duration::from_millis(wait.unwrap_or(0))), if wait.is_some() => {
                let now_ms = fetcher.node.now_ms();
                fetcher.scheduler.handle_time(now_ms);
            }
            _ = tell_lack.tick() => {
                let lack = fetcher.scheduler.remaining();
                fetcher.node.lack.send_if_modified(|told| std::mem::replace(told, lack) != lack);
            }
        }
    }
}

impl Fetcher {
    fn handle(&mut self, input: Input) {
        let now_ms = self.node.now_ms();
        match input {
            Input::Want(contents, priority) => self.scheduler.want(&contents, priority, now_ms),
            Input::Unwant(contents) => self.scheduler.unwant(&contents, now_ms),
            Input::Fetch(ids, answer) => {
                self.tickets.retain(|ticket, waiting| {
                    let waits = !waiting.is_closed();
                    if !waits {
                        self.scheduler.forget(*ticket);
                    }
                    waits
                });
                let ticket = self.scheduler.fetch(&ids, now_ms);
                self.tickets.insert(ticket, answer);
            }
            Input::PeerUp { peer, session, distance, open } => {
                self.lanes.insert(peer, self.new_lanes(peer, session, open));
                self.scheduler.peer_up(peer, distance, now_ms);
            }
            Input::PeerDown { peer, session } => {
                if self.is_current(&peer, session) {
                    self.lanes.remove(&peer);
                    self.scheduler.peer_down(&peer, now_ms);
                }
            }
            Input::PeerNews(peer) => self.scheduler.peer_news(&peer, now_ms),
            Input::Outcomes { peer, session, lane, outcomes } => {
                if self.is_current(&peer, session) {
                    self.scheduler.handle_outcomes(&peer, lane, &outcomes, now_ms);
                }
            }
            Input::LaneLost { peer, session, lane, fault } => {
                if fault == Fault::Peer {
                    self.strike(peer);
                }
                if self.is_current(&peer, session) {
                    self.renew_lane(peer, lane);
                    self.scheduler.lane_lost(&peer, lane, now_ms);
                }
            }
            Input::Examined { asked, results } => {
                self.scheduler.handle_examined(&asked, results, now_ms);
            }
        }
    }

    fn is_current(&self, peer: &DeviceId, session: u64) -> bool {
        self.lanes.get(peer).is_some_and(|lanes| lanes.session == session)
    }

    fn strike(&self, peer: DeviceId) {
        // Fails only when the driver is gone.
        let _ = self.strikes.send(peer);
    }

    fn new_lanes(&self, peer: DeviceId, session: u64, open: Opener) -> Lanes {
        let (foreground, task_f) = self.spawn_lane(peer, session, Priority::Foreground, &open);
        let (background, task_b) = self.spawn_lane(peer, session, Priority::Background, &open);
        Lanes { session, requests: [foreground, background], tasks: [task_f, task_b], open }
    }

    fn spawn_lane(
        &self,
        peer: DeviceId,
        session: u64,
        lane: Priority,
        open: &Opener,
    ) -> (mpsc::Sender<Vec<ChunkId>>, JoinHandle<()>) {
        let (requests, queue) = mpsc::channel(LANE_QUEUE_MAX);
        let task = LaneTask {
            node: self.node.clone(),
            traffic: self.node.traffic(&peer),
            peer,
            session,
            lane,
            back: self.back.clone(),
        };
        (requests, tokio::spawn(task.run(open.clone(), queue)))
    }

    fn renew_lane(&mut self, peer: DeviceId, lane: Priority) {
        let Some((session, open)) = self.lanes.get(&peer).map(|l| (l.session, l.open.clone()))
        else {
            return;
        };
        let (requests, task) = self.spawn_lane(peer, session, lane, &open);
        if let Some(lanes) = self.lanes.get_mut(&peer) {
            let at = usize::from(lane == Priority::Background);
            if let (Some(old), Some(old_task)) =
                (lanes.requests.get_mut(at), lanes.tasks.get_mut(at))
            {
                *old = requests;
                std::mem::replace(old_task, task).abort();
            }
        }
    }

    fn carry_out(&mut self) {
        while let Some(effect) = self.scheduler.poll_effect() {
            match effect {
                Effect::Request { peer, lane, ids } => {
                    let Some(lanes) = self.lanes.get(&peer) else { continue };
                    let [foreground, background] = &lanes.requests;
                    let requests = match lane {
                        Priority::Foreground => foreground,
                        Priority::Background => background,
                    };
                    // Cannot be full: the window is smaller. Closed: the lane's end is on its way here.
                    let _ = requests.try_send(ids);
                }
                Effect::Examine(contents) => self.examine(contents),
                Effect::Complete(content) => {
                    self.node.tell(Event::ContentArrived(content));
                    self.node.bump_changed();
                }
                Effect::OutOfReach(content) => self.node.tell(Event::ContentOutOfReach(content)),
                Effect::WithinReach(content) => self.node.tell(Event::ContentWithinReach(content)),
                Effect::Strike(peer) => self.strike(peer),
                Effect::Full => self.node.tell(Event::StoreFull),
                Effect::Answer { ticket, result } => {
                    if let Some(waiting) = self.tickets.remove(&ticket) {
                        // Whoever waited may have given up.
                        let _ = waiting.send(result);
                    }
                }
            }
        }
    }

    fn examine(&self, asked: Vec<Content>) {
        let (node, back) = (self.node.clone(), self.back.clone());
        tokio::task::spawn_blocking(move || {
            let results = examine(&*node.chunks, &asked);
            // Fails only when the fetching task is gone.
            let _ = back.blocking_send(Input::Examined { asked, results });
        });
    }
}

/// What each content lacks; stops when enough was found. What is complete is durable on return.
fn examine(chunks: &dyn ChunkHost, asked: &[Content]) -> Vec<(ContentId, Option<MissingChunks>)> {
    let mut left = limits::EXAMINE_IDS_MAX;
    let mut results = Vec::new();
    let mut complete = false;
    for content in asked {
        if left == 0 {
            break;
        }
        let missing = chunks.missing(*content, left);
        if let Some(missing) = &missing {
            left = left.saturating_sub(missing.ids.len());
            complete |= missing.complete;
        }
        results.push((content.id, missing));
    }
    if complete && !chunks.sync() {
        // Not durable, so not complete: the contents are examined again later.
        for (_, missing) in &mut results {
            if missing.as_ref().is_some_and(|m| m.complete) {
                *missing = None;
            }
        }
    }
    results
}

struct LaneTask {
    node: Arc<Node>,
    traffic: Arc<Traffic>,
    peer: DeviceId,
    session: u64,
    lane: Priority,
    back: mpsc::Sender<Input>,
}

type Batch = Vec<(ChunkId, Answer)>;
type Storing = JoinHandle<Vec<(ChunkId, Outcome)>>;

impl LaneTask {
    async fn run(self, open: Opener, mut queue: mpsc::Receiver<Vec<ChunkId>>) {
        let Some(first) = queue.recv().await else { return };
        let fault = match open().await {
            Some(stream) => self.exchange(stream, first, queue).await,
            None => {
                // The connection is likely about to end; asking again at once would spin.
                tokio::time::sleep(limits::RECONNECT_MIN).await;
                Fault::Nobody
            }
        };
        let Self { peer, session, lane, .. } = self;
        // Fails only when the fetching task is gone.
        let _ = self.back.send(Input::LaneLost { peer, session, lane, fault }).await;
    }

    async fn exchange(
        &self,
        stream: Stream,
        first: Vec<ChunkId>,
        mut queue: mpsc::Receiver<Vec<ChunkId>>,
    ) -> Fault {
        let (reader, mut writer) = stream.split();
        let mut inbox = Inbox::new(reader, limits::READ_BLOCK_LEN);
        let mut expected: VecDeque<ChunkId> = VecDeque::new();
        let mut storing: VecDeque<Storing> = VecDeque::new();
        let mut batch = Batch::new();
        let mut counted = 0;
        if self.request(&mut writer, first, &mut expected).await.is_err() {
            return Fault::Nobody;
        }
        loop {
            // Whole answers first, then off to the store what is here, then wait for more.
            match take_answers(&mut inbox, &mut expected, &mut batch) {
                Ok(()) => {}
                Err(error) => return fault_of(&error),
            }
            if !batch.is_empty() {
                storing.push_back(self.store(std::mem::take(&mut batch)));
            }
            if expected.is_empty() && inbox.has_bytes() {
                // Bytes that nobody asked for.
                return Fault::Peer;
            }
            self.traffic.add_received(inbox.received() - counted);
            counted = inbox.received();
            let may_read = storing.len() < limits::STORE_QUEUE_MAX;
            tokio::select! {
                outcomes = first_stored(&mut storing), if !storing.is_empty() => {
                    let Some(outcomes) = outcomes else { return Fault::Nobody };
                    let Self { peer, session, lane, .. } = *self;
                    let input = Input::Outcomes { peer, session, lane, outcomes };
                    if self.back.send(input).await.is_err() {
                        return Fault::Nobody;
                    }
                }
                ids = queue.recv() => {
                    let Some(ids) = ids else { return Fault::Nobody };
                    if self.request(&mut writer, ids, &mut expected).await.is_err() {
                        return Fault::Nobody;
                    }
                }
                more = read_more(&mut inbox, expected.is_empty()), if may_read => {
                    if let Err(error) = more {
                        return fault_of(&error);
                    }
                }
            }
        }
    }

    async fn request(
        &self,
        writer: &mut WriteHalf<Stream>,
        ids: Vec<ChunkId>,
        expected: &mut VecDeque<ChunkId>,
    ) -> std::io::Result<()> {
        let frame = encode_request(&ids);
        expected.extend(ids);
        frames::write(writer, &frame, limits::WRITE_TIME).await?;
        self.traffic.add_sent(frame.len() as u64);
        Ok(())
    }

    /// Verifies and keeps a batch on a blocking thread, a bounded number of them at once.
    fn store(&self, batch: Batch) -> Storing {
        let node = self.node.clone();
        tokio::spawn(async move {
            // The semaphore is never closed.
            let permit = node.storing.clone().acquire_owned().await.ok();
            let stored = tokio::task::spawn_blocking(move || {
                let outcomes = batch
                    .into_iter()
                    .map(|(id, answer)| (id, outcome(&*node.chunks, id, answer)))
                    .collect();
                drop(permit);
                outcomes
            });
            stored.await.unwrap_or_default()
        })
    }
}

fn outcome(chunks: &dyn ChunkHost, id: ChunkId, answer: Answer) -> Outcome {
    match answer {
        Answer::Missing => Outcome::Missing,
        Answer::Here(chunk) => keep(chunks, id, chunk),
    }
}

fn keep(chunks: &dyn ChunkHost, id: ChunkId, chunk: StoredChunk) -> Outcome {
    let raw_len = chunk.raw_len;
    match chunks.put_stored(id, chunk) {
        Ok(()) => Outcome::Stored(raw_len),
        Err(PutError::Corrupt) => Outcome::Corrupt,
        Err(PutError::Full) => Outcome::Full,
        Err(PutError::Failed) => Outcome::Failed,
    }
}

/// The outcomes of the oldest batch; dropping this while it waits loses nothing.
async fn first_stored(storing: &mut VecDeque<Storing>) -> Option<Vec<(ChunkId, Outcome)>> {
    let outcomes = match storing.front_mut() {
        Some(first) => first.await.ok(),
        None => return std::future::pending().await,
    };
    storing.pop_front();
    outcomes
}

fn take_answers(
    inbox: &mut Inbox<ReadHalf<Stream>>,
    expected: &mut VecDeque<ChunkId>,
    batch: &mut Batch,
) -> Result<(), ReadError> {
    while !expected.is_empty()
        && let Some(answer) = inbox.ready_answer()?
    {
        if let Some(id) = expected.pop_front() {
            batch.push((id, answer));
        }
    }
    Ok(())
}

/// An idle lane may be silent for ever; one that owes answers may not.
async fn read_more(inbox: &mut Inbox<ReadHalf<Stream>>, idle: bool) -> Result<(), ReadError> {
    if idle {
        return inbox.more_of_answer().await;
    }
    tokio::time::timeout(limits::CHUNK_SILENCE_TIME, inbox.more_of_answer())
        .await
        .unwrap_or(Err(ReadError::Io(std::io::ErrorKind::TimedOut.into())))
}

fn fault_of(error: &ReadError) -> Fault {
    match error {
        ReadError::Decode(_) => Fault::Peer,
        ReadError::Io(error) if error.kind() == std::io::ErrorKind::TimedOut => Fault::Peer,
        ReadError::Io(_) | ReadError::Closed => Fault::Nobody,
    }
}
