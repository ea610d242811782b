//! One running drive, from the store's lock to the last fdatasync.
//!
//! The order of starting and stopping lives here and nowhere else. Leaves out what the parts do, and
//! the process around them ([`crate::start`]).
//!
//! ```text
//! start: marker -> journal (made, joined or opened) -> chunks -> drive -> file system (replays the
//!        spool) -> network -> control socket -> mount -> ready
//! stop:  unmounted -> drafts sealed -> others have it (bounded) -> socket, network -> file system
//!        -> chunks, journal -> marker gone
//! ```
//!
//! Invariants:
//! - nothing is mounted before the spool has been replayed;
//! - the marker goes only after everything was closed without an error.

mod join;
mod service;
mod stopped;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cas::store::Store;
use journal::journal::GenesisSpec;
use journal::{Journal, Opened};
use net::EventStream;

use crate::clock::SystemClock;
use crate::drive::{Drive, Fetching};
use crate::ipc::Server;
use crate::launch::{Fresh, Launch};
use crate::report::Failure;
use crate::signals::Stop;
use stopped::Marker;
pub(crate) use stopped::{Left, left_in};

/// Threads that drive the network; hashing and disk run on blocking threads beside them.
const NET_THREADS: usize = 2;
/// Blocking threads the network may use at a time.
const NET_BLOCKING_THREADS: usize = 16;
/// Threads that hash and compress.
const STORE_WORKERS: usize = 2;
/// Disk space never used by file data, so that accepted work can always be finished, bytes.
const RESERVE_MAX: u64 = 256 << 20;
/// The reserve is at most this part of the disk.
const RESERVE_SHARE: u64 = 20;
/// How long an unmount waits for one other device to have everything.
const FAREWELL: Duration = Duration::from_secs(10);
/// News of the network taken in together, count.
const NEWS_STEP: usize = 4096;

/// Runs the drive until it is unmounted.
pub fn run(mut launch: Launch) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(NET_THREADS)
        .max_blocking_threads(NET_BLOCKING_THREADS)
        .thread_name("net")
        .enable_all()
        .build()
        .map_err(Failure::internal)?;
    if !matches!(launch.fresh, Fresh::Existing) {
        join::check_listen(&launch)?;
    }
    make_fresh(&mut launch, runtime.handle())?;
    let dir = launch.store.dir().to_owned();
    let marker = Marker::place(&dir).map_err(|e| Failure::io("write", &dir, &e))?;
    let drive = open_drive(&launch, &dir, marker.opened)?;
    let fs = open_fs(&launch, &dir, &drive)?;
    drive.attach_fs(&fs);
    for line in &launch.notices {
        drive.notice(line.clone(), "see `atelier doctor`".into());
    }
    let events = start_net(&launch, &dir, &drive, &runtime)?;
    let service = service::DriveService::new(drive.clone(), launch.stop.clone());
    let server = Server::bind(&dir, Arc::new(service))?;
    if matches!(launch.fresh, Fresh::Join { .. }) {
        join::await_first_sync(&launch, &drive);
        if drive.own_role().is_some() {
            join::Through::forget(&dir);
        }
    }
    let mounted = mount(&launch, &fs)?;
    let background = spawn_background(&drive, events, &runtime, &launch.stop)?;
    launch.ready.ready();

    wait_for_end(&launch, &mounted);
    tracing::info!("unmounted; finishing");
    let sealed = finish(&drive, &fs);
    let is_removed = drive.is_removed();
    drive.end_events();
    drop(server);
    if let Some(net) = drive.net() {
        net.shutdown_blocking();
    }
    background.abort();
    drop(mounted);
    drop(fs);
    runtime.shutdown_timeout(Duration::from_secs(5));
    drive.close().map_err(|e| Failure::of(&e))?;
    match sealed {
        Ok(()) => marker.remove(),
        Err(failure) => {
            if is_removed {
                marker.stay_for_good();
            }
            return Err(failure);
        }
    }
    Ok(())
}

/// Makes or joins the drive when the launch asks for it; the store has its place afterwards.
fn make_fresh(launch: &mut Launch, runtime: &tokio::runtime::Handle) -> Result<(), Failure> {
    let dir = launch.store.dir().join("journal");
    let now = SystemClock.now();
    let journal = match &launch.fresh {
        Fresh::Existing => return Ok(()),
        Fresh::Create { drive_name } => {
            let mut key = [0; cas::id::HASH_LEN];
            getrandom::fill(&mut key).map_err(Failure::internal)?;
            let spec = GenesisSpec {
                drive_name: drive_name.clone(),
                device_name: launch.user.clone(),
                id_key: cas::id::IdKey::from_bytes(key),
                posix_owners: launch.options.posix_owners,
            };
            Journal::create(&dir, &launch.signer, spec, now).map_err(|e| Failure::of(&e))?
        }
        Fresh::Join { ticket } => join::join(launch, ticket, &dir, runtime)?,
    };
    let drive = journal.drive();
    journal.close().map_err(|e| Failure::of(&e))?;
    drop(journal);
    launch.complete(drive.id, &drive.name)?;
    if matches!(launch.fresh, Fresh::Create { .. }) {
        launch.ready.line(format!("created the drive \"{}\"", drive.name));
    }
    Ok(())
}

fn open_drive(launch: &Launch, dir: &Path, opened: Opened) -> Result<Arc<Drive>, Failure> {
    let journal_dir = dir.join("journal");
    let journal = Journal::open(&journal_dir, opened).map_err(|error| match error {
        journal::OpenError::TooNew { found, supported, .. } => {
            Failure::too_new("the journal", found.into(), supported.into())
        }
        journal::OpenError::Full => Failure::disk_full(&journal_dir),
        error => Failure::of(&error),
    })?;
    let cas_dir = dir.join("cas");
    let config = cas::store::Config {
        dir: cas_dir.clone(),
        id_key: journal.drive().id_key,
        reserve_bytes: reserve(dir),
        workers: STORE_WORKERS,
    };
    let store = Store::open(config).map_err(|error| match error {
        cas::error::OpenError::TooNew { found, supported, .. } => {
            Failure::too_new("the chunk store", found.into(), supported.into())
        }
        cas::error::OpenError::Full => Failure::disk_full(&cas_dir),
        error => Failure::of(&error),
    })?;
    let through = join::Through::load(dir).map(|through| through.device);
    let fetching = Fetching::load(dir, launch.options.keep, opened, &store);
    let signer = launch.signer.clone();
    Ok(Drive::new(journal, store, signer, &launch.mount, through, fetching))
}

/// A small disk keeps a small reserve, or nothing could be written to it at all.
fn reserve(dir: &Path) -> u64 {
    match rustix::fs::statvfs(dir) {
        Ok(disk) => RESERVE_MAX.min(disk.f_blocks.saturating_mul(disk.f_frsize) / RESERVE_SHARE),
        Err(_) => RESERVE_MAX,
    }
}

fn open_fs(launch: &Launch, dir: &Path, drive: &Arc<Drive>) -> Result<Arc<vfs::Fs>, Failure> {
    let uid = rustix::process::geteuid().as_raw();
    let gid = rustix::process::getegid().as_raw();
    let mut config = vfs::Config::new(dir.join("spool"), uid, gid);
    config.show_virtual = launch.options.show_virtual;
    config.posix_owners = drive.journal().drive().posix_owners;
    config.allow_other = launch.options.allow_other;
    config.reserve_bytes = reserve(dir);
    config.device = Some(launch.signer.device());
    config.socket = Some(dir.join(crate::ipc::SOCKET_NAME));
    let store = drive.store().clone();
    let clock = Arc::new(SystemClock);
    let (tree, submit, source, locks) =
        (drive.clone(), drive.clone(), drive.clone(), drive.clone());
    let fs = vfs::Fs::open(config, tree, submit, store, source, clock, locks);
    fs.map(Arc::new).map_err(|e| Failure::of(&e))
}

fn start_net(
    launch: &Launch,
    dir: &Path,
    drive: &Arc<Drive>,
    runtime: &tokio::runtime::Runtime,
) -> Result<EventStream, Failure> {
    let config = join::net_config(launch, dir.join("peers"), join::Through::load(dir).as_ref())?;
    let (journal, chunks, locks) = (drive.clone(), drive.clone(), drive.clone());
    let started = net::start(config, journal, chunks, locks, runtime.handle().clone());
    let (handle, events) = started.map_err(|e| Failure::of(&e))?;
    drive.attach_net(handle);
    Ok(events)
}

fn mount(launch: &Launch, fs: &Arc<vfs::Fs>) -> Result<vfs::mount::Mounted, Failure> {
    let at = &launch.mount;
    vfs::mount::clean_stale(at).map_err(|e| Failure::mount_failed(at, e))?;
    let options = vfs::mount::MountOptions {
        allow_other: launch.options.allow_other,
        ..vfs::mount::MountOptions::default()
    };
    vfs::mount::mount(fs.clone(), at, &options).map_err(|error| match error {
        vfs::mount::MountError::NoDevice { .. } => Failure::no_fuse_device(error),
        vfs::mount::MountError::NoHelper => Failure::no_fusermount(),
        error => Failure::mount_failed(at, crate::report::chain(&error)),
    })
}

/// Takes the network's news, and looks for contents that are missing: once, and whenever damage is found.
fn spawn_background(
    drive: &Arc<Drive>,
    mut events: EventStream,
    runtime: &tokio::runtime::Runtime,
    stop: &Stop,
) -> Result<tokio::task::JoinHandle<()>, Failure> {
    let (calls, walker) = (drive.walks(), Arc::downgrade(drive));
    let walk = move || {
        while let Some(drive) = walker.upgrade() {
            drive.walk_contents();
            drop(drive);
            if calls.recv().is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("contents".into()).spawn(walk).map_err(Failure::internal)?;
    let (giver, stop) = (Arc::downgrade(drive), stop.clone());
    let give = move || {
        while let Some(drive) = giver.upgrade().filter(|_| !stop.is_requested()) {
            drive.give_locks_back();
        }
    };
    std::thread::Builder::new().name("locks".into()).spawn(give).map_err(Failure::internal)?;
    let drive = drive.clone();
    Ok(runtime.spawn(async move {
        let mut news = Vec::new();
        while events.recv_many(&mut news, NEWS_STEP).await > 0 {
            let (drive, news) = (drive.clone(), std::mem::take(&mut news));
            // The drive's answers touch disk and state: not for a thread that drives the network.
            let taken = tokio::task::spawn_blocking(move || drive.take_news(news)).await;
            if let Err(error) = taken {
                tracing::error!(%error, "news from the network were lost");
            }
        }
    }))
}

/// Returns when the mount is gone: unmounted by anybody, or by us because somebody asked.
fn wait_for_end(launch: &Launch, mounted: &vfs::mount::Mounted) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            launch.stop.wait();
            if let Err(error) = mounted.unmount() {
                tracing::warn!(%error, "the mount is busy; detached");
            }
        });
        mounted.wait();
        launch.stop.request();
    });
}

/// Publishes what is left and waits, within [`FAREWELL`], until another device has everything.
fn finish(drive: &Drive, fs: &vfs::Fs) -> Result<(), Failure> {
    let sealed = fs.seal_all();
    if let Err(error) = &sealed {
        tracing::error!(%error, "drafts could not be published; they stay in the spool");
    }
    let until = Instant::now() + FAREWELL;
    if let Some(net) = drive.net() {
        let synced = net.sync_barrier_blocking(until.saturating_duration_since(Instant::now()));
        if synced.reached.is_empty() && !synced.behind.is_empty() {
            tracing::warn!("no other device has everything yet");
        }
    }
    sealed.map_err(|e| Failure::not_published(&e))
}
