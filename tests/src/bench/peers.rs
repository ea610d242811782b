//! Three ways to keep a folder on two hosts alike: rsync's daemon, Syncthing, Atelier, behind one small trait.
//!
//! Settings are the kindest the others offer for this use: rsync unencrypted and told to run; Syncthing with static
//! addresses, discovery and relays off, its watcher at the shortest delay, normal priority.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::harness::device::{Device, program_path};
use crate::harness::netns::Host;
use crate::harness::site::Site;
use crate::harness::{program, wait};

/// How long one transfer may take.
const SETTLE_BOUND: Duration = Duration::from_secs(600);

/// A folder on host A that is kept on host B.
pub trait Pair {
    /// What it is called in the table.
    fn name(&self) -> &'static str;
    /// The folder on A.
    fn source(&self) -> PathBuf;
    /// The folder on B.
    fn target(&self) -> PathBuf;
    /// Returns when B has what A has. `arrived` looks cheaply whether B's folder shows it.
    fn settle(&self, arrived: &dyn Fn(&Path) -> Result<bool>) -> Result<()>;
    /// Whether it acts by itself when a file is closed.
    fn watches(&self) -> bool;
}

/// A process that ends with the value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn spawn(command: &mut Command, log: &Path) -> Result<Running> {
    let log = fs::File::create(log)?;
    let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
    Ok(Running(child.with_context(|| format!("start {command:?}"))?))
}

fn wait_arrived(target: &Path, arrived: &dyn Fn(&Path) -> Result<bool>) -> Result<()> {
    wait::until("it has arrived", SETTLE_BOUND, || Ok(arrived(target)?.then_some(())))
}

/// `rsync -a` from A to a daemon on B.
pub struct Rsync {
    dir: PathBuf,
    a: Host,
    b: Host,
    _daemon: Running,
}

impl Rsync {
    /// Starts the daemon on B.
    pub fn start(site: &Site, a: &Host, b: &Host) -> Result<Rsync> {
        let dir = site.dir("rsync")?;
        fs::create_dir_all(dir.join("a"))?;
        fs::create_dir_all(dir.join("b"))?;
        let config = format!(
            "use chroot = no\nreverse lookup = no\nforward lookup = no\nuid = 0\ngid = 0\nport = 8730\n[b]\npath = {}\nread only = no\n",
            dir.join("b").display()
        );
        fs::write(dir.join("rsyncd.conf"), config)?;
        let mut daemon = b.command("rsync");
        daemon.args(["--daemon", "--no-detach", "--config"]).arg(dir.join("rsyncd.conf"));
        let daemon = spawn(&mut daemon, &dir.join("log"))?;
        let pair = Rsync { dir, a: a.clone(), b: b.clone(), _daemon: daemon };
        wait::until_ok("rsync's daemon answers", Duration::from_secs(20), || {
            pair.settle(&|_| Ok(true))
        })?;
        Ok(pair)
    }
}

impl Pair for Rsync {
    fn name(&self) -> &'static str {
        "rsync"
    }

    fn source(&self) -> PathBuf {
        self.dir.join("a")
    }

    fn target(&self) -> PathBuf {
        self.dir.join("b")
    }

    fn settle(&self, _arrived: &dyn Fn(&Path) -> Result<bool>) -> Result<()> {
        let mut rsync = self.a.command("rsync");
        // Blender's own backup of the version before is left out: rsync does not see that it is a rename.
        rsync.args(["-a", "--delete", "--exclude", "*.blend1"]);
        rsync.arg(format!("{}/", self.source().display()));
        rsync.arg(format!("rsync://{}:8730/b/", self.b.address()));
        program::ok_within(&mut rsync, SETTLE_BOUND).map(drop)
    }

    fn watches(&self) -> bool {
        false
    }
}

/// Syncthing on both hosts.
pub struct Syncthing {
    dir: PathBuf,
    _daemons: [Running; 2],
}

impl Syncthing {
    /// Starts both and waits until a first small file has gone over.
    pub fn start(site: &Site, a: &Host, b: &Host) -> Result<Syncthing> {
        let dir = site.dir("syncthing")?;
        let sides = [("a", a), ("b", b)];
        let mut ids = Vec::new();
        for (name, _) in sides {
            let home = dir.join(format!("home-{name}"));
            fs::create_dir_all(dir.join(name).join(".stfolder"))?;
            let mut generate = Command::new("syncthing");
            generate.args(["generate", "--no-default-folder", "--skip-port-probing"]);
            program::ok(generate.arg(format!("--home={}", home.display())))?;
            let mut ask = Command::new("syncthing");
            let id = program::ok(ask.arg(format!("--home={}", home.display())).arg("--device-id"))?;
            ids.push((id.trim().to_owned(), name, home));
        }
        for (_, name, home) in &ids {
            let devices: Vec<(&str, &Host)> =
                ids.iter().zip(sides).map(|((id, _, _), (_, host))| (id.as_str(), host)).collect();
            fs::write(home.join("config.xml"), configuration(&dir.join(name), &devices))?;
        }
        let start = |(name, host): (&str, &Host)| -> Result<Running> {
            let mut daemon = host.command("syncthing");
            daemon
                .arg("serve")
                .arg(format!("--home={}", dir.join(format!("home-{name}")).display()));
            daemon.args(["--no-browser", "--no-restart", "--no-upgrade", "--logflags=0"]);
            spawn(daemon.env("STNOUPGRADE", "1"), &dir.join(format!("log-{name}")))
        };
        let daemons = [start(sides[0])?, start(sides[1])?];
        let pair = Syncthing { dir, _daemons: daemons };
        fs::write(pair.source().join("first"), b"hello")?;
        pair.settle(&|target| Ok(target.join("first").exists()))?;
        Ok(pair)
    }
}

fn configuration(folder: &Path, devices: &[(&str, &Host)]) -> String {
    let members: String =
        devices.iter().map(|(id, _)| format!("<device id=\"{id}\"></device>")).collect();
    let addresses: String = devices
        .iter()
        .map(|(id, host)| {
            let address = host.address();
            format!(
                "<device id=\"{id}\" name=\"{address}\" compression=\"metadata\"><address>tcp://{address}:22000\
                 </address></device>"
            )
        })
        .collect();
    format!(
        "<configuration version=\"36\"><folder id=\"bench\" label=\"bench\" path=\"{}\" type=\"sendreceive\" \
         rescanIntervalS=\"3600\" fsWatcherEnabled=\"true\" fsWatcherDelayS=\"1\" autoNormalize=\"true\">\
         <filesystemType>basic</filesystemType>{members}</folder>{addresses}\
         <gui enabled=\"false\"></gui><options><listenAddress>tcp://0.0.0.0:22000</listenAddress>\
         <globalAnnounceEnabled>false</globalAnnounceEnabled><localAnnounceEnabled>false</localAnnounceEnabled>\
         <relaysEnabled>false</relaysEnabled><natEnabled>false</natEnabled><startBrowser>false</startBrowser>\
         <reconnectionIntervalS>5</reconnectionIntervalS><urAccepted>-1</urAccepted>\
         <autoUpgradeIntervalH>0</autoUpgradeIntervalH><crashReportingEnabled>false</crashReportingEnabled>\
         <setLowPriority>false</setLowPriority></options></configuration>",
        folder.display()
    )
}

impl Pair for Syncthing {
    fn name(&self) -> &'static str {
        "Syncthing"
    }

    fn source(&self) -> PathBuf {
        self.dir.join("a")
    }

    fn target(&self) -> PathBuf {
        self.dir.join("b")
    }

    fn settle(&self, arrived: &dyn Fn(&Path) -> Result<bool>) -> Result<()> {
        wait_arrived(&self.target(), arrived)
    }

    fn watches(&self) -> bool {
        true
    }
}

/// Two devices with a mounted drive.
pub struct Atelier {
    a: Device,
    b: Device,
}

impl Atelier {
    /// Makes a drive on A that B joins.
    pub fn start(site: &Site, a: &Host, b: &Host) -> Result<Atelier> {
        let program = program_path()?;
        let built_for_speed = program.components().any(|part| part.as_os_str() == "release");
        let chosen = std::env::var_os("ATELIER_BIN").is_some();
        ensure!(built_for_speed || chosen, "measured is only what was built with --release");
        let mut a = Device::on(site, "a", a)?;
        let mut b = Device::on(site, "b", b)?;
        a.mount()?;
        b.join_drive_of(&a)?;
        a.wait_online(1)?;
        Ok(Atelier { a, b })
    }
}

impl Pair for Atelier {
    fn name(&self) -> &'static str {
        "Atelier"
    }

    fn source(&self) -> PathBuf {
        self.a.mount_dir()
    }

    fn target(&self) -> PathBuf {
        self.b.mount_dir()
    }

    /// A name is visible before its bytes are here, so this ends with the drive's own barrier, content included.
    fn settle(&self, arrived: &dyn Fn(&Path) -> Result<bool>) -> Result<()> {
        let started = Instant::now();
        loop {
            let timeout = format!("{}s", SETTLE_BOUND.as_secs());
            self.a.cli(&["sync", "--timeout", &timeout])?;
            if arrived(&self.target())? {
                return Ok(());
            }
            ensure!(started.elapsed() < SETTLE_BOUND, "in sync, and yet not there");
        }
    }

    fn watches(&self) -> bool {
        true
    }
}
