//! One device of the demo: a data directory, a mount, and this program run against them.
//!
//! Leaves out what is shown ([`super::steps`]).
//!
//! Invariants: every command is given up after [`COMMAND_MAX`] or when the user interrupts; a device
//! that has been mounted is unmounted by [`Device::end`], by force if it must be.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use crate::ipc::StatusReport;
use crate::keys::prompt;
use crate::mountpoint;
use crate::report::{Code, Failure};
use crate::signals::Stop;

/// The two devices' names.
pub(super) const NAMES: [&str; 2] = ["anna", "ben"];
/// How long a command may take.
const COMMAND_MAX: Duration = Duration::from_secs(150);
/// How long anything else is waited for.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(60);
/// Between two looks.
const POLL: Duration = Duration::from_millis(5);
/// The devices meet on this machine only, at a port the system chooses.
const LISTEN: &str = "/ip4/127.0.0.1/tcp/0";

/// One device.
pub(super) struct Device {
    pub(super) name: String,
    pub(super) mount: PathBuf,
    data: PathBuf,
    home: PathBuf,
    stop: Stop,
}

impl Device {
    /// Makes the device's folders.
    pub(super) fn new(root: &Path, name: &str, stop: &Stop) -> Result<Self, Failure> {
        let home = root.join(name);
        DirBuilder::new().mode(0o700).create(&home).map_err(|e| Failure::io("make", &home, &e))?;
        Ok(Self {
            name: name.to_owned(),
            mount: home.join("drive"),
            data: home.join("data"),
            home,
            stop: stop.clone(),
        })
    }

    /// The command as a person would type it.
    pub(super) fn spoken(&self, verb: &str) -> String {
        format!("atelier --data-dir {} {verb} {}", self.data.display(), self.mount.display())
    }

    /// Makes the drive and mounts it.
    pub(super) fn make_drive(&self) -> Result<(), Failure> {
        self.mount_with(&[
            "mount".as_ref(),
            self.mount.as_os_str(),
            "--drive".as_ref(),
            "demo".as_ref(),
            "--user".as_ref(),
            self.name.as_ref(),
        ])
    }

    /// Joins with a ticket and mounts.
    pub(super) fn join(&self, ticket: &str) -> Result<(), Failure> {
        self.mount_with(&[
            "join".as_ref(),
            ticket.as_ref(),
            self.mount.as_os_str(),
            "--user".as_ref(),
            self.name.as_ref(),
        ])
    }

    /// Mounts again; `peer` is where the other one can be reached, which is elsewhere each time.
    pub(super) fn mount_again(&self, peer: Option<&str>) -> Result<(), Failure> {
        let mut args: Vec<&OsStr> = vec!["mount".as_ref(), self.mount.as_os_str()];
        if let Some(peer) = peer {
            args.push("--peer".as_ref());
            args.push(peer.as_ref());
        }
        self.mount_with(&args)
    }

    fn mount_with(&self, args: &[&OsStr]) -> Result<(), Failure> {
        let options: [&OsStr; 5] = [
            "--no-mdns".as_ref(),
            "--listen".as_ref(),
            LISTEN.as_ref(),
            "--key-store".as_ref(),
            "file".as_ref(),
        ];
        self.command(&[args, &options].concat()).map(|_| ())
    }

    /// Unmounts, as a person would.
    pub(super) fn unmount(&self) -> Result<(), Failure> {
        self.command(&["unmount".as_ref(), self.mount.as_os_str()]).map(|_| ())
    }

    /// Gives the drive as it is now a name.
    pub(super) fn name_moment(&self, name: &str) -> Result<(), Failure> {
        self.command(&["snapshot".as_ref(), self.mount.as_os_str(), name.as_ref()]).map(|_| ())
    }

    /// A verb with the mount, or a file in it, as its argument; its JSON.
    pub(super) fn ask<T: DeserializeOwned>(&self, verb: &str, path: &str) -> Result<T, Failure> {
        let path = self.mount.join(path);
        let text = self.command(&[verb.as_ref(), path.as_os_str(), "--json".as_ref()])?;
        serde_json::from_str(&text).map_err(|e| {
            failed(format!("`atelier {verb} --json` of {} makes no sense: {e}", self.name))
        })
    }

    /// A new ticket.
    pub(super) fn invite(&self) -> Result<String, Failure> {
        let text = self.command(&["invite".as_ref(), self.mount.as_os_str()])?;
        Ok(text.trim().to_owned())
    }

    /// Where this device can be reached now.
    pub(super) fn address(&self) -> Result<String, Failure> {
        let status: StatusReport = self.ask("status", "")?;
        let first = status.listen.into_iter().next();
        first.ok_or_else(|| failed(format!("{} listens nowhere", self.name)))
    }

    /// Saves as applications do: beside the old one, which becomes the backup, then in its place.
    pub(super) fn save(&self, name: &str, bytes: &[u8]) -> Result<(), Failure> {
        let path = self.mount.join(name);
        let aside = self.mount.join(format!("{name}@"));
        let backup = self.mount.join(format!("{name}1"));
        let written = fs::write(&aside, bytes).and_then(|()| match fs::rename(&path, backup) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
            _ => fs::rename(&aside, &path),
        });
        written.map_err(|e| failed(format!("{} cannot save {name}: {e}", self.name)))
    }

    /// Writes a file in place, as a text editor may.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<(), Failure> {
        fs::write(self.mount.join(name), text)
            .map_err(|e| failed(format!("{} cannot write {name}: {e}", self.name)))
    }

    /// What a file holds now, if it is there.
    pub(super) fn read(&self, name: &str) -> Result<Option<Vec<u8>>, Failure> {
        match fs::read(self.mount.join(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(failed(format!("{} cannot read {name}: {e}", self.name))),
        }
    }

    /// The names in the drive, sorted.
    pub(super) fn names(&self) -> Result<Vec<String>, Failure> {
        let cannot = |e| failed(format!("{} cannot list the drive: {e}", self.name));
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.mount).map_err(cannot)? {
            names.push(entry.map_err(cannot)?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    /// Waits until `look` finds what it looks for.
    pub(super) fn wait<T>(
        &self,
        what: &str,
        mut look: impl FnMut() -> Result<Option<T>, Failure>,
    ) -> Result<T, Failure> {
        let start = Instant::now();
        loop {
            if let Some(found) = look()? {
                return Ok(found);
            }
            if start.elapsed() > WAIT_MAX {
                let s = WAIT_MAX.as_secs();
                return Err(failed(format!("{} waited {s} s for {what}, in vain", self.name)));
            }
            if self.stop.wait_for(POLL) {
                return Err(cancelled());
            }
        }
    }

    /// Unmounts if it is mounted, whatever has happened before; `Ok` if nothing is mounted then.
    pub(super) fn end(&self) -> Result<(), Failure> {
        if !self.data.exists() {
            return Ok(());
        }
        // The user's interrupt has done its work; the cleaning is not to be interrupted by it.
        let asked = self.run(&["unmount".as_ref(), self.mount.as_os_str()], &Stop::new());
        if mountpoint::mounted_at(&self.mount).is_none() {
            return Ok(());
        }
        mountpoint::detach(&self.mount)?;
        asked.map(|_| ())
    }

    fn command(&self, args: &[&OsStr]) -> Result<String, Failure> {
        self.run(args, &self.stop)
    }

    /// Runs this program for this device; its standard output.
    fn run(&self, args: &[&OsStr], stop: &Stop) -> Result<String, Failure> {
        let cannot = |e: std::io::Error| failed(format!("cannot run atelier: {e}"));
        // Files, not pipes: nobody has to read while we wait.
        let (out, err) = (self.home.join("out"), self.home.join("err"));
        let mut child = Command::new(std::env::current_exe().map_err(cannot)?)
            .arg("--data-dir")
            .arg(&self.data)
            .args(args)
            .env_remove("ATELIER_DATA_DIR")
            .env_remove(prompt::VARIABLE)
            .stdin(Stdio::null())
            .stdout(File::create(&out).map_err(cannot)?)
            .stderr(File::create(&err).map_err(cannot)?)
            .spawn()
            .map_err(cannot)?;
        let status = wait_for(&mut child, stop)?;
        if status.success() {
            return fs::read_to_string(&out).map_err(cannot);
        }
        let said = fs::read_to_string(&err).unwrap_or_default();
        let said = said.lines().map(|l| l.trim().trim_start_matches("error: ")).collect::<Vec<_>>();
        let verb = args.first().map(|a| a.to_string_lossy()).unwrap_or_default();
        Err(failed(format!("`atelier {verb}` of {} failed: {}", self.name, said.join("; "))))
    }
}

fn wait_for(child: &mut Child, stop: &Stop) -> Result<std::process::ExitStatus, Failure> {
    let start = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) => {}
            Err(e) => return Err(failed(format!("atelier is lost: {e}"))),
        }
        let interrupted = stop.wait_for(POLL);
        if interrupted || start.elapsed() > COMMAND_MAX {
            let _ = child.kill();
            let _ = child.wait();
            return Err(if interrupted {
                cancelled()
            } else {
                failed(format!("atelier did not end in {} s", COMMAND_MAX.as_secs()))
            });
        }
    }
}

/// What was to be shown did not happen.
pub(super) fn failed(cause: String) -> Failure {
    Failure::new(Code::DemoFailed, cause, "`atelier doctor`; with --keep the logs stay for a look")
}

fn cancelled() -> Failure {
    Failure::new(Code::Cancelled, "interrupted", "")
}
