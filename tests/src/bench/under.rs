//! File systems that are measured beside each other, each with its mount and a way to forget all it has cached.
//!
//! Leaves out: what is measured ([`super::mount`], [`super::scale`]).
//!
//! Invariants
//! * All lie on one file system of one disk; dropping a contender takes its mount away.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::harness::device::Device;
use crate::harness::program::{self, command};
use crate::harness::site::{self, Site};
use crate::harness::{process, skip, wait};

/// The longest a contender's start, stop or single job may take.
pub const BOUND: Duration = Duration::from_secs(600);

/// A file system under test.
pub trait Under {
    /// What it is called in the table.
    fn name(&self) -> &'static str;
    /// Where to work.
    fn dir(&self) -> PathBuf;
    /// Nothing is cached any more, neither by the kernel nor by a daemon.
    fn cool(&mut self) -> Result<()>;

    /// The process that serves it, where its own cost is of interest.
    fn pid(&self) -> Result<Option<u32>> {
        Ok(None)
    }

    /// Bytes that process has read and written so far, from caches too.
    fn moved_bytes(&self) -> Result<Option<u64>> {
        self.pid()?.map(process::moved_bytes).transpose()
    }

    /// Ends it and starts it again with cold caches; milliseconds for each, where it is a process of its own.
    fn restart(&mut self) -> Result<(Option<f64>, Option<f64>)> {
        self.cool()?;
        Ok((None, None))
    }
}

/// The file system that all others lie on.
pub struct Native(pub PathBuf);

impl Under for Native {
    fn name(&self) -> &'static str {
        "native"
    }

    fn dir(&self) -> PathBuf {
        self.0.clone()
    }

    fn cool(&mut self) -> Result<()> {
        drop_caches()
    }
}

/// A FUSE file system that hands everything on and does nothing of its own.
pub struct Plain {
    source: PathBuf,
    at: PathBuf,
    child: Option<Child>,
}

impl Plain {
    /// Mounts it below `site`.
    pub fn start(site: &Site) -> Result<Plain> {
        let mut plain =
            Plain { source: site.dir("plain/source")?, at: site.dir("plain/mount")?, child: None };
        plain.mount()?;
        Ok(plain)
    }

    fn mount(&mut self) -> Result<()> {
        let own = std::env::current_exe()?;
        let program = own.with_file_name("passthrough");
        let child =
            Command::new(program).arg(&self.source).arg(&self.at).stdin(Stdio::null()).spawn()?;
        self.child = Some(child);
        let at = self.at.clone();
        wait::until("the pass-through is mounted", BOUND, || {
            Ok(process::is_mounted(&at).then_some(()))
        })
    }

    fn unmount(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        program::ok(command("umount", []).arg(&self.at))?;
        wait::exit_of(&mut child, BOUND)?.context("the pass-through did not end")?;
        Ok(())
    }
}

impl Under for Plain {
    fn name(&self) -> &'static str {
        "pass-through"
    }

    fn dir(&self) -> PathBuf {
        self.at.clone()
    }

    fn cool(&mut self) -> Result<()> {
        self.unmount()?;
        drop_caches()?;
        self.mount()
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        site::detach(&self.at);
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// gocryptfs: a FUSE file system that, like ours, keeps files as blocks it must compute on.
pub struct Gocryptfs {
    cipher: PathBuf,
    at: PathBuf,
    password: PathBuf,
}

impl Gocryptfs {
    /// Makes and mounts it below `site`; `None` where the program is missing.
    pub fn start(site: &Site) -> Result<Option<Gocryptfs>> {
        if skip::which("gocryptfs").is_none() {
            eprintln!("gocryptfs is not installed: its column stays empty");
            return Ok(None);
        }
        let (cipher, at) = (site.dir("gocryptfs/cipher")?, site.dir("gocryptfs/mount")?);
        let password = site.path().join("gocryptfs/password");
        fs::write(&password, "benchmark")?;
        let contender = Gocryptfs { cipher, at, password };
        let mut init = command("gocryptfs", ["-init", "-q", "-scryptn", "10", "-passfile"]);
        program::ok(init.arg(&contender.password).arg(&contender.cipher))?;
        contender.mount()?;
        Ok(Some(contender))
    }

    fn mount(&self) -> Result<()> {
        let mut mount = command("gocryptfs", ["-q", "-passfile"]);
        program::ok(mount.arg(&self.password).arg(&self.cipher).arg(&self.at))?;
        Ok(())
    }
}

impl Under for Gocryptfs {
    fn name(&self) -> &'static str {
        "gocryptfs"
    }

    fn dir(&self) -> PathBuf {
        self.at.clone()
    }

    fn cool(&mut self) -> Result<()> {
        program::ok(command("umount", []).arg(&self.at))?;
        drop_caches()?;
        self.mount()
    }
}

impl Drop for Gocryptfs {
    fn drop(&mut self) {
        site::detach(&self.at);
    }
}

/// A drive of one device.
pub struct Atelier(pub Device);

impl Under for Atelier {
    fn name(&self) -> &'static str {
        "Atelier"
    }

    fn dir(&self) -> PathBuf {
        self.0.mount_dir()
    }

    fn cool(&mut self) -> Result<()> {
        self.restart().map(|_| ())
    }

    fn pid(&self) -> Result<Option<u32>> {
        self.0.pid().map(Some)
    }

    fn restart(&mut self) -> Result<(Option<f64>, Option<f64>)> {
        let ms = |since: Instant| Some(since.elapsed().as_secs_f64() * 1e3);
        let started = Instant::now();
        self.0.unmount()?;
        let stopped = ms(started);
        drop_caches()?;
        let started = Instant::now();
        self.0.mount()?;
        Ok((stopped, ms(started)))
    }
}

/// Nothing is in the kernel's caches any more.
pub fn drop_caches() -> Result<()> {
    program::ok_within(&mut command("sync", []), BOUND)?;
    fs::write("/proc/sys/vm/drop_caches", "3").context("drop the kernel's caches (needs root)")
}
