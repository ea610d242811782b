//! `atelier mount`: which drive is meant, whether the place can be used, and the start.
//!
//! Leaves out starting processes ([`crate::start`]) and everything after it.
//!
//! Invariant: a new drive is made only at a place that never was the mount of another one.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;

use super::{output, progress};
use crate::ipc::{Client, Progress, Request};
use crate::keys::prompt::Terminal;
use crate::keys::{Choice, Drives, KeyStore, SystemVault};
use crate::launch::{Action, Keep, Options, Plan};
use crate::mountpoint::{self, Found};
use crate::paths::{DataDir, Description, store};
use crate::report::{Exit, Failure};
use crate::start;

/// Longest name of a drive or a device, bytes; conflict copies carry the latter in their names.
const NAME_LEN_MAX: usize = 64;
/// How long a daemon whose mount is gone may take to end before its store counts as in use.
const ENDING_MAX: Duration = Duration::from_secs(15);
/// Between two looks at it.
const ENDING_POLL: Duration = Duration::from_millis(20);
/// Free space without which no drive is begun, bytes.
const FREE_MIN: u64 = 32 << 20;

#[derive(Debug, Args)]
pub(crate) struct MountArgs {
    /// An empty or a new folder, or the one the drive was mounted at before
    path: PathBuf,
    /// Name of the drive: of the new one, or of one that is here and is to be mounted at PATH
    #[arg(long, value_name = "NAME")]
    drive: Option<String>,
    #[command(flatten)]
    options: MountOptions,
}

/// How to mount; of `mount` and of `join`.
#[derive(Debug, Args)]
pub(crate) struct MountOptions {
    /// The name others see; the login name if none is given
    #[arg(long)]
    user: Option<String>,
    /// Stay in the foreground
    #[arg(long)]
    foreground: bool,
    /// Listen there, as /ip4/0.0.0.0/tcp/7447
    #[arg(long, value_name = "MULTIADDR", value_parser = multiaddr)]
    listen: Vec<String>,
    /// Another member's address
    #[arg(long, value_name = "MULTIADDR", value_parser = multiaddr)]
    peer: Vec<String>,
    /// Do not look for members on the local network
    #[arg(long)]
    no_mdns: bool,
    /// Which contents to keep on this device
    #[arg(long, default_value = "all")]
    keep: Keep,
    /// Where to keep the device's key
    #[arg(long, default_value = "auto")]
    key_store: Choice,
    /// List the virtual folders too
    #[arg(long)]
    show_virtual: bool,
    /// Let other users of this machine in
    #[arg(long)]
    allow_other: bool,
    /// Numeric owners replicate; decided when the drive is made
    #[arg(long)]
    posix_owners: bool,
}

fn multiaddr(text: &str) -> Result<String, String> {
    match text.parse::<crate::identity::Multiaddr>() {
        Ok(_) => Ok(text.to_owned()),
        Err(e) => Err(format!("not an address like /ip4/192.168.1.5/tcp/7447: {e}")),
    }
}

impl MountOptions {
    /// The name given, else the login name.
    pub(crate) fn user_or_default(&self) -> Result<String, Failure> {
        let name = match &self.user {
            Some(name) => name.trim().to_owned(),
            None => login_name(),
        };
        check_name(&name, "--user")?;
        Ok(name)
    }

    /// What cannot be chosen for a drive that exists.
    pub(crate) fn refuse_posix_owners(&self, why: &str) -> Result<(), Failure> {
        if self.posix_owners {
            return Err(Failure::usage(
                format!("--posix-owners is for a new drive: {why}"),
                "leave it out",
            ));
        }
        Ok(())
    }

    fn to_options(&self, known: Option<&Description>) -> Options {
        let or_known = |given: &[String], known: Option<&Vec<String>>| match (given, known) {
            ([], Some(known)) => known.clone(),
            (given, _) => given.to_vec(),
        };
        Options {
            listen: or_known(&self.listen, known.map(|d| &d.listen)),
            peers: or_known(&self.peer, known.map(|d| &d.peers)),
            mdns: !self.no_mdns,
            keep: self.keep,
            show_virtual: self.show_virtual,
            allow_other: self.allow_other,
            posix_owners: self.posix_owners,
        }
    }
}

/// A place that can be mounted at.
pub(crate) struct Place {
    pub(crate) path: PathBuf,
    found: Found,
}

pub(crate) fn run(data: &DataDir, args: &MountArgs) -> Result<Exit, Failure> {
    data.prepare()?;
    let target = data.real_path(&args.path)?;
    // Before the place is looked at: "already mounted" says more than "not empty".
    let known = which_drive(data, &target, args.drive.as_deref())?;
    if let Some(drive) = &known {
        refuse_running(data, drive, &target, ENDING_MAX)?;
    }
    let place = place(data, &args.path)?;
    match known {
        Some(drive) => {
            args.options.refuse_posix_owners("this one exists")?;
            if args.options.user.as_deref().is_some_and(|u| u.trim() != drive.device.name) {
                return Err(Failure::usage(
                    format!("the drive knows this device as \"{}\"", drive.device.name),
                    "leave --user out",
                ));
            }
            let action = Action::Open { drive: drive.id()? };
            launch(data, &place, &drive.device.name, action, &args.options, Some(&drive))
        }
        None => {
            let drive_name = match &args.drive {
                Some(name) => name.trim().to_owned(),
                None => name_of(&place.path)?,
            };
            check_name(&drive_name, "--drive")?;
            let user = args.options.user_or_default()?;
            launch(data, &place, &user, Action::Create { drive_name }, &args.options, None)
        }
    }
}

/// The drive that is meant, if it is one of this device; `None` means a new one.
fn which_drive(
    data: &DataDir,
    mount: &Path,
    name: Option<&str>,
) -> Result<Option<Description>, Failure> {
    let named = |d: &Description, name: &str| d.drive.name == name || d.drive.id == name;
    if let Some(id) = data.mounts()?.get(mount) {
        let drive = data.drive(&id)?.ok_or_else(|| Failure::store_gone(mount, id))?;
        return match name {
            Some(name) if !named(&drive, name) => {
                Err(Failure::other_drive(mount, &drive.drive.name))
            }
            _ => Ok(Some(drive)),
        };
    }
    let Some(name) = name else { return Ok(None) };
    let mut found: Vec<Description> =
        data.drives()?.0.into_iter().filter(|d| named(d, name)).collect();
    match (found.pop(), found.is_empty()) {
        (Some(_), false) => Err(Failure::usage(
            format!("there are several drives \"{name}\" here"),
            "give the id that `atelier status --json` shows instead of the name",
        )),
        (one, _) => Ok(one),
    }
}

/// A drive has one daemon. One that is ending (its mount is gone, it flushes) is waited for.
fn refuse_running(
    data: &DataDir,
    drive: &Description,
    mount: &Path,
    ending_max: Duration,
) -> Result<(), Failure> {
    let dir = data.store_dir(&drive.id()?);
    let start = Instant::now();
    while mountpoint::mounted_at(&drive.mount).is_none() {
        if !store::is_locked(&dir) {
            return Ok(());
        }
        if start.elapsed() > ending_max {
            return Err(Failure::store_in_use(&dir));
        }
        std::thread::sleep(ENDING_POLL);
    }
    if !store::is_locked(&dir) {
        return Ok(());
    }
    let answers = Client::connect(&dir)
        .is_ok_and(|mut client| client.ask(&Request::Ping, &mut |_| {}).is_ok());
    if !answers {
        return Err(Failure::store_in_use(&dir));
    }
    if drive.mount == mount {
        Err(Failure::already_mounted(mount))
    } else {
        Err(Failure::mounted_elsewhere(&drive.drive.name, &drive.mount))
    }
}

/// Looks whether `given` can be mounted at.
pub(crate) fn place(data: &DataDir, given: &Path) -> Result<Place, Failure> {
    let path = data.real_path(given)?;
    mountpoint::as_text(&path)?;
    if path.parent().is_none() {
        return Err(Failure::bad_path(&path, "the root of the machine cannot be a drive"));
    }
    if path.starts_with(data.root()) || data.root().starts_with(&path) {
        return Err(Failure::nested(&path, data.root()));
    }
    let found = mountpoint::look(&path)?;
    mountpoint::can_mount()?;
    Ok(Place { path, found })
}

/// Opens the key store, makes the plan and starts the daemon.
pub(crate) fn launch(
    data: &DataDir,
    place: &Place,
    user: &str,
    action: Action,
    options: &MountOptions,
    known: Option<&Description>,
) -> Result<Exit, Failure> {
    if known.is_none() {
        refuse_full_disk(data.root())?;
    }
    let opened = {
        let _guard = data.guard()?;
        let drives = if data.drive_ids()?.is_empty() { Drives::None } else { Drives::Some };
        KeyStore::new(data, &SystemVault, &Terminal).existing_or_new(options.key_store, drives)?
    };
    let checked = options.to_options(known);
    let mut plan = Plan::new(data, &place.path, user, action, checked, &opened.seed);
    if let Some(notice) = opened.notice {
        output::note(&format!("note: {notice}"));
        plan.notices.push(notice);
    }
    let made = place.found == Found::Missing;
    if made {
        mountpoint::make(&place.path)?;
    }
    let started = if options.foreground {
        start::foreground(plan)
    } else {
        start::background(&plan, &mut Shown { bar: progress::Bar::new() })
    };
    if started.is_err() && made {
        // Only if it is still empty and nothing is mounted on it: `rmdir` sees to both.
        let _ = std::fs::remove_dir(&place.path);
    }
    started.map(|()| Exit::Ok)
}

/// A new drive on a full disk would fail somewhere in the middle. One that exists is mounted all the
/// same: how else could something in it be deleted?
fn refuse_full_disk(root: &Path) -> Result<(), Failure> {
    let disk = rustix::fs::statvfs(root).map_err(|e| Failure::io("look at", root, &e.into()))?;
    if disk.f_bavail.saturating_mul(disk.f_frsize) < FREE_MIN {
        return Err(Failure::disk_full(root));
    }
    Ok(())
}

/// Shows the starting daemon's words.
struct Shown {
    bar: progress::Bar,
}

impl start::Hear for Shown {
    fn progress(&mut self, step: Progress) {
        self.bar.show(step);
    }

    fn line(&mut self, line: String) {
        output::note(&output::printable(&line));
    }
}

/// A new drive's name: that of its folder.
fn name_of(mount: &Path) -> Result<String, Failure> {
    let name = mount.file_name().map(Path::new).unwrap_or(mount);
    mountpoint::as_text(name).map(ToOwned::to_owned)
}

fn check_name(name: &str, option: &str) -> Result<(), Failure> {
    let why = if name.is_empty() {
        "it is empty"
    } else if name.len() > NAME_LEN_MAX {
        "it is longer than 64 bytes"
    } else if name.chars().any(|c| c.is_control() || c == '/') {
        "it has a slash or a control character in it"
    } else {
        return Ok(());
    };
    Err(Failure::usage(
        format!("\"{name}\" cannot be a name: {why}"),
        format!("give another one with {option}"),
    ))
}

/// The name this user logs in with.
fn login_name() -> String {
    let uid = rustix::process::geteuid().as_raw().to_string();
    let accounts = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let by_uid = accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1) == Some(uid.as_str())).then(|| name.to_owned())
    });
    by_uid
        .or_else(|| std::env::var("USER").ok())
        .filter(|name| check_name(name, "--user").is_ok())
        .unwrap_or_else(|| "user".to_owned())
}

#[cfg(test)]
mod tests;
