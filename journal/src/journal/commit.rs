//! Writing: entries of this device and of others, through the log into the state.
//!
//! Leaves out: looking ([`super::look`]).
//!
//! Invariants:
//! - whoever holds the writer serves every call that waits: their frames share one sync, their
//!   changes one commit, and none is answered before both;
//! - a call that is refused leaves no trace; when a write fails, everything that shared it fails and
//!   is taken out of the log again, so that log and state stay one. A failed sync ends all writing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use super::{Authored, Journal, Now, Received, Refusal, Writer, acks, split};
use crate::canary::{self, Canary};
use crate::chain::{self, Frontier};
use crate::entry::{Entry, SEEN_MAX};
use crate::error::{AppendError, OpenError, PathError, RefuseReason, StateError};
use crate::fold::Fold;
use crate::hlc::Hlc;
use crate::id::{DeviceId, DirId, EntryId, VersionId};
use crate::lock;
use crate::log;
use crate::name::Register;
use crate::op::{Arrival, Op};
use crate::records::{EntryRec, LogPos, RegKey, What, key, load_entry, load_version, store, table};
use crate::replica::{Verdict, judge};
use crate::signed::{Signer, VerifiedEntry};
use crate::tree;

/// Most calls served with one sync.
const BATCH_MAX: usize = 256;
/// Most missing entries named to a peer at once.
const WANTS_MAX: usize = 1024;

/// One call that waits to write.
pub(crate) struct Ticket {
    request: Mutex<Option<Request>>,
    outcome: Mutex<Option<Result<Outcome, AppendError>>>,
}

enum Request {
    Author { signer: Signer, ops: Vec<Op>, now: Now },
    Late { signer: Signer, now: Now },
    Receive { entries: Vec<VerifiedEntry>, refused: Vec<Refusal> },
    Acknowledge { by: DeviceId, frontier: Frontier },
}

enum Outcome {
    Authored(Authored),
    Nothing,
    Received(Received),
}

impl From<OpenError> for AppendError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Io(error) => error.into_append(),
            OpenError::State(error) => AppendError::State(error),
            _ => AppendError::Poisoned,
        }
    }
}

impl PathError {
    fn into_append(self) -> AppendError {
        if self.is_full() { AppendError::Full } else { AppendError::Io(self) }
    }
}

impl Journal {
    /// Writes `ops` as this device's next entry. Signed, durable and applied when it returns.
    ///
    /// Operations that do not fit one entry become several, where that tears nothing apart.
    pub fn author(&self, signer: &Signer, ops: Vec<Op>, now: Now) -> Result<Authored, AppendError> {
        let request = Request::Author { signer: signer.clone(), ops, now };
        match self.submit(request)? {
            Outcome::Authored(authored) => Ok(authored),
            _ => Err(AppendError::Closed),
        }
    }

    /// To be called after a (re)connection, when frontiers were exchanged and everything pulled, and
    /// before anything of this device leaves: if some of its work is held by nobody else, writes
    /// one entry that says so.
    pub fn author_late(&self, signer: &Signer, now: Now) -> Result<Option<Authored>, AppendError> {
        match self.submit(Request::Late { signer: signer.clone(), now })? {
            Outcome::Authored(authored) => Ok(Some(authored)),
            _ => Ok(None),
        }
    }

    /// Takes entries from a peer: verified, durable and applied when it returns. Those that wait
    /// for others are kept in memory, within bounds.
    pub fn receive(&self, entries: &[Arc<[u8]>], _now: Now) -> Result<Received, AppendError> {
        let (mut verified, mut refused) = (Vec::new(), Vec::new());
        for bytes in entries {
            match VerifiedEntry::verify(Arc::clone(bytes)) {
                Ok(entry) => verified.push(entry),
                Err(error) => refused.push(Refusal { id: None, why: error.into() }),
            }
        }
        self.receive_verified(verified, refused)
    }

    /// [`Journal::receive`] for entries whose signatures were checked before; `refused` goes into the answer.
    pub fn receive_verified(
        &self,
        entries: Vec<VerifiedEntry>,
        refused: Vec<Refusal>,
    ) -> Result<Received, AppendError> {
        match self.submit(Request::Receive { entries, refused })? {
            Outcome::Received(received) => {
                if !received.mended.is_empty() {
                    self.damaged.lock().retain(|id| !received.mended.contains(id));
                }
                Ok(received)
            }
            _ => Err(AppendError::Closed),
        }
    }

    /// The member `by` holds everything behind `frontier`.
    pub fn acknowledged(&self, by: DeviceId, frontier: &Frontier) {
        let news = self.state.read(|kv| acks::is_news(kv, by, frontier));
        if !matches!(news, Ok(true)) {
            return;
        }
        let request = Request::Acknowledge { by, frontier: frontier.clone() };
        if let Err(error) = self.submit(request) {
            tracing::debug!(%error, "an acknowledgement was not kept");
        }
        if self.acks.lock().add() {
            self.save_acks();
        }
    }

    pub(super) fn save_acks(&self) {
        let Some(dir) = &self.dir else { return };
        let saved = self.state.read(|kv| acks::all(kv)).map(|acked| acks::save(dir, &acked));
        if !matches!(saved, Ok(Ok(()))) {
            tracing::debug!("acknowledgements were not saved");
        }
    }

    fn submit(&self, request: Request) -> Result<Outcome, AppendError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(AppendError::Closed);
        }
        let request = Mutex::new(Some(request));
        let ticket = Arc::new(Ticket { request, outcome: Mutex::new(None) });
        self.queue.lock().push_back(Arc::clone(&ticket));
        loop {
            let mut writer = self.writer.lock();
            if let Some(outcome) = ticket.outcome.lock().take() {
                return outcome;
            }
            self.serve(&mut writer);
        }
    }

    /// Serves the calls that wait.
    fn serve(&self, writer: &mut Writer) {
        let mut tickets: Vec<Arc<Ticket>> = Vec::new();
        {
            let mut queue = self.queue.lock();
            while let Some(ticket) = queue.pop_front() {
                tickets.push(ticket);
                if tickets.len() >= BATCH_MAX {
                    break;
                }
            }
        }
        let served = match writer.log.is_poisoned() {
            true => Err(AppendError::Poisoned),
            false => self.serve_all(writer, &tickets),
        };
        match served {
            Ok(outcomes) => {
                for (ticket, outcome) in tickets.iter().zip(outcomes) {
                    *ticket.outcome.lock() = Some(outcome);
                }
            }
            Err(error) => {
                let full = matches!(error, AppendError::Full);
                let mut first = Some(error);
                for ticket in &tickets {
                    let others = if full { AppendError::Full } else { AppendError::Together };
                    *ticket.outcome.lock() = Some(Err(first.take().unwrap_or(others)));
                }
            }
        }
    }

    fn serve_all(
        &self,
        writer: &mut Writer,
        tickets: &[Arc<Ticket>],
    ) -> Result<Vec<Result<Outcome, AppendError>>, AppendError> {
        let before = writer.log.end();
        let done = self.state.write(|kv| {
            let mut fold = Fold::resume(kv)?.ok_or(StateError::Corrupt { table: 'G' })?;
            let mut outcomes = Vec::new();
            for ticket in tickets {
                let Some(request) = ticket.request.lock().take() else { continue };
                let end = writer.log.end();
                let outcome = self.serve_one(writer, &mut fold, request);
                // A refusal before anything was appended concerns this call alone.
                let log = &writer.log;
                if outcome.is_err() && (log.is_poisoned() || log.is_torn() || log.end() != end) {
                    return outcome.map(|_| outcomes);
                }
                if let Err(AppendError::State(error)) = outcome {
                    return Err(AppendError::State(error));
                }
                outcomes.push(outcome);
            }
            if !is_sync_skipped(&outcomes) {
                writer.log.sync().map_err(PathError::into_append)?;
            }
            fold.meta.watermark = writer.log.end();
            fold.meta.gaps = writer.waiting.gaps();
            fold.finish()?;
            Ok(outcomes)
        });
        if done.is_err() {
            writer.log.roll_back(before);
        }
        done
    }

    fn serve_one(
        &self,
        writer: &mut Writer,
        fold: &mut Fold<'_>,
        request: Request,
    ) -> Result<Outcome, AppendError> {
        match request {
            Request::Author { signer, ops, now } => {
                let authored = self.write_own(writer, fold, &signer, ops, now)?;
                Ok(Outcome::Authored(authored))
            }
            Request::Late { signer, now } => {
                if canary::is(Canary::LateForgotten) {
                    return Ok(Outcome::Nothing);
                }
                let mut all: Option<Authored> = None;
                for end in acks::unheard(&*fold.kv, signer.device(), fold.meta.genesis)? {
                    let said = self.write_late(writer, fold, &signer, &end, now)?;
                    all = Some(match all.take() {
                        None => said,
                        Some(before) => Authored {
                            ids: [before.ids, said.ids].concat(),
                            changed: [before.changed, said.changed].concat(),
                            ..said
                        },
                    });
                }
                Ok(all.map_or(Outcome::Nothing, Outcome::Authored))
            }
            Request::Receive { entries, refused } => {
                Ok(Outcome::Received(self.take_entries(writer, fold, entries, refused)?))
            }
            Request::Acknowledge { by, frontier } => {
                acks::take(fold.kv, by, &frontier)?;
                Ok(Outcome::Nothing)
            }
        }
    }

    /// Takes what can be taken of `entries` and what waited for them.
    fn take_entries(
        &self,
        writer: &mut Writer,
        fold: &mut Fold<'_>,
        entries: Vec<VerifiedEntry>,
        refused: Vec<Refusal>,
    ) -> Result<Received, AppendError> {
        let mut received = Received { refused, ..Received::default() };
        let mut damaged = self.damaged.lock().clone();
        let storage = writer.log.storage();
        // The last entry of each lane that came: who sent it holds it, and all it has seen.
        let mut came: BTreeMap<u32, EntryRec> = BTreeMap::new();
        for entry in entries {
            let given = entry.id();
            let mut ready: Vec<(VerifiedEntry, Option<LogPos>)> = vec![(entry, None)];
            while let Some((entry, at)) = ready.pop() {
                let id = entry.id();
                match judge(&*fold.kv, &fold.meta, &entry)? {
                    Verdict::Known if damaged.contains(&id) => {
                        let at =
                            writer.log.append(entry.bytes()).map_err(PathError::into_append)?;
                        if let Some(rec) = load_entry(&*fold.kv, &id)? {
                            let rec = EntryRec { at, ..rec };
                            store(fold.kv, &key(table::ENTRY, &[id.as_bytes()]), &rec)?;
                        }
                        damaged.remove(&id);
                        received.mended.push(id);
                    }
                    Verdict::Known => {}
                    Verdict::Ready => {
                        let at = match at {
                            Some(at) => at,
                            None => {
                                writer.log.append(entry.bytes()).map_err(PathError::into_append)?
                            }
                        };
                        fold.apply(&entry, at)?;
                        received.applied.push(id);
                        if let Some(rec) = load_entry(&*fold.kv, &id)? {
                            came.insert(rec.lane, rec);
                        }
                        for held in writer.waiting.applied(&id) {
                            ready.extend(reread(&*storage, held)?);
                        }
                    }
                    Verdict::Waits(missing) => {
                        for gone in writer.waiting.hold(entry, at, missing) {
                            let why = RefuseReason::Crowded;
                            received.refused.push(Refusal { id: Some(gone), why });
                        }
                    }
                    Verdict::Refused(why) => {
                        let why = if id == given { why } else { RefuseReason::GivenUp };
                        received.refused.push(Refusal { id: Some(id), why });
                        for gone in writer.waiting.refused(&id) {
                            let why = RefuseReason::Parent;
                            received.refused.push(Refusal { id: Some(gone), why });
                        }
                    }
                }
            }
        }
        for rec in came.values() {
            chain::acknowledge(fold.kv, rec)?;
        }
        received.changed = std::mem::take(&mut fold.changed).into_values().collect();
        received.wants = writer.waiting.wants(WANTS_MAX);
        received.wants.extend(damaged);
        Ok(received)
    }

    fn write_own(
        &self,
        writer: &mut Writer,
        fold: &mut Fold<'_>,
        signer: &Signer,
        mut ops: Vec<Op>,
        now: Now,
    ) -> Result<Authored, AppendError> {
        check_ops(fold, signer.device(), &ops)?;
        let batches = split::split(&ops).ok_or(AppendError::TooLarge)?;
        let mut versions = vec![None; ops.len()];
        let mut ids = Vec::new();
        let mut last = None;
        let mut ops: Vec<Option<Op>> = ops.drain(..).map(Some).collect();
        for batch in batches {
            let taken = batch.iter().filter_map(|at| ops.get_mut(*at)?.take()).collect();
            let prev = acks::own_tip(&*fold.kv, signer.device())?;
            let entry = self.next_entry(fold, signer, prev, taken, now)?;
            let entry = VerifiedEntry::sign(entry, signer)?;
            let at = writer.log.append(entry.bytes()).map_err(PathError::into_append)?;
            fold.apply(&entry, at)?;
            for (index, at) in batch.iter().enumerate() {
                if let Some(version) = versions.get_mut(*at) {
                    *version = Some(VersionId::new(entry.id(), index as u32));
                }
            }
            ids.push(entry.id());
            last = Some(entry);
        }
        let last = last.ok_or(AppendError::TooLarge)?;
        let changed = std::mem::take(&mut fold.changed).into_values().collect();
        let versions = versions.into_iter().flatten().collect();
        Ok(Authored { id: last.id(), bytes: Arc::clone(last.bytes()), ids, versions, changed })
    }

    /// Says that the work under one end of the own chain is late.
    fn write_late(
        &self,
        writer: &mut Writer,
        fold: &mut Fold<'_>,
        signer: &Signer,
        end: &acks::Unheard,
        now: Now,
    ) -> Result<Authored, AppendError> {
        check_ops(fold, signer.device(), &[])?;
        let mut entry = self.next_entry(fold, signer, Some(end.tip), Vec::new(), now)?;
        entry.late = vec![end.start];
        let entry = VerifiedEntry::sign(entry, signer)?;
        let at = writer.log.append(entry.bytes()).map_err(PathError::into_append)?;
        fold.apply(&entry, at)?;
        let (id, bytes) = (entry.id(), Arc::clone(entry.bytes()));
        let changed = std::mem::take(&mut fold.changed).into_values().collect();
        Ok(Authored { id, bytes, ids: vec![id], versions: Vec::new(), changed })
    }

    fn next_entry(
        &self,
        fold: &Fold<'_>,
        signer: &Signer,
        prev: Option<EntryId>,
        ops: Vec<Op>,
        now: Now,
    ) -> Result<Entry, AppendError> {
        let device = signer.device();
        let mut seen = chain::heads(&*fold.kv)?;
        seen.retain(|head| Some(*head) != prev);
        seen.truncate(SEEN_MAX);
        let mut causes = Hlc::default();
        let mut seq = 0;
        let foreign = if canary::is(Canary::ClockIgnoresSeen) { &[][..] } else { &seen };
        for parent in prev.iter().chain(foreign) {
            if let Some(rec) = load_entry(&*fold.kv, parent)? {
                causes = causes.max(rec.hlc);
                if Some(*parent) == prev {
                    seq = rec.seq + 1;
                }
            }
        }
        let wall_ms = match canary::is(Canary::MedianIgnored) {
            true => now.wall_ms,
            false => self.clock.lock().believed_ms(now.wall_ms),
        };
        let hlc = Hlc::next(causes, wall_ms).ok_or(AppendError::Clock)?;
        let (drive, saved_at_ms, late) = (fold.meta.drive, now.wall_ms, Vec::new());
        Ok(Entry { drive, device, seq, prev, seen, late, hlc, saved_at_ms, ops })
    }
}

fn is_sync_skipped(outcomes: &[Result<Outcome, AppendError>]) -> bool {
    let skipped = |outcome: &Result<Outcome, AppendError>| match outcome {
        Ok(Outcome::Authored(_)) => canary::is(Canary::AuthorUnsynced),
        Ok(Outcome::Received(_)) => canary::is(Canary::ReceiveUnsynced),
        _ => false,
    };
    outcomes.iter().any(skipped)
}

/// Refuses operations that would have no effect, before anything is written.
fn check_ops(fold: &mut Fold<'_>, device: DeviceId, ops: &[Op]) -> Result<(), AppendError> {
    let member = fold.members.get(&device).ok_or(AppendError::NotMember)?;
    let role = member.role().ok_or(AppendError::NotMember)?;
    for (index, op) in ops.iter().enumerate() {
        op.check().map_err(|source| AppendError::Op { index, source })?;
        let leaves = matches!(op, Op::Remove { device: gone, .. } if *gone == device);
        if role < op.needs() && !leaves {
            return Err(AppendError::Role { index });
        }
        if !fits(fold, device, op)? {
            return Err(AppendError::Unfit { index });
        }
    }
    Ok(())
}

fn fits(fold: &mut Fold<'_>, device: DeviceId, op: &Op) -> Result<bool, StateError> {
    let placed = |fold: &Fold<'_>, from: &VersionId, dir: DirId| {
        let rec = load_version(&*fold.kv, from)?;
        Ok::<_, StateError>(
            rec.is_some_and(|r| matches!(r.what, What::Dir { dir: d, .. } if d == dir)),
        )
    };
    match op {
        Op::MkDir { parent, name, dir, bases, .. } => {
            let reg = RegKey::of(&Register::new(*parent, name.clone()));
            let away: Vec<VersionId> = tree::away(&*fold.kv, &reg, bases)?.into_iter().collect();
            Ok(DirId::derive(&fold.meta.drive, parent, name, &away) == *dir)
        }
        Op::Move { dir, from, .. } => placed(fold, from, *dir),
        Op::Exchange { a, b } => {
            let mut fit = true;
            for side in [a, b] {
                if let Arrival::Dir { dir, from } = &side.comes {
                    fit = fit && placed(fold, from, *dir)?;
                }
            }
            Ok(fit)
        }
        Op::Genesis { .. } => Ok(false),
        Op::Checkout { dir, name } => {
            Ok(lock::holds(&*fold.kv, &RegKey::new(dir, name))?.is_none())
        }
        Op::GiveBack { dir, name, checkout } => {
            let held = lock::holds(&*fold.kv, &RegKey::new(dir, name))?;
            Ok(held.is_some_and(|held| held.checkout == *checkout && held.device == device))
        }
        Op::Break { dir, name, checkout } => {
            let held = lock::holds(&*fold.kv, &RegKey::new(dir, name))?;
            Ok(held.is_some_and(|held| held.checkout == *checkout))
        }
        _ => Ok(true),
    }
}

/// An entry that waited, with its place in the log when it lies there already.
fn reread(
    storage: &dyn log::storage::Storage,
    held: crate::replica::Held,
) -> Result<Option<(VerifiedEntry, Option<LogPos>)>, AppendError> {
    match (held.entry, held.at) {
        (Some(entry), at) => Ok(Some((entry, at))),
        (None, Some(at)) => {
            let bytes = log::read(storage, at)?.unwrap_or_default();
            let entry = VerifiedEntry::trust_unchecked(bytes.into()).ok();
            Ok(entry.filter(|entry| entry.id() == held.id).map(|entry| (entry, Some(at))))
        }
        (None, None) => Ok(None),
    }
}
