//! Joining a drive: the ticket's proof, the genesis, and the settings of the network that follow.
//!
//! Leaves out the conversation itself (`net`) and what an admission means (`journal`).
//!
//! Invariants:
//! - the genesis taken is the one whose hash the ticket names;
//! - the device that admitted us is trusted as a source of entries until its journal has made us a
//!   member; from then on the journal alone says who is.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use journal::Journal;
use net::invite::Ticket;
use net::wire::JoinRefusal;
use net::{JoinError, JoinOptions};

use crate::clock::SystemClock;
use crate::drive::Drive;
use crate::ipc::{Progress, Unit};
use crate::launch::Launch;
use crate::report::Failure;

/// How long a new member waits for the drive's journal before it mounts what it has.
const FIRST_SYNC: Duration = Duration::from_secs(60);
/// How often the wait looks, and tells whoever waits that it is alive.
const LOOK: Duration = Duration::from_millis(50);

/// Proves the ticket and begins a journal with the drive's genesis.
pub(super) fn join(
    launch: &Launch,
    ticket: &Ticket,
    journal_dir: &Path,
    runtime: &tokio::runtime::Handle,
) -> Result<Journal, Failure> {
    let stage = "looking for the drive".to_owned();
    launch.ready.progress(Progress { stage, done: 0, total: None, unit: Unit::Items });
    let identity = *launch.signer.secret_bytes();
    let options = JoinOptions { mdns: launch.options.mdns, ..JoinOptions::default() };
    let mut ticket = ticket.clone();
    for peer in &launch.options.peers {
        ticket.addrs.push(address(peer)?);
    }
    let joined = runtime.block_on(net::join(&ticket, identity, &launch.user, options));
    let outcome = joined.map_err(|error| failure(&error, &ticket))?;
    let journal = Journal::adopt(journal_dir, &outcome.genesis).map_err(|e| Failure::of(&e))?;
    let mut addrs: Vec<String> = outcome.addr.iter().map(ToString::to_string).collect();
    for (_, known) in &outcome.members {
        addrs.extend(known.iter().map(ToString::to_string));
    }
    let through = Through { device: outcome.host, addrs };
    through.save(launch.store.dir())?;
    Ok(journal)
}

fn failure(error: &JoinError, ticket: &Ticket) -> Failure {
    match error {
        JoinError::Refused(JoinRefusal::Expired) => {
            Failure::ticket_expired(crate::ipc::rfc3339(ticket.expires))
        }
        JoinError::Refused(JoinRefusal::Used) => Failure::ticket_used(),
        JoinError::Refused(JoinRefusal::Invalid | JoinRefusal::Void) | JoinError::WrongDrive => {
            Failure::ticket_foreign()
        }
        JoinError::Incompatible => Failure::other_version("the device that answered"),
        JoinError::Unreachable { .. } | JoinError::TimedOut
            if ticket.expires <= SystemClock.wall_ms() =>
        {
            Failure::ticket_expired(crate::ipc::rfc3339(ticket.expires))
        }
        JoinError::Unreachable { .. } | JoinError::TimedOut => {
            let tried: Vec<String> = ticket.addrs.iter().map(ToString::to_string).collect();
            Failure::nobody_answered(tried.join(" "))
        }
        other => Failure::of(other),
    }
}

/// The device through which we joined; kept in the store until we are a member by our own journal.
#[derive(serde::Serialize, serde::Deserialize)]
pub(super) struct Through {
    /// Who admitted us.
    pub(super) device: journal::DeviceId,
    /// Where it and others answered.
    pub(super) addrs: Vec<String>,
}

impl Through {
    fn path(store_dir: &Path) -> PathBuf {
        store_dir.join("joined-through.json")
    }

    fn save(&self, store_dir: &Path) -> Result<(), Failure> {
        let path = Self::path(store_dir);
        let text = serde_json::to_vec(self).map_err(Failure::internal)?;
        std::fs::write(&path, text).map_err(|e| Failure::io("write", &path, &e))
    }

    /// Reads it, if this device has joined and is not a member yet.
    pub(super) fn load(store_dir: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(Self::path(store_dir)).ok()?).ok()
    }

    /// We are a member now.
    pub(super) fn forget(store_dir: &Path) {
        if let Err(error) = std::fs::remove_file(Self::path(store_dir)) {
            tracing::debug!(%error, "nothing to forget");
        }
    }
}

/// A multiaddress as the user typed it.
fn address(text: &str) -> Result<net::Multiaddr, Failure> {
    text.parse().map_err(|_| {
        Failure::usage(
            format!("not an address: {text}"),
            "write it like /ip4/192.168.1.7/tcp/4001 or /ip4/192.168.1.7/udp/4001/quic-v1",
        )
    })
}

/// Refuses addresses that cannot be listened on, before a drive is made or joined that would be left behind.
pub(super) fn check_listen(launch: &Launch) -> Result<(), Failure> {
    for text in &launch.options.listen {
        net::can_listen(&address(text)?).map_err(|e| Failure::of(&e))?;
    }
    Ok(())
}

/// The network's settings for this launch.
pub(super) fn net_config(
    launch: &Launch,
    address_book: PathBuf,
    through: Option<&Through>,
) -> Result<net::Config, Failure> {
    let listen: Result<Vec<_>, _> = launch.options.listen.iter().map(|a| address(a)).collect();
    let mut peers = Vec::new();
    for text in &launch.options.peers {
        peers.push(address(text)?);
    }
    for text in through.iter().flat_map(|t| &t.addrs) {
        peers.push(address(text)?);
    }
    Ok(net::Config {
        identity: *launch.signer.secret_bytes(),
        listen: listen?,
        peers,
        mdns: launch.options.mdns,
        addresses_file: Some(address_book),
    })
}

/// Waits until this device is a member by its own journal and has what its admitter has, at most
/// [`FIRST_SYNC`]; mounts without it then, and goes on fetching.
pub(super) fn await_first_sync(launch: &Launch, drive: &Drive) {
    let until = Instant::now() + FIRST_SYNC;
    while !drive.has_caught_up() && Instant::now() < until {
        let done = drive.journal().counts().entries;
        let stage = "fetching the journal".to_owned();
        launch.ready.progress(Progress { stage, done, total: None, unit: Unit::Items });
        if launch.stop.wait_for(LOOK) {
            return;
        }
    }
}
