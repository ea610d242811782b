//! Conformance tools written by others, run on a real mount: what they hold to be a POSIX file system, this is.
//!
//! * `pjdfstest` runs as root with every user let in and owners kept. What fails must stand in
//!   `conformance/waivers.txt` with its reason, and what stands there must fail: the list can only shrink.
//! * `fsx` does random operations to a file and knows after each what must be in it.
//!
//! After either the drive is unmounted, mounted again and joined by a second device: all three see the same tree, and
//! the daemon holds nothing open that nobody uses.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tests::harness::device::{Device, agree, text};
use tests::harness::program::{self, command};
use tests::harness::site::Site;
use tests::harness::skip::Need;
use tests::harness::tree::Tree;
use tests::harness::wait;
use tests::needs;

/// How long the whole of pjdfstest may take, and one seed of fsx.
const TOOL_BOUND: Duration = Duration::from_secs(3600);
/// Seeds of fsx.
const SEEDS: u64 = 4;
/// Operations a seed, unless `ATELIER_FSX_OPS` says otherwise.
const OPERATIONS: u64 = 100_000;
/// Seeds at a time.
const AT_ONCE: u64 = 2;
/// Why pjdfstest may leave a test out, and does on any Linux file system: it cannot mount read-only what it has open, and
/// no Linux file system tells how many links it allows.
const LEFT_OUT: [&str; 2] = ["Remounts (allow_remount)", "Cannot get value for LINK_MAX"];

fn kept(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance").join(name)
}

/// A mount anybody may use, below a directory anybody may enter.
fn open_mount(site: &Site) -> Result<Device> {
    fs::set_permissions(site.path(), fs::Permissions::from_mode(0o755))?;
    let mut device = Device::local(site, "Ann")?.option("--allow-other").option("--posix-owners");
    device.mount()?;
    device.leave_out("--posix-owners");
    Ok(device)
}

/// Whose everything below a directory is: path, user and group.
fn owners(dir: &Path) -> Result<BTreeSet<(PathBuf, u32, u32)>> {
    let mut found = BTreeSet::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(at) = dirs.pop() {
        for entry in fs::read_dir(&at)? {
            let path = entry?.path();
            let meta = fs::symlink_metadata(&path)?;
            found.insert((path.strip_prefix(dir)?.to_owned(), meta.uid(), meta.gid()));
            if meta.is_dir() {
                dirs.push(path);
            }
        }
    }
    Ok(found)
}

/// What pjdfstest said of its tests.
#[derive(Debug, Default)]
struct Verdicts {
    passed: BTreeSet<String>,
    /// With what was said about it.
    failed: BTreeMap<String, String>,
    skipped: BTreeMap<String, String>,
}

impl Verdicts {
    fn parse(output: &str) -> Verdicts {
        let mut verdicts = Verdicts::default();
        let mut about: Option<&mut String> = None;
        for line in output.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match (line.starts_with(char::is_whitespace), words.as_slice()) {
                (false, [name, "ok"]) => {
                    verdicts.passed.insert((*name).to_owned());
                    about = None;
                }
                (false, [name, "FAILED"]) => {
                    about = Some(verdicts.failed.entry((*name).to_owned()).or_default());
                }
                (false, [name, "skipped"]) => {
                    about = Some(verdicts.skipped.entry((*name).to_owned()).or_default());
                }
                _ => {
                    if let Some(about) = &mut about {
                        about.push_str(line.trim());
                        about.push(' ');
                    }
                }
            }
        }
        verdicts
    }

    /// Insists that exactly the waived tests failed, and that nothing else was left out.
    fn check(&self, waived: &BTreeMap<String, String>) -> Result<()> {
        let mut wrong = Vec::new();
        for (name, why) in &self.failed {
            if !waived.contains_key(name) {
                wrong.push(format!("{name} fails: {why}"));
            }
        }
        for (name, reason) in waived {
            if self.passed.contains(name) {
                wrong.push(format!("{name} passes: take it out of waivers.txt ({reason})"));
            } else if !self.failed.contains_key(name) {
                wrong.push(format!("{name} is in waivers.txt and was not run"));
            }
        }
        for (name, why) in &self.skipped {
            let expected = LEFT_OUT.iter().any(|reason| why.starts_with(reason));
            if !expected {
                wrong.push(format!("{name} was left out: {why}"));
            }
        }
        ensure!(wrong.is_empty(), "{} complaints:\n{}", wrong.len(), wrong.join("\n"));
        ensure!(self.passed.len() > 150, "only {} tests passed: are all there?", self.passed.len());
        Ok(())
    }
}

/// The tests that may fail, with the reason.
fn waivers() -> Result<BTreeMap<String, String>> {
    let list = fs::read_to_string(kept("waivers.txt"))?;
    let lines =
        list.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut waived = BTreeMap::new();
    for line in lines {
        let (name, reason) =
            line.split_once(char::is_whitespace).with_context(|| format!("no reason: {line}"))?;
        let twice = waived.insert(name.to_owned(), reason.trim().to_owned()).is_some();
        ensure!(!twice, "{name} is waived twice");
    }
    Ok(waived)
}

#[test]
fn pjdfstest_finds_an_ordinary_file_system() -> Result<()> {
    needs!(Need::Root, Need::Fuse, Need::Program("pjdfstest"));
    let site = Site::new()?;
    let mut device = open_mount(&site)?;
    let other = OtherDisk::new(&site)?;
    let mut tool = command("pjdfstest", ["-c", text(&kept("pjdfstest.toml"))?]);
    tool.env("NO_COLOR", "1").env_remove("RUST_BACKTRACE").env_remove("RUST_LIB_BACKTRACE");
    tool.args(["--secondary-fs", text(&other.0)?, "-p"]).arg(device.mount_dir());
    let ran = program::run(&mut tool, TOOL_BOUND)?;
    let verdicts = Verdicts::parse(&ran.out);
    ensure!(
        !verdicts.passed.is_empty(),
        "pjdfstest ended with {}\n{}{}",
        ran.code,
        ran.out,
        ran.err
    );
    verdicts.check(&waivers()?)?;
    // It tidies up after itself, so something is left here for the comparison.
    fs::create_dir(device.path("dir"))?;
    fs::write(device.path("file"), b"x")?;
    symlink("file", device.path("link"))?;
    for (number, name) in (1_u32..).zip(["dir", "file", "link"]) {
        lchown(device.path(name), Some(number), Some(number + 10))?;
    }
    for name in ["dir", "file"] {
        fs::set_permissions(device.path(name), fs::Permissions::from_mode(0o6751))?;
    }
    same_everywhere(&site, &mut device)
}

/// A file system beside the mount, for what cannot cross from one to another.
struct OtherDisk(PathBuf);

impl OtherDisk {
    fn new(site: &Site) -> Result<OtherDisk> {
        let at = site.dir("other disk")?;
        program::ok(command("mount", ["-t", "tmpfs", "-o", "size=16m", "tmpfs"]).arg(&at))?;
        Ok(OtherDisk(at))
    }
}

impl Drop for OtherDisk {
    fn drop(&mut self) {
        program::run(command("umount", ["-l"]).arg(&self.0), program::COMMAND_BOUND).ok();
    }
}

#[test]
fn fsx_finds_the_bytes_it_wrote() -> Result<()> {
    needs!(Need::Root, Need::Fuse, Need::Program("fsx"));
    let operations = match std::env::var("ATELIER_FSX_OPS") {
        Ok(text) => text.parse().context("ATELIER_FSX_OPS is no number")?,
        Err(_) => OPERATIONS,
    };
    let site = Site::new()?;
    let mut device = open_mount(&site)?;
    let artifacts = site.dir("artifacts")?;
    let seed_run = |seed: u64| -> Result<()> {
        let mut tool = command("fsx", ["-f", text(&kept("fsx.toml"))?]);
        tool.args(["-S", &seed.to_string(), "-N", &operations.to_string(), "-P"]);
        let ran = program::run(
            tool.arg(&artifacts).arg(device.path(&format!("seed {seed}"))),
            TOOL_BOUND,
        )?;
        if ran.code != 0 {
            let end: Vec<&str> = ran.err.lines().rev().take(60).collect();
            let end: Vec<&str> = end.into_iter().rev().collect();
            bail!("seed {seed} ended with {}\n{}", ran.code, end.join("\n"));
        }
        Ok(())
    };
    for first in (1..=SEEDS).step_by(AT_ONCE as usize) {
        std::thread::scope(|scope| -> Result<()> {
            let seeds = first..(first + AT_ONCE).min(SEEDS + 1);
            let runs: Vec<_> = seeds.map(|seed| scope.spawn(move || seed_run(seed))).collect();
            runs.into_iter()
                .try_for_each(|run| run.join().map_err(|_| anyhow::anyhow!("a run panicked"))?)
        })?;
    }
    same_everywhere(&site, &mut device)
}

/// What is in the mount is there after a new mount and on a device that joins; nothing is held that nobody uses.
fn same_everywhere(site: &Site, device: &mut Device) -> Result<()> {
    let before = Tree::read(&device.mount_dir())?;
    let whose = owners(&device.mount_dir())?;
    // The kernel lets go of closed files a little later.
    let spool = device.store_dir()?.join("spool");
    wait::until("the spool is empty", Duration::from_secs(60), || {
        device.cli(&["sync"])?;
        let left = fs::read_dir(&spool)?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.starts_with("overlay"))
            .count();
        Ok((left == 0 && open_overlays(device.pid()?)? == 0).then_some(()))
    })?;
    device.unmount()?;
    device.mount()?;
    let differences = before.differences(&Tree::read(&device.mount_dir())?);
    ensure!(differences.is_empty(), "before and after a new mount: {differences}");
    ensure!(owners(&device.mount_dir())? == whose, "owners before and after a new mount");
    let mut bob = Device::local(site, "Bob")?.option("--allow-other");
    bob.join_drive_of(device)?;
    agree(&[device, &bob])?;
    let differences = before.differences(&Tree::read(&bob.mount_dir())?);
    ensure!(differences.is_empty(), "here and on another device: {differences}");
    ensure!(owners(&bob.mount_dir())? == whose, "owners here and on another device");
    Ok(())
}

/// How many files of changes in place the daemon has open; every file that is being written has one at most.
fn open_overlays(pid: u32) -> Result<usize> {
    let open = fs::read_dir(format!("/proc/{pid}/fd"))?;
    let open = open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    Ok(open.filter(|path| path.to_string_lossy().contains("/spool/overlay")).count())
}

#[test]
fn verdicts_are_compared_with_the_waivers_both_ways() {
    let out = "a::b   ok\na::c      FAILED\n\tassertion failed: 1 == 2\na::d   skipped\n\tRemounts \
               (allow_remount) are not allowed\na::f   skipped\n\tnot root\n\nSummary: 1 failed\n";
    let verdicts = Verdicts::parse(out);
    assert_eq!(verdicts.failed["a::c"].trim_end(), "assertion failed: 1 == 2");
    let said = |waived: &[&str]| {
        let waived = waived.iter().map(|name| ((*name).to_owned(), "why".to_owned())).collect();
        verdicts.check(&waived).map_or_else(|error| error.to_string(), |()| String::new())
    };
    assert!(said(&[]).contains("a::c fails"));
    assert!(said(&["a::c", "a::b"]).contains("a::b passes: take it out"));
    assert!(said(&["a::c", "a::e"]).contains("a::e is in waivers.txt and was not run"));
    let rest = said(&["a::c"]);
    assert!(
        rest.contains("1 complaints") && rest.contains("a::f was left out: not root"),
        "{rest}"
    );
}
