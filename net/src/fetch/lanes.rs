//! What one peer was asked for and has not answered, in order, foreground and background apart.
//!
//! Leaves out: which chunk is asked of which peer ([`super::Scheduler`]).
//!
//! Invariant: the estimate of bytes outstanding uses the average of what this peer sent lately, so the
//! window holds about [`limits::WINDOW_LEN_MAX`] bytes whatever the size of chunks.

use std::collections::VecDeque;
use std::ops::{Index, IndexMut};

use cas::ChunkId;

use super::{Outcome, Priority};
use crate::limits;

/// One of something for each lane.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Both<T> {
    pub(super) foreground: T,
    pub(super) background: T,
}

impl<T> Index<Priority> for Both<T> {
    type Output = T;

    fn index(&self, lane: Priority) -> &T {
        match lane {
            Priority::Foreground => &self.foreground,
            Priority::Background => &self.background,
        }
    }
}

impl<T> IndexMut<Priority> for Both<T> {
    fn index_mut(&mut self, lane: Priority) -> &mut T {
        match lane {
            Priority::Foreground => &mut self.foreground,
            Priority::Background => &mut self.background,
        }
    }
}

/// Expected length of a chunk before any was seen, bytes.
const LEN_GUESS: u64 = 16 * 1024;
/// Share of the newest chunk in the average: one part in this many.
const AVERAGE_OVER: u64 = 32;

#[derive(Debug, Clone, Copy)]
struct Asked {
    id: ChunkId,
    at_ms: u64,
}

/// One stream's requests.
#[derive(Debug)]
pub(super) struct Lane {
    asked: VecDeque<Asked>,
    average: u64,
}

impl Lane {
    fn new() -> Self {
        Self { asked: VecDeque::new(), average: LEN_GUESS }
    }

    /// How many ids the next request may hold; zero until a whole request fits or nothing is owed.
    pub(super) fn room(&self) -> usize {
        let per_request = (limits::REQUEST_LEN_GOAL / self.average.max(1)).max(1) as usize;
        let per_request = per_request.min(limits::REQUEST_IDS_MAX);
        let window = (limits::WINDOW_LEN_MAX / self.average.max(1)).max(1) as usize;
        let window = window.min(limits::WINDOW_IDS_MAX);
        if self.asked.len() + per_request <= window || self.asked.is_empty() {
            per_request
        } else {
            0
        }
    }

    pub(super) fn asked(&mut self, ids: &[ChunkId], at_ms: u64) {
        self.asked.extend(ids.iter().map(|id| Asked { id: *id, at_ms }));
    }

    /// Takes the oldest question off if `id` is it.
    pub(super) fn answered(&mut self, id: &ChunkId, outcome: Outcome, now_ms: u64) -> bool {
        if self.asked.front().is_none_or(|asked| asked.id != *id) {
            return false;
        }
        self.asked.pop_front();
        // The wait of those behind counts from the last sign of life: they queue, they are not lost.
        if let Some(next) = self.asked.front_mut() {
            next.at_ms = now_ms;
        }
        if let Outcome::Stored(len) = outcome {
            let sum = self.average * (AVERAGE_OVER - 1) + u64::from(len);
            self.average = (sum / AVERAGE_OVER).max(1);
        }
        true
    }

    fn load(&self) -> u64 {
        self.asked.len() as u64 * self.average
    }

    pub(super) fn take_all(&mut self) -> Vec<ChunkId> {
        self.asked.drain(..).map(|asked| asked.id).collect()
    }
}

/// A connected peer.
#[derive(Debug)]
pub(super) struct Peer {
    /// Its place in the chunks' masks.
    pub(super) bit: u64,
    /// Round trip in microseconds, or any number that grows with it.
    pub(super) distance: u64,
    lanes: Both<Lane>,
}

impl Peer {
    pub(super) fn new(bit: u64, distance: u64) -> Self {
        let lanes = Both { foreground: Lane::new(), background: Lane::new() };
        Self { bit, distance, lanes }
    }

    pub(super) fn lane(&mut self, lane: Priority) -> &mut Lane {
        &mut self.lanes[lane]
    }

    /// Bytes owed, about.
    pub(super) fn load(&self) -> u64 {
        self.lanes.foreground.load() + self.lanes.background.load()
    }

    pub(super) fn oldest_foreground_ms(&self) -> Option<u64> {
        self.lanes.foreground.asked.front().map(|asked| asked.at_ms)
    }

    /// Foreground chunks that wait since `before_ms`; their wait begins anew.
    pub(super) fn take_late(&mut self, before_ms: u64, now_ms: u64) -> Vec<ChunkId> {
        let foreground = &mut self.lanes.foreground;
        match foreground.asked.front() {
            Some(first) if first.at_ms <= before_ms => {
                for asked in &mut foreground.asked {
                    asked.at_ms = now_ms;
                }
                foreground.asked.iter().map(|asked| asked.id).collect()
            }
            _ => Vec::new(),
        }
    }
}
