//! What a daemon is started with: the plan the command line makes, and the launch it becomes.
//!
//! Leaves out starting processes ([`crate::start`]) and everything the daemon does.
//!
//! Invariants:
//! - a [`Launch`] holds the store's lock and a key that has been checked against the drive;
//! - a plan holds the device's secret: it travels over a private socket only and is never written
//!   down or logged.

use std::fmt;
use std::path::{Path, PathBuf};

use journal::Signer;
use journal::id::DriveId;
use net::invite::Ticket;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::identity;
use crate::keys::{SEED_LEN, Seed};
use crate::paths::store::NONCE_LEN;
use crate::paths::{DataDir, Description, Store};
use crate::report::Failure;
use crate::signals::Stop;
use crate::start::Ready;

/// Which contents this device keeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// Everything of the drive.
    #[default]
    All,
    /// What was opened here.
    Opened,
}

/// How a drive is mounted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Options {
    /// Multiaddresses to listen at; empty means the usual ones.
    pub listen: Vec<String>,
    /// Multiaddresses of others, given by hand.
    pub peers: Vec<String>,
    /// Look for others on the local network.
    pub mdns: bool,
    /// Which contents are kept.
    pub keep: Keep,
    /// List `.snapshots` and the like.
    pub show_virtual: bool,
    /// Let other users of the machine in.
    pub allow_other: bool,
    /// Numeric owners replicate (a new drive only).
    pub posix_owners: bool,
}

/// What to do with which drive.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Make a new drive.
    Create {
        /// Its name.
        drive_name: String,
    },
    /// Join one.
    Join {
        /// With this ticket.
        ticket: String,
    },
    /// Open one that is here.
    Open {
        /// Its id.
        drive: DriveId,
    },
}

/// Everything a daemon needs to know, as the command line hands it over.
#[derive(Serialize, Deserialize)]
pub struct Plan {
    /// The data directory.
    pub data_dir: PathBuf,
    /// The mount point: absolute, real, there.
    pub mount: PathBuf,
    /// The name this device is admitted under.
    pub user: String,
    /// What to do.
    pub action: Action,
    /// How.
    pub options: Options,
    /// Lines for `status`.
    pub notices: Vec<String>,
    /// The device's secret, hex.
    seed: Zeroizing<String>,
}

impl Plan {
    /// Makes a plan.
    pub fn new(
        data: &DataDir,
        mount: &Path,
        user: &str,
        action: Action,
        options: Options,
        seed: &Seed,
    ) -> Self {
        Self {
            data_dir: data.root().to_owned(),
            mount: mount.to_owned(),
            user: user.to_owned(),
            action,
            options,
            notices: Vec::new(),
            seed: Zeroizing::new(data_encoding::HEXLOWER.encode(seed.as_bytes())),
        }
    }

    fn seed(&self) -> Result<Seed, Failure> {
        let bytes = data_encoding::HEXLOWER.decode(self.seed.as_bytes()).map(Zeroizing::new);
        bytes
            .ok()
            .and_then(|b| <[u8; SEED_LEN]>::try_from(b.as_slice()).ok())
            .map(Seed::from_bytes)
            .ok_or_else(|| Failure::internal("the daemon was started without a key"))
    }
}

/// How the drive comes to this device.
#[derive(Debug)]
pub enum Fresh {
    /// It is made now.
    Create {
        /// Its name.
        drive_name: String,
    },
    /// It is joined now, before anything is mounted.
    Join {
        /// With this ticket.
        ticket: Box<Ticket>,
    },
    /// It is here already.
    Existing,
}

/// Everything the daemon is given; see [`crate::daemon::run`].
pub struct Launch {
    /// The store, locked. For a fresh drive it has no description until [`Launch::complete`].
    pub store: Store,
    /// The mount point: absolute, real; a directory that is empty, or a dead mount.
    pub mount: PathBuf,
    /// The name this device is (to be) admitted under.
    pub user: String,
    /// How the drive is mounted.
    pub options: Options,
    /// The device's key in this drive.
    pub signer: Signer,
    /// How the drive comes to this device.
    pub fresh: Fresh,
    /// Tells whoever waits that the mount answers, or how far it is.
    pub ready: Ready,
    /// Whether somebody wants the daemon to end.
    pub stop: Stop,
    /// Lines for `status`.
    pub notices: Vec<String>,
    nonce: [u8; NONCE_LEN],
}

impl Launch {
    /// Opens or begins the store and derives the key.
    pub fn prepare(plan: Plan, ready: Ready, stop: Stop) -> Result<Self, Failure> {
        let data = DataDir::locate(Some(&plan.data_dir))?;
        let seed = plan.seed()?;
        let fresh = match &plan.action {
            Action::Create { drive_name } => Fresh::Create { drive_name: drive_name.clone() },
            Action::Join { ticket } => Fresh::Join { ticket: Box::new(identity::ticket(ticket)?) },
            Action::Open { .. } => Fresh::Existing,
        };
        let (store, signer, nonce) = match &plan.action {
            Action::Open { drive } => open_existing(&data, drive, &plan, &seed)?,
            Action::Create { .. } | Action::Join { .. } => {
                let nonce = identity::join_nonce()?;
                (Store::begin(&data)?, identity::signer(&seed, &nonce), nonce)
            }
        };
        Ok(Self {
            store,
            mount: plan.mount,
            user: plan.user,
            options: plan.options,
            signer,
            fresh,
            ready,
            stop,
            notices: plan.notices,
            nonce,
        })
    }

    /// The fresh drive's journal is whole: gives the store its name. Its directory moves.
    pub fn complete(&mut self, drive: DriveId, drive_name: &str) -> Result<(), Failure> {
        let device = (self.signer.device(), self.user.as_str());
        let mut description =
            Description::new((drive, drive_name), device, &self.nonce, &self.mount);
        description.listen.clone_from(&self.options.listen);
        description.peers.clone_from(&self.options.peers);
        self.store.complete(description)
    }
}

fn open_existing(
    data: &DataDir,
    drive: &DriveId,
    plan: &Plan,
    seed: &Seed,
) -> Result<(Store, Signer, [u8; NONCE_LEN]), Failure> {
    let mut store = Store::open(data, drive)?;
    let (signer, nonce) = match store.description() {
        Some(found) => (identity::existing_signer(seed, found)?, found.join_nonce()?),
        None => return Err(Failure::internal("an open store has no description")),
    };
    store.update(|d| {
        d.mount.clone_from(&plan.mount);
        d.listen.clone_from(&plan.options.listen);
        d.peers.clone_from(&plan.options.peers);
    })?;
    Ok((store, signer, nonce))
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan").field("mount", &self.mount).finish_non_exhaustive()
    }
}
