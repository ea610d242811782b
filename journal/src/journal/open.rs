//! Making a journal, joining one, opening one again.
//!
//! Leaves out: the exclusive lock on the store, which its caller holds.
//!
//! Invariants:
//! - the log is the truth: a state that is missing, older than the log's begin, of another format or
//!   possibly torn by a power loss is thrown away and folded anew;
//! - opening may be cut off at any point and done again.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;

use super::{GenesisSpec, Journal, Now, Writer, acks};
use crate::canary::{self, Canary};
use crate::chain;
use crate::entry::Entry;
use crate::error::{CreateError, OpenError, StateError};
use crate::fold::Fold;
use crate::hlc::{Hlc, WALL_LAST_MS};
use crate::id::{DeviceId, DriveId};
use crate::kv::Kv;
use crate::log::storage::{DirStorage, Storage};
use crate::log::{self, Frame, Log};
use crate::op::{Op, check_label};
use crate::records::{LogPos, key, load_entry, load_meta, table};
use crate::replica::{Verdict, Waiting, judge};
use crate::signed::{Signer, VerifiedEntry, VerifyError};
use crate::state::State;

/// How the store was left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Opened {
    /// Closed properly.
    Clean,
    /// The process ended; what it had written is in the kernel's hands and whole.
    ProcessCrash,
    /// The machine may have stopped: unsynced files may be torn.
    PowerLoss,
}

impl From<StateError> for CreateError {
    fn from(error: StateError) -> Self {
        CreateError::Open(OpenError::State(error))
    }
}

impl Journal {
    /// Makes a drive and its journal in `dir`.
    pub fn create(
        dir: &Path,
        signer: &Signer,
        genesis: GenesisSpec,
        now: Now,
    ) -> Result<Journal, CreateError> {
        let genesis = Self::genesis(signer, genesis, now)?;
        Self::begin(dir, &genesis)
    }

    /// The genesis entry of a new drive.
    pub fn genesis(
        signer: &Signer,
        spec: GenesisSpec,
        now: Now,
    ) -> Result<VerifiedEntry, CreateError> {
        let GenesisSpec { drive_name, device_name, id_key, posix_owners } = spec;
        check_label(&drive_name)?;
        check_label(&device_name)?;
        let entry = Entry {
            drive: DriveId::ZERO,
            device: signer.device(),
            seq: 0,
            prev: None,
            seen: Vec::new(),
            late: Vec::new(),
            hlc: Hlc::from_ms(now.wall_ms.min(WALL_LAST_MS)),
            saved_at_ms: now.wall_ms,
            ops: vec![Op::Genesis { drive_name, device_name, id_key, posix_owners }],
        };
        Ok(VerifiedEntry::sign(entry, signer)?)
    }

    /// Makes the journal of a drive this device joins: it holds the genesis and nothing else. That
    /// the genesis is the expected drive's the caller has checked.
    pub fn adopt(dir: &Path, genesis: &[u8]) -> Result<Journal, CreateError> {
        let genesis = VerifiedEntry::verify(genesis.into())?;
        if !genesis.entry().is_genesis() {
            let error = crate::codec::DecodeError::Rule(crate::entry::EntryError::Genesis);
            return Err(CreateError::Genesis(VerifyError::Decode(error)));
        }
        Self::begin(dir, &genesis)
    }

    fn begin(dir: &Path, genesis: &VerifiedEntry) -> Result<Journal, CreateError> {
        let at = |error| CreateError::Open(OpenError::Io(error));
        let storage: Arc<dyn Storage> = Arc::new(DirStorage::open(&dir.join("log")).map_err(at)?);
        if has_genesis(&storage)? {
            return Err(CreateError::Exists { path: dir.to_owned() });
        }
        State::discard(&dir.join("state")).map_err(at)?;
        let state = State::open(&dir.join("state"))?;
        Self::begin_with(storage, state, genesis, Some(dir))
    }

    /// Makes a journal over any storage and state: the simulator's way in.
    pub fn begin_with(
        storage: Arc<dyn Storage>,
        state: State,
        genesis: &VerifiedEntry,
        dir: Option<&Path>,
    ) -> Result<Journal, CreateError> {
        let io = |error| CreateError::Open(OpenError::Io(error));
        let mut log = Log::create(Arc::clone(&storage), genesis.id().into()).map_err(io)?;
        log.append(genesis.bytes()).map_err(io)?;
        log.sync().map_err(io)?;
        drop(log);
        Ok(Self::open_with(storage, state, dir)?)
    }

    /// Opens the journal in `dir`.
    pub fn open(dir: &Path, opened: Opened) -> Result<Journal, OpenError> {
        if !dir.join("log").is_dir() {
            return Err(OpenError::Missing { path: dir.to_owned() });
        }
        let storage: Arc<dyn Storage> = Arc::new(DirStorage::open(&dir.join("log"))?);
        let state = dir.join("state");
        if opened == Opened::PowerLoss {
            State::discard(&state)?;
        }
        Self::open_with(storage, State::open(&state)?, Some(dir))
    }

    /// Opens a journal over any storage and state: the simulator's way in.
    pub fn open_with(
        storage: Arc<dyn Storage>,
        state: State,
        dir: Option<&Path>,
    ) -> Result<Journal, OpenError> {
        let missing = || OpenError::Missing { path: storage.path("") };
        let mut log = Log::open(Arc::clone(&storage))?.ok_or_else(missing)?;
        let meta = state.read(|kv| load_meta(kv)).unwrap_or_default();
        let known = meta.filter(|meta| {
            meta.format == crate::records::STATE_FORMAT
                && meta.drive == log.drive()
                && meta.watermark <= log.end()
        });
        // What a crashed process appended and did not sync is about to be believed. A sync alone would not do: if one
        // had failed in that process, the kernel calls the same bytes clean.
        if !canary::is(Canary::OpenUnsynced) {
            match &known {
                Some(meta) => log.write_again(meta.watermark)?,
                None => log.sync_all()?,
            }
        }
        let current = known.filter(|meta| meta.gaps == 0);
        let acked = dir.map(acks::load_saved).unwrap_or_default();
        let caught_up = match current {
            Some(meta) => state.write(|kv| fold_log(kv, &log, meta.watermark)),
            None => Err(OpenError::State(StateError::Corrupt { table: '?' })),
        };
        let waiting = match caught_up {
            Ok(waiting) => waiting,
            Err(OpenError::State(_)) => state.rewrite(|kv| {
                let waiting = fold_log(kv, &log, LogPos::default())?;
                for id in &acked {
                    if let Some(rec) = load_entry(kv, id)? {
                        chain::acknowledge(kv, &rec)?;
                    }
                }
                Ok::<_, OpenError>(waiting)
            })?,
            Err(error) => return Err(error),
        };
        let corrupt = || OpenError::Corrupt { path: storage.path("") };
        let genesis = state.read(|kv| {
            let meta = load_meta(kv)?;
            meta.map_or(Ok(None), |meta| load_entry(kv, &meta.genesis))
        })?;
        let genesis = log::read(&*storage, genesis.ok_or_else(corrupt)?.at)?;
        let genesis = genesis.ok_or_else(corrupt)?.into();
        let behind_gaps = members_behind_gaps(&*storage, &waiting)?;
        Ok(Journal {
            dir: dir.map(Path::to_owned),
            storage,
            state,
            genesis,
            queue: Mutex::default(),
            writer: Mutex::new(Writer { log, waiting }),
            clock: Mutex::default(),
            acks: Mutex::default(),
            behind_gaps,
            damaged: Mutex::default(),
            closed: AtomicBool::new(false),
        })
    }

    /// Folds the whole log anew and puts the result in the state's place, as one change.
    pub fn rebuild_state(&self) -> Result<(), OpenError> {
        let mut writer = self.writer.lock();
        let acked = self.state.read(|kv| acks::all(kv)).unwrap_or_default();
        let log = &writer.log;
        let waiting = self.state.rewrite(|kv| {
            let waiting = fold_log(kv, log, LogPos::default())?;
            for id in &acked {
                if let Some(rec) = load_entry(kv, id)? {
                    chain::acknowledge(kv, &rec)?;
                }
            }
            Ok::<_, OpenError>(waiting)
        })?;
        writer.waiting = waiting;
        Ok(())
    }
}

fn has_genesis(storage: &Arc<dyn Storage>) -> Result<bool, CreateError> {
    match Log::open(Arc::clone(storage)) {
        Ok(None) => Ok(false),
        Ok(Some(log)) => Ok(log.end().segment > 1 || log.end().offset > log::SEGMENT_HEADER_LEN),
        // A first segment without a whole header is what a crash while creating leaves.
        Err(OpenError::Corrupt { .. })
            if storage
                .len(&log::segment_name(1))
                .is_ok_and(|len| len < log::SEGMENT_HEADER_LEN) =>
        {
            Ok(false)
        }
        Err(error) => Err(CreateError::Open(error)),
    }
}

/// Folds what the log holds from `from` on; gives the entries that wait for missing ones.
fn fold_log(kv: &mut dyn Kv, log: &Log, from: LogPos) -> Result<Waiting, OpenError> {
    let mut waiting = Waiting::default();
    let storage = log.storage();
    let mut fold = match from == LogPos::default() {
        true => None,
        false => Fold::resume(&mut *kv)?,
    };
    if fold.is_none() {
        drop(fold);
        let Some((genesis, at)) = find_genesis(log)? else {
            return Err(OpenError::Corrupt { path: storage.path("") });
        };
        Fold::begin(&mut *kv, &genesis, at)?.ok_or(StateError::Corrupt { table: '?' })?.finish()?;
        fold = Fold::resume(&mut *kv)?;
    }
    let mut fold = fold.ok_or(StateError::Corrupt { table: '?' })?;
    log.scan(from, &mut |frame| {
        let Frame::Entry { at, bytes } = frame else { return Ok(()) };
        // Damage that its checksum misses is damage all the same; peers have the entry.
        let Ok(entry) = VerifiedEntry::trust_unchecked(bytes.into()) else { return Ok(()) };
        let mut ready = vec![(entry, at)];
        while let Some((entry, at)) = ready.pop() {
            match judge(fold.kv, &fold.meta, &entry)? {
                Verdict::Ready => {
                    fold.apply(&entry, at)?;
                    for held in waiting.applied(&entry.id()) {
                        let Some(at) = held.at else { continue };
                        let bytes = log::read(&*storage, at)?.unwrap_or_default();
                        let entry = VerifiedEntry::trust_unchecked(bytes.into());
                        ready.extend(entry.ok().map(|entry| (entry, at)));
                    }
                }
                Verdict::Waits(missing) => {
                    waiting.hold(entry, Some(at), missing);
                }
                Verdict::Known | Verdict::Refused(_) => {}
            }
        }
        fold.changed.clear();
        Ok(())
    })?;
    fold.meta.watermark = log.end();
    fold.meta.gaps = waiting.gaps();
    fold.finish()?;
    Ok(waiting)
}

/// The authors of entries that wait, and whom these admit; who is removed in one is not among them.
fn members_behind_gaps(
    storage: &dyn Storage,
    waiting: &Waiting,
) -> Result<BTreeSet<DeviceId>, OpenError> {
    let (mut members, mut removed) = (BTreeSet::new(), BTreeSet::new());
    for at in waiting.places() {
        let Some(bytes) = log::read(storage, at)? else { continue };
        let Ok(entry) = VerifiedEntry::trust_unchecked(bytes.into()) else { continue };
        members.insert(entry.entry().device);
        for op in &entry.entry().ops {
            match op {
                Op::Admit { device, .. } => _ = members.insert(*device),
                Op::Remove { device, .. } => _ = removed.insert(*device),
                _ => {}
            }
        }
    }
    Ok(members.difference(&removed).copied().collect())
}

fn find_genesis(log: &Log) -> Result<Option<(VerifiedEntry, LogPos)>, OpenError> {
    let mut found = None;
    log.scan(LogPos::default(), &mut |frame| {
        if let Frame::Entry { at, bytes } = frame
            && found.is_none()
            && let Ok(entry) = VerifiedEntry::trust_unchecked(bytes.into())
            && DriveId::from(entry.id()) == log.drive()
            && entry.entry().is_genesis()
        {
            found = Some((entry, at));
        }
        Ok(())
    })?;
    Ok(found)
}

/// Whether `id` is applied.
pub(super) fn is_applied(
    kv: &dyn crate::kv::KvRead,
    id: &crate::id::EntryId,
) -> Result<bool, StateError> {
    Ok(kv.get(&key(table::ENTRY, &[id.as_bytes()]))?.is_some())
}
