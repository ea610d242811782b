//! A member that lies about contents: admitted with a proper ticket, with an honest journal and a real connection, and
//! chunks that are not what it says they are.
//!
//! It is built from the crates below the daemon, because the daemon itself cannot be brought to lie. Leaves out lies
//! on the wire below a chunk (frames, streams, versions): `net` tests those against itself.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use cas::{ChunkId, Content, MissingChunks, StoredChunk};
use journal::signed::VerifiedEntry;
use journal::{
    AppendError, DeviceId, DriveId, EntryId, Frontier, Journal, Now, Received, Register, Signer,
    VersionId,
};
use net::{AdmitError, ChunkHost, Config, Handle, JoinOptions, JournalHost, LockHost, PutError};
use tokio::runtime::Runtime;

use super::{tree, wait};

/// What the liar answers to whoever asks for a chunk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Lie {
    /// Other bytes, well formed.
    OtherBytes,
    /// A length that is not the data's.
    OtherLength,
    /// A few compressed bytes that claim to be a megabyte.
    Bomb,
    /// Flags nobody has defined.
    UnknownFlags,
    /// The largest piece of data that fits.
    TooMuch,
}

/// A lying member, connected until it is dropped.
pub struct Liar {
    handle: Handle,
    journal: Arc<HonestJournal>,
    runtime: Option<Runtime>,
}

impl Liar {
    /// Joins with `ticket`, keeps its journal in `dir`, and connects to the ticket's devices and to `peers`.
    pub fn join(ticket: &str, dir: &Path, lie: Lie, peers: &[String]) -> Result<Liar> {
        let ticket: net::Ticket = ticket.parse().map_err(|error| anyhow!("the ticket: {error}"))?;
        let signer = Signer::derive(&[7; 32], &[lie as u8; 32]);
        let runtime = Runtime::new()?;
        let options = JoinOptions { mdns: false, ..JoinOptions::default() };
        let joining = net::join(&ticket, *signer.secret_bytes(), "Mallory", options);
        let outcome = runtime.block_on(joining).map_err(|error| anyhow!("join: {error}"))?;
        let journal = Journal::adopt(dir, &outcome.genesis).context("adopt the journal")?;
        let journal = Arc::new(HonestJournal { journal, own: signer.device() });
        let mut peers =
            peers.iter().map(|peer| peer.parse()).collect::<Result<Vec<net::Multiaddr>, _>>()?;
        peers.extend(ticket.addrs.iter().cloned());
        let config = Config {
            identity: *signer.secret_bytes(),
            listen: vec!["/ip4/127.0.0.1/tcp/0".parse()?],
            peers,
            mdns: false,
            addresses_file: None,
        };
        let chunks = Arc::new(LyingChunks { lie });
        let (handle, _events) =
            net::start(config, journal.clone(), chunks, journal.clone(), runtime.handle().clone())
                .map_err(|error| anyhow!("start: {error}"))?;
        Ok(Liar { handle, journal, runtime: Some(runtime) })
    }

    /// Waits until it holds as many entries as make up a drive of `entries`.
    pub fn wait_entries(&self, entries: u64) -> Result<()> {
        wait::until("the liar has the journal", Duration::from_secs(60), || {
            Ok((self.journal.journal.counts().entries >= entries).then_some(()))
        })
    }

    /// Where it listens.
    pub fn addresses(&self) -> Vec<String> {
        self.handle.listen_addrs().iter().map(ToString::to_string).collect()
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.block_on(self.handle.shutdown());
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }
}

fn now() -> Now {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { wall_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX) }
}

struct HonestJournal {
    journal: Journal,
    own: DeviceId,
}

impl LockHost for HonestJournal {
    fn is_newer(&self, _: &Register, _: &[VersionId]) -> bool {
        false
    }
}

impl JournalHost for HonestJournal {
    fn drive_id(&self) -> DriveId {
        self.journal.drive().id
    }

    fn genesis(&self) -> Arc<[u8]> {
        self.journal.drive().genesis
    }

    fn frontier(&self) -> Frontier {
        self.journal.frontier()
    }

    fn lacking(&self, theirs: &Frontier, bytes_max: usize) -> Vec<Arc<[u8]>> {
        self.journal.lacking(theirs, bytes_max)
    }

    fn entry_id(&self, entry: &[u8]) -> EntryId {
        VerifiedEntry::verify(entry.into()).map_or(EntryId::from_bytes([0; 32]), |entry| entry.id())
    }

    fn entry(&self, id: &EntryId) -> Option<Arc<[u8]>> {
        self.journal.entry(id)
    }

    fn damaged(&self) -> Vec<EntryId> {
        self.journal.damaged()
    }

    fn covers(&self, theirs: &Frontier) -> bool {
        self.journal.covers(theirs)
    }

    fn unacknowledged(&self) -> Vec<EntryId> {
        Vec::new()
    }

    fn receive(&self, _from: DeviceId, entries: &[Arc<[u8]>]) -> Result<Received, AppendError> {
        self.journal.receive(entries, now())
    }

    fn acknowledged(&self, by: DeviceId, frontier: &Frontier) {
        self.journal.acknowledged(by, frontier);
    }

    fn before_first_push(&self) -> Result<(), AppendError> {
        Ok(())
    }

    fn members(&self) -> Vec<DeviceId> {
        let members = self.journal.members().into_iter().filter(|member| !member.removed);
        // It knows of its own admission only when the first entries are in.
        members.map(|member| member.device).chain([self.own]).collect()
    }

    fn is_member(&self, device: DeviceId) -> bool {
        self.members().contains(&device)
    }

    fn invites_open(&self) -> bool {
        false
    }

    fn admit(&self, _: [u8; 32], _: DeviceId, _: String, _: [u8; 64]) -> Result<(), AdmitError> {
        Err(AdmitError::Unable)
    }

    /// The first lie: everything is here.
    fn holds(&self) -> Option<Frontier> {
        Some(self.journal.frontier())
    }

    fn they_hold(&self, _by: DeviceId, _frontier: &Frontier) {}

    fn observe_clock(&self, _device: DeviceId, _wall_ms: u64) {}
}

struct LyingChunks {
    lie: Lie,
}

impl ChunkHost for LyingChunks {
    fn get_stored(&self, id: &ChunkId) -> Option<StoredChunk> {
        let seed = id.as_bytes().first().copied().unwrap_or(0);
        let bytes = |len: usize| Bytes::from(tree::random_bytes(len, u64::from(seed)));
        let chunk = match self.lie {
            Lie::OtherBytes => StoredChunk { flags: 0, raw_len: 16_384, data: bytes(16_384) },
            Lie::OtherLength => StoredChunk { flags: 0, raw_len: 4_000_000_000, data: bytes(100) },
            Lie::Bomb => StoredChunk {
                flags: 1,
                raw_len: 1 << 20,
                data: Bytes::from_static(&[0x1f, 0, 1, 0, 0xff]),
            },
            Lie::UnknownFlags => StoredChunk { flags: 0xfe, raw_len: 16_384, data: bytes(16_384) },
            Lie::TooMuch => StoredChunk { flags: 0, raw_len: 16 << 20, data: bytes(16 << 20) },
        };
        Some(chunk)
    }

    fn put_stored(&self, _id: ChunkId, _chunk: StoredChunk) -> Result<(), PutError> {
        Ok(())
    }

    fn has(&self, _id: &ChunkId) -> bool {
        true
    }

    fn missing(&self, _content: Content, _limit: usize) -> Option<MissingChunks> {
        Some(MissingChunks { ids: Vec::new(), complete: true })
    }

    fn sync(&self) -> bool {
        true
    }
}
