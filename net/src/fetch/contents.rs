//! Wanted contents: looked at in turn, their missing chunks tracked, set aside while nobody has them.
//!
//! Leaves out: which chunk is asked of which peer ([`super::Scheduler`]).
//!
//! Invariants:
//! - a content that tracks chunks has one that is queued or asked for, or it is in `idle`: what nobody
//!   has keeps no room from others;
//! - a content that nobody has is looked at again when a peer comes, when one has news, and after a
//!   growing while.

use std::collections::BTreeSet;

use cas::{ChunkId, Content, ContentId, MissingChunks};

use super::{Effect, Priority, Scheduler, backoff_ms};
use crate::fetch::lanes::Both;
use crate::limits;

/// A content that should be here.
#[derive(Debug)]
pub(super) struct Wanted {
    content: Content,
    priority: Priority,
    /// Its missing chunks that are tracked.
    lacking: BTreeSet<ChunkId>,
    /// How many of them are parked.
    parked: usize,
    /// Chunks named by the last examination; zero once the next one is due.
    found: usize,
    /// Chunks that came in since.
    stored: usize,
    examining: bool,
    /// When its turn comes again, if it waits for a time.
    later_ms: Option<u64>,
    pub(super) remaining: u64,
    /// Examinations since a chunk of it came in.
    fruitless: u32,
}

impl Wanted {
    fn new(content: Content, priority: Priority) -> Self {
        Self {
            content,
            priority,
            lacking: BTreeSet::new(),
            parked: 0,
            found: 0,
            stored: 0,
            examining: false,
            later_ms: None,
            remaining: content.len,
            fruitless: 0,
        }
    }

    /// Nobody has what is left of it.
    fn is_idle(&self) -> bool {
        self.parked > 0 && self.parked == self.lacking.len()
    }
}

impl Scheduler {
    /// These should be here.
    pub fn want(&mut self, contents: &[Content], priority: Priority, now_ms: u64) {
        for content in contents {
            if let Some(wanted) = self.wanted.get_mut(&content.id) {
                if priority < wanted.priority {
                    wanted.priority = priority;
                    self.to_examine[priority].push_back(content.id);
                }
                continue;
            }
            if self.wanted.len() >= limits::WANTED_CONTENTS_MAX {
                break;
            }
            self.wanted.insert(content.id, Wanted::new(*content, priority));
            self.to_examine[priority].push_back(content.id);
        }
        self.step(now_ms);
    }

    /// These need not be here any more. Their chunks that are on the way come and are kept.
    pub fn unwant(&mut self, contents: &[ContentId], now_ms: u64) {
        for id in contents {
            self.drop_wanted(*id);
        }
        self.step(now_ms);
    }

    /// Looks at the contents whose turn it is, as far as there is room.
    pub(super) fn examine(&mut self) {
        if self.examining {
            return;
        }
        // Somebody waits for the foreground; it may go over the bound by one examination.
        let room = self.chunks.len() < limits::TRACKED_CHUNKS_MAX;
        let Both { foreground, background } = &mut self.to_examine;
        let queues = [Some(foreground), room.then_some(background)];
        let mut contents = Vec::new();
        for queue in queues.into_iter().flatten() {
            while contents.len() < limits::EXAMINE_CONTENTS_MAX
                && let Some(id) = queue.pop_front()
            {
                if let Some(wanted) = self.wanted.get_mut(&id)
                    && !wanted.examining
                {
                    wanted.examining = true;
                    if let Some(at) = wanted.later_ms.take() {
                        self.later.remove(&(at, id));
                    }
                    contents.push(wanted.content);
                }
            }
        }
        if !contents.is_empty() {
            self.examining = true;
            self.meanwhile.clear();
            self.effects.push_back(Effect::Examine(contents));
        }
    }

    /// Answer to [`Effect::Examine`]: contents not among `results` were not reached.
    pub fn handle_examined(
        &mut self,
        asked: &[Content],
        results: Vec<(ContentId, Option<MissingChunks>)>,
        now_ms: u64,
    ) {
        self.examining = false;
        let reached: BTreeSet<ContentId> = results.iter().map(|(id, _)| *id).collect();
        for content in asked.iter().rev() {
            if let Some(wanted) = self.wanted.get_mut(&content.id) {
                wanted.examining = false;
                if !reached.contains(&content.id) {
                    self.to_examine[wanted.priority].push_front(content.id);
                }
            }
        }
        for (id, missing) in results {
            match missing {
                Some(missing) if missing.complete => self.complete(id),
                Some(missing) if !missing.ids.is_empty() => self.track(id, missing.ids, now_ms),
                _ => self.postpone(id, now_ms),
            }
        }
        self.step(now_ms);
    }

    fn complete(&mut self, id: ContentId) {
        if let Some(wanted) = self.drop_wanted(id) {
            self.effects.push_back(Effect::Complete(wanted.content));
        }
    }

    fn drop_wanted(&mut self, id: ContentId) -> Option<Wanted> {
        self.release(id);
        self.out_of_reach.remove(&id);
        let wanted = self.wanted.remove(&id)?;
        if let Some(at) = wanted.later_ms {
            self.later.remove(&(at, id));
        }
        Some(wanted)
    }

    fn track(&mut self, content: ContentId, mut ids: Vec<ChunkId>, now_ms: u64) {
        let Some(wanted) = self.wanted.get_mut(&content) else { return };
        if wanted.fruitless > 0 && wanted.stored == 0 && wanted.lacking.is_empty() {
            // The store forgot what it had kept: not something to repeat at full speed.
            self.postpone(content, now_ms);
            return;
        }
        wanted.fruitless = wanted.fruitless.saturating_add(1);
        if wanted.fruitless > 1 && wanted.lacking.is_empty() {
            // Nobody had it the last time: one request tells whether that has changed.
            ids.truncate(limits::REQUEST_IDS_MAX);
        }
        wanted.stored = 0;
        wanted.found = ids.len();
        let priority = wanted.priority;
        let mut fresh = Vec::new();
        for id in ids {
            if self.meanwhile.contains(&id) {
                continue;
            }
            let chunk = self.chunks.entry(id).or_default();
            let first = chunk.needed_by.insert(content);
            if first {
                wanted.lacking.insert(id);
                wanted.parked += usize::from(chunk.parked);
            }
            let raised = priority == Priority::Foreground && !chunk.foreground;
            chunk.foreground |= raised;
            let asked = chunk.asked[priority] != 0
                || (priority == Priority::Background && chunk.asked != Both::default());
            if (first || raised) && !asked && !chunk.parked {
                fresh.push(id);
            }
        }
        if wanted.lacking.is_empty() {
            // Everything found missing has come in since.
            wanted.stored = 1;
            self.to_examine[priority].push_back(content);
        } else if wanted.is_idle() {
            self.idle.push(content);
        }
        for id in fresh {
            self.enqueue(id, priority);
        }
    }

    /// A chunk of these contents came in.
    pub(super) fn came_in(&mut self, id: ChunkId, raw_len: u64, needed_by: BTreeSet<ContentId>) {
        for content in needed_by {
            let Some(wanted) = self.wanted.get_mut(&content) else { continue };
            wanted.lacking.remove(&id);
            wanted.stored += 1;
            wanted.fruitless = 0;
            // Something is left to fetch until an examination has found nothing missing.
            wanted.remaining = wanted.remaining.saturating_sub(raw_len).max(1);
            // Early enough that the pipe does not run dry between two examinations.
            let left = wanted.lacking.len();
            let low = left <= wanted.found / 4;
            if low && (left == 0 || wanted.found >= limits::REQUEST_IDS_MAX) {
                let priority = wanted.priority;
                wanted.found = 0;
                self.to_examine[priority].push_back(content);
            }
            if wanted.is_idle() {
                self.idle.push(content);
            }
        }
    }

    /// Nobody who is connected has the chunk.
    pub(super) fn park(&mut self, id: ChunkId) {
        let Some(chunk) = self.chunks.get_mut(&id).filter(|chunk| !chunk.parked) else { return };
        chunk.parked = true;
        for content in &chunk.needed_by {
            if let Some(wanted) = self.wanted.get_mut(content) {
                wanted.parked += 1;
                if wanted.is_idle() {
                    self.idle.push(*content);
                }
            }
        }
    }

    /// Somebody may have the chunk.
    pub(super) fn unpark(&mut self, id: ChunkId) {
        let Some(chunk) = self.chunks.get_mut(&id).filter(|chunk| chunk.parked) else { return };
        chunk.parked = false;
        for content in &chunk.needed_by {
            if let Some(wanted) = self.wanted.get_mut(content) {
                wanted.parked = wanted.parked.saturating_sub(1);
            }
        }
    }

    /// Contents that nobody has any more of make room for others until their turn comes again.
    pub(super) fn set_idle_aside(&mut self, now_ms: u64) {
        for id in std::mem::take(&mut self.idle) {
            let Some(wanted) = self.wanted.get_mut(&id).filter(|w| w.is_idle()) else { continue };
            if wanted.found == 0 {
                // Its turn comes anyway: more of it may be known then.
                self.release(id);
                continue;
            }
            // The more wait, the longer: those of an absent device are not asked for without a pause.
            let wait = backoff_ms(wanted.fruitless.saturating_sub(1))
                + self.later.len() as u64 / limits::RETRY_CONTENTS_PER_MS;
            wanted.stored = 1;
            let content = wanted.content;
            self.release(id);
            self.wait_until(id, now_ms + wait);
            if self.out_of_reach.insert(id) {
                self.effects.push_back(Effect::OutOfReach(content));
            }
        }
    }

    /// Tracks no chunk for this content any more.
    fn release(&mut self, id: ContentId) {
        let Some(wanted) = self.wanted.get_mut(&id) else { return };
        wanted.parked = 0;
        for lacking in std::mem::take(&mut wanted.lacking) {
            if let Some(chunk) = self.chunks.get_mut(&lacking) {
                chunk.needed_by.remove(&id);
                let asked = chunk.asked != Both::default();
                if chunk.needed_by.is_empty() && chunk.tickets.is_empty() && !asked {
                    self.chunks.remove(&lacking);
                }
            }
        }
    }

    /// What was out of reach is looked at again: a peer has come or may have more than before.
    pub(super) fn look_again(&mut self) {
        for id in std::mem::take(&mut self.out_of_reach) {
            let Some(wanted) = self.wanted.get_mut(&id) else { continue };
            self.effects.push_back(Effect::WithinReach(wanted.content));
            wanted.fruitless = 0;
            if let Some(at) = wanted.later_ms.take() {
                self.later.remove(&(at, id));
                self.to_examine[wanted.priority].push_back(id);
            }
        }
    }

    fn postpone(&mut self, id: ContentId, now_ms: u64) {
        if let Some(wanted) = self.wanted.get_mut(&id) {
            let wait = backoff_ms(wanted.fruitless);
            wanted.fruitless = wanted.fruitless.saturating_add(1);
            wanted.stored = 1;
            self.wait_until(id, now_ms + wait);
        }
    }

    fn wait_until(&mut self, id: ContentId, at_ms: u64) {
        if let Some(wanted) = self.wanted.get_mut(&id) {
            if let Some(before) = wanted.later_ms.replace(at_ms) {
                self.later.remove(&(before, id));
            }
            self.later.insert((at_ms, id));
        }
    }

    /// Contents that have waited long enough.
    pub(super) fn take_due(&mut self, now_ms: u64) {
        while let Some((at, id)) = self.later.first().copied()
            && at <= now_ms
        {
            self.later.pop_first();
            if let Some(wanted) = self.wanted.get_mut(&id) {
                wanted.later_ms = None;
                self.to_examine[wanted.priority].push_back(id);
            }
        }
    }
}
