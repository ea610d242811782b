//! A peer that sends whatever it likes: the session ends with its fault or goes on, and what is kept for it stays within
//! bounds.

use std::collections::BTreeSet;
use std::sync::Arc;

use journal::signed::VerifiedEntry;
use journal::{Frontier, Journal, Now};
use net::limits;
use net::sync::{Collected, Effect, Session, Truncated, Violation};
use net::wire::{FRAME_HEAD_LEN, Hello, Message, frame_len};

use super::{bytes, fold};

/// Most effects one message may bring about.
const EFFECTS_MAX: usize = 10_000;

/// Frames one after the other, as they stand on a stream.
pub(super) fn hostile(input: &[u8]) {
    let journal = fold::journal_of_some();
    let hello = Hello { frontier: journal.frontier(), addrs: Vec::new(), wall_ms: 1 };
    let mut session = Session::new(hello);
    let mut rest = input;
    loop {
        if carry_out(&mut session, &journal).is_err() {
            return;
        }
        let Some((head, tail)) = rest.split_first_chunk::<FRAME_HEAD_LEN>() else { return };
        let Ok(len) = frame_len(*head, limits::FRAME_LEN_MAX) else { return };
        let Some((body, tail)) = tail.split_at_checked(len) else { return };
        rest = tail;
        let Ok(message) = Message::decode(body) else { return };
        if session.handle_message(message).is_err() {
            return;
        }
        assert!(session.in_flight_len() <= limits::IN_FLIGHT_LEN_MAX + limits::ENTRY_LEN_MAX);
    }
}

/// What a session's runner does, all at once.
fn carry_out(session: &mut Session, journal: &Journal) -> Result<(), Violation> {
    let mut done = 0;
    while let Some(effect) = session.poll_effect() {
        done += 1;
        assert!(done <= EFFECTS_MAX, "one message brings about more and more");
        match effect {
            Effect::Send(message) => {
                let frame = message.encode();
                assert!(frame.len() <= FRAME_HEAD_LEN + limits::FRAME_LEN_MAX, "too long to send");
            }
            Effect::Receive { batch, entries } => {
                let Ok(received) = journal.receive(&entries, Now { wall_ms: 1 }) else { continue };
                session.handle_received(batch, &received, journal.frontier())?;
            }
            Effect::Acknowledged(frontier) => {
                journal.acknowledged(fold::device(1), &frontier);
            }
            Effect::Prepare => session.handle_prepared(),
            Effect::Collect { theirs, bytes_max, .. } => {
                let collected = collect(journal, &theirs, bytes_max);
                session.handle_collected(collected)?;
            }
            Effect::Lookup(ids) => {
                let found = ids.iter().filter_map(|id| journal.entry(id)).collect();
                session.handle_found(found, journal.frontier());
            }
            Effect::Probe(token) => session.handle_probe_answer(token, journal.frontier()),
            Effect::TheyListen(_)
            | Effect::TheyHold(_)
            | Effect::TheirClock(_)
            | Effect::OthersListen(_)
            | Effect::Probed { .. } => {}
        }
    }
    Ok(())
}

fn collect(journal: &Journal, theirs: &Frontier, bytes_max: usize) -> Collected {
    let lacking = journal.lacking(theirs, bytes_max);
    let len: usize = lacking.iter().map(|entry| entry.len()).sum();
    let entries = lacking
        .into_iter()
        .filter_map(|bytes| Some((VerifiedEntry::verify(Arc::clone(&bytes)).ok()?.id(), bytes)));
    Collected {
        entries: entries.collect(),
        truncated: if len >= bytes_max { Truncated::Yes } else { Truncated::No },
        // Everything of its own was acknowledged.
        unacknowledged: BTreeSet::new(),
        damaged: Vec::new(),
        frontier: journal.frontier(),
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let messages = bytes::some_messages();
    let all: Vec<u8> = messages.iter().flat_map(Message::encode).collect();
    let greeted = |message: &Message| {
        let hello = messages.first().map(Message::encode).unwrap_or_default();
        [hello, message.encode()].concat()
    };
    messages.iter().skip(1).map(greeted).chain([all]).collect()
}
