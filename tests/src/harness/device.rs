//! One device: the real program with its own data directory and mount, on this machine or on a [`Host`], with a
//! right or a wrong clock.
//!
//! The daemon runs with `--foreground` as our child, so that it can be killed, waited for and does not outlive us.
//! Its identity is kept in a file: a test must not touch the keyring of whoever runs it.
//!
//! Invariants
//! * Nothing is started twice; dropping a device ends its processes and takes its mount away.
//! * Every failure carries the end of the daemon's log.

use std::fs::{File, OpenOptions};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::clock::{self, Offset};
use super::netns::Host;
use super::program::{self, Ran};
use super::site::{self, Site};
use super::{process, wait};

/// How long a mount may take to answer: a start after a crash reads and repairs.
const START_BOUND: Duration = Duration::from_secs(60);
/// How long an unmount may take: it hands over what is not yet safe elsewhere.
const STOP_BOUND: Duration = Duration::from_secs(60);
/// How long devices may take to agree on ordinary amounts of work.
pub const AGREE_BOUND: Duration = Duration::from_secs(90);

/// One device of a drive.
#[derive(Debug)]
pub struct Device {
    name: String,
    dir: PathBuf,
    host: Option<Host>,
    clock: Option<Offset>,
    options: Vec<String>,
    child: Option<Child>,
}

/// The program under test: `ATELIER_BIN`, or what was built beside this test.
pub fn program_path() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("ATELIER_BIN") {
        return Ok(path.into());
    }
    let own = std::env::current_exe().context("find the test's own executable")?;
    let beside = own.ancestors().skip(1).take(2).map(|dir| dir.join("atelier"));
    let found = beside.into_iter().find(|path| path.is_file());
    found.context("no `atelier` beside the tests: run `make test`, or set ATELIER_BIN")
}

impl Device {
    /// A device on this machine that listens on loopback and looks for nobody.
    pub fn local(site: &Site, name: &str) -> Result<Device> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let listen = format!("/ip4/127.0.0.1/tcp/{port}");
        Ok(Device::bare(site, name)?.option("--no-mdns").option("--listen").option(&listen))
    }

    /// A device on a host of its own, with the defaults a user gets.
    pub fn on(site: &Site, name: &str, host: &Host) -> Result<Device> {
        let mut device = Device::bare(site, name)?;
        device.host = Some(host.clone());
        Ok(device)
    }

    fn bare(site: &Site, name: &str) -> Result<Device> {
        let dir = site.dir(name)?;
        Ok(Device {
            name: name.to_owned(),
            dir,
            host: None,
            clock: None,
            options: vec![],
            child: None,
        })
    }

    /// Adds one option to every start.
    pub fn option(mut self, option: &str) -> Device {
        self.options.push(option.to_owned());
        self
    }

    /// Leaves an option out from the next start on, for what is decided when a drive is made.
    pub fn leave_out(&mut self, option: &str) {
        self.options.retain(|given| given != option);
    }

    /// Gives it a wrong clock.
    pub fn clock(mut self, offset: Offset) -> Device {
        self.clock = Some(offset);
        self
    }

    /// Starts `atelier mount`: creates the drive at first use.
    pub fn mount(&mut self) -> Result<()> {
        self.start(&["mount"])
    }

    /// Starts `atelier join`.
    pub fn join(&mut self, ticket: &str) -> Result<()> {
        self.start(&["join", ticket])
    }

    /// Joins the drive of `inviter`.
    pub fn join_drive_of(&mut self, inviter: &Device) -> Result<()> {
        let ticket = inviter.invite(&[])?;
        self.join(&ticket)
    }

    fn start(&mut self, verb: &[&str]) -> Result<()> {
        ensure!(self.child.is_none(), "{} runs already", self.name);
        let child = self.spawn(verb)?;
        self.child = Some(child);
        let what = format!("{} answers after `{}`", self.name, verb.concat());
        let outcome = wait::until(what, START_BOUND, || {
            if let Some(status) = self.child.as_mut().context("no child")?.try_wait()? {
                self.child = None;
                bail!("the daemon ended with {status}");
            }
            // What a killed daemon left behind is no sign of life, although the new one may speak already.
            let answers = process::answers(&self.mount_dir())
                && self.run(&["status", "--json"], true).is_ok_and(|ran| ran.code == 0);
            Ok(answers.then_some(()))
        });
        outcome.with_context(|| self.log_tail())
    }

    fn spawn(&self, verb: &[&str]) -> Result<Child> {
        let log = OpenOptions::new().create(true).append(true).open(self.log_path())?;
        let mut command = self.command()?;
        command
            .args(verb)
            .arg(self.mount_dir())
            .args(["--foreground", "--key-store", "file"])
            .args(["--user", &self.name])
            .args(&self.options)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        command.spawn().context("start atelier")
    }

    /// Starts `atelier VERB` in the foreground, waits for its end and gives what came of it: for starts that must
    /// fail.
    pub fn start_refused(&self, verb: &[&str]) -> Result<Ran> {
        let mut command = self.command()?;
        command
            .args(verb)
            .arg(self.mount_dir())
            .args(["--foreground", "--key-store", "file", "--user", &self.name])
            .args(&self.options);
        program::run(&mut command, START_BOUND)
    }

    /// `atelier` with this device's data directory, network and clock.
    pub fn command(&self) -> Result<Command> {
        let program = program_path()?;
        let mut command = match &self.host {
            Some(host) => host.command(program),
            None => Command::new(program),
        };
        if let Some(offset) = self.clock {
            clock::shift(&mut command, offset, &self.dir)?;
        }
        command.env_remove("ATELIER_DATA_DIR").arg("--data-dir").arg(self.data_dir());
        Ok(command)
    }

    /// Another program on this device's host.
    pub fn program(&self, name: &str) -> Command {
        match &self.host {
            Some(host) => host.command(name),
            None => Command::new(name),
        }
    }

    /// Runs `atelier VERB PATH ARGS...`, PATH being the mount, and gives whatever came of it.
    pub fn try_cli(&self, verb_and_args: &[&str]) -> Result<Ran> {
        self.run(verb_and_args, true)
    }

    /// Runs `atelier` with exactly these arguments.
    pub fn try_raw(&self, args: &[&str]) -> Result<Ran> {
        self.run(args, false)
    }

    fn run(&self, args: &[&str], with_mount: bool) -> Result<Ran> {
        let mut command = self.command()?;
        let (verb, rest) = args.split_first().context("a verb")?;
        command.arg(verb);
        if with_mount {
            command.arg(self.mount_dir());
        }
        program::run(command.args(rest), Duration::from_secs(120))
    }

    /// Like [`Device::try_cli`], insists on exit code 0 and gives standard output.
    pub fn cli(&self, verb_and_args: &[&str]) -> Result<String> {
        let ran = self.try_cli(verb_and_args)?;
        if ran.code != 0 {
            bail!(
                "{} {verb_and_args:?} ended with {}\n{}{}",
                self.name,
                ran.code,
                ran.out,
                ran.err
            );
        }
        Ok(ran.out)
    }

    /// The answer of a query about the drive, as JSON.
    pub fn json(&self, verb: &str) -> Result<Value> {
        let out = self.cli(&[verb, "--json"])?;
        serde_json::from_str(&out).with_context(|| format!("{verb} --json printed {out:?}"))
    }

    /// The versions of a file, newest first.
    pub fn history(&self, file: &str) -> Result<Vec<Value>> {
        let path = self.path(file);
        let path = path.to_str().context("a path in UTF-8")?;
        let ran = self.try_raw(&["history", path, "--json"])?;
        ensure!(ran.code == 0, "history {file} ended with {}\n{}{}", ran.code, ran.out, ran.err);
        let mut answer: Value = serde_json::from_str(&ran.out)?;
        match answer.get_mut("versions").map(Value::take) {
            Some(Value::Array(versions)) => Ok(versions),
            _ => bail!("no versions in {}", ran.out),
        }
    }

    /// `status`.
    pub fn status(&self) -> Result<Value> {
        self.json("status")
    }

    /// What `status` says under notices, each as "what | since | remedy".
    pub fn notices(&self) -> Result<Vec<String>> {
        let status = self.status()?;
        let all = status["notices"].as_array().context("no notices in status")?;
        let text = |notice: &Value, part: &str| notice[part].as_str().map(str::to_owned);
        let told = all.iter().map(|notice| {
            ["what", "since", "remedy"]
                .map(|part| text(notice, part).unwrap_or_default())
                .join(" | ")
        });
        Ok(told.collect())
    }

    /// Waits for a notice with all of these words, and gives it.
    pub fn wait_notice(&self, words: &[&str], bound: Duration) -> Result<String> {
        wait::until(format!("{} has a notice of {words:?}", self.name()), bound, || {
            let all = self.notices()?;
            Ok(all.into_iter().find(|notice| words.iter().all(|word| notice.contains(word))))
        })
        .with_context(|| format!("{:?}", self.notices()))
    }

    /// The hash of the drive's visible tree and conflicts.
    pub fn tree_hash(&self) -> Result<String> {
        let status = self.status()?;
        Ok(status["tree_hash"].as_str().context("no tree_hash in status")?.to_owned())
    }

    /// How many members other than this one are connected.
    pub fn online(&self) -> Result<usize> {
        let status = self.status()?;
        let own = &status["device"]["id"];
        let members = status["members"].as_array().context("no members in status")?;
        let others = members.iter().filter(|member| &member["id"] != own);
        Ok(others.filter(|member| member["online"] == true).count())
    }

    /// Waits until exactly `count` other members are connected.
    pub fn wait_online(&self, count: usize) -> Result<()> {
        let what = format!("{} has {count} members online", self.name);
        wait::until(what, AGREE_BOUND, || Ok((self.online()? == count).then_some(())))
            .with_context(|| self.log_tail())
    }

    /// A new ticket.
    pub fn invite(&self, options: &[&str]) -> Result<String> {
        let out = self.cli(&[&["invite"], options].concat())?;
        let ticket = out.lines().find(|line| line.starts_with("atelier1"));
        Ok(ticket.with_context(|| format!("no ticket in {out:?}"))?.trim().to_owned())
    }

    /// `atelier sync`.
    pub fn sync(&self) -> Result<()> {
        self.cli(&["sync", "--timeout", "60s"]).map(drop).with_context(|| self.log_tail())
    }

    /// Kills the daemon without a word and waits until it is gone. The mount stays behind, dead.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("nothing runs that could be killed")?;
        child.kill()?;
        wait::exit_of(&mut child, STOP_BOUND)?.context("the killed daemon did not end")?;
        Ok(())
    }

    /// `atelier unmount`, and the end of the daemon.
    pub fn unmount(&mut self) -> Result<()> {
        self.cli(&["unmount"]).with_context(|| self.log_tail())?;
        self.wait_end()
    }

    /// Waits for the daemon's own, orderly end after somebody unmounted it.
    pub fn wait_end(&mut self) -> Result<()> {
        let mut child = self.child.take().context("nothing runs")?;
        let status = wait::exit_of(&mut child, STOP_BOUND)?;
        let Some(status) = status else {
            child.kill().ok();
            child.wait().ok();
            bail!("the daemon did not end after the unmount\n{}", self.log_tail());
        };
        ensure!(status.success(), "the daemon ended with {status}\n{}", self.log_tail());
        ensure!(!process::is_mounted(&self.mount_dir()), "still mounted after the daemon's end");
        Ok(())
    }

    /// The daemon's process id.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.child.as_ref().context("nothing runs")?.id())
    }

    /// Whether the daemon is still alive.
    pub fn is_running(&mut self) -> Result<bool> {
        match &mut self.child {
            Some(child) => Ok(child.try_wait()?.is_none()),
            None => Ok(false),
        }
    }

    /// Its user's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the drive is mounted.
    pub fn mount_dir(&self) -> PathBuf {
        self.dir.join("mount")
    }

    /// A path in the mount.
    pub fn path(&self, name: &str) -> PathBuf {
        self.mount_dir().join(name)
    }

    /// The data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// The one drive's store in the data directory.
    pub fn store_dir(&self) -> Result<PathBuf> {
        let drives = self.data_dir().join("drives");
        let entries =
            std::fs::read_dir(&drives).with_context(|| format!("list {}", drives.display()))?;
        let mut stores = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.join("drive.json").is_file());
        let store = stores.next().context("no store in the data directory")?;
        ensure!(stores.next().is_none(), "more than one store in the data directory");
        Ok(store)
    }

    /// Where the foreground daemon's output goes.
    pub fn log_path(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// The end of the log, for messages.
    pub fn log_tail(&self) -> String {
        const LINES_MAX: usize = 40;
        let text = std::fs::read(self.log_path()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines.iter().skip(lines.len().saturating_sub(LINES_MAX));
        let tail: Vec<String> = tail.map(|line| format!("  {line}")).collect();
        format!("log of {}:\n{}", self.name, tail.join("\n"))
    }

    /// Waits until `file` can be read here with exactly these bytes.
    pub fn wait_bytes(&self, file: &str, bytes: &[u8]) -> Result<()> {
        let path = self.path(file);
        wait::until(format!("{} reads the new {file}", self.name), AGREE_BOUND, || {
            Ok(std::fs::read(&path).is_ok_and(|found| found == bytes).then_some(()))
        })
        .with_context(|| self.log_tail())
    }

    /// Makes the mount's file durable and known: a plain `fsync` of one path.
    pub fn fsync(&self, file: &str) -> Result<()> {
        Ok(File::open(self.path(file))?.sync_all()?)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
        if std::thread::panicking() {
            eprintln!("{}", self.log_tail());
        }
        site::clear(&self.dir);
    }
}

/// Waits until all devices are in sync and show the same tree.
pub fn agree(devices: &[&Device]) -> Result<()> {
    agree_within(devices, AGREE_BOUND)
}

/// [`agree`] with a bound of one's own.
pub fn agree_within(devices: &[&Device], bound: Duration) -> Result<()> {
    for device in devices {
        let timeout = format!("{}s", bound.as_secs());
        device.cli(&["sync", "--timeout", &timeout]).with_context(|| device.log_tail())?;
    }
    let logs = || devices.iter().map(|device| device.log_tail()).collect::<Vec<_>>().join("\n");
    wait::until("all devices show the same tree", bound, || {
        let mut hashes = Vec::new();
        for device in devices {
            let status = device.status()?;
            let settled = status["drafts"] == 0 && status["to_receive_bytes"] == 0;
            hashes.push(settled.then(|| status["tree_hash"].to_string()));
        }
        let first = hashes.first().cloned().flatten();
        Ok((first.is_some() && hashes.iter().all(|hash| *hash == first)).then_some(()))
    })
    .with_context(logs)
}

/// The path of the mount as text, for arguments.
pub fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path in UTF-8")
}
