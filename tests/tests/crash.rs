//! `kill -9` at any moment: what was promised is there, and nothing half-made appears.
//!
//! A promise is an `fsync` that returned; it is written down outside the drive. Every file proves its own wholeness,
//! so that also what nobody promised can be judged: it is whole or it is absent.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::harness::device::{Device, agree, agree_within};
use tests::harness::site::Site;
use tests::harness::skip::Need;
use tests::harness::tree::{self, Tree};
use tests::harness::wait;
use tests::needs;

const KILLS: u64 = 50;
const RECORD_LEN: usize = 64;

/// What an `fsync` that returned has promised.
enum Promise {
    /// The file of this name, with the bytes of this seed and length.
    File { name: String, seed: u64, len: usize },
    /// The document is at this save or a later one.
    Document(u64),
    /// The log has at least so many records.
    Log(u64),
}

/// Bytes that begin with their own hash.
fn self_proving(len: usize, seed: u64) -> Vec<u8> {
    let body = [&seed.to_le_bytes()[..], &tree::random_bytes(len, seed)].concat();
    [blake3_of(&body).as_slice(), &body].concat()
}

/// The seed of self-proving bytes, `None` if they are not whole.
fn proven_seed(bytes: &[u8]) -> Option<u64> {
    let (hash, body) = bytes.split_at_checked(32)?;
    let seed = body.first_chunk::<8>()?;
    (blake3_of(body) == hash).then(|| u64::from_le_bytes(*seed))
}

fn blake3_of(bytes: &[u8]) -> [u8; 32] {
    tree::hash_bytes(bytes)
}

fn record(number: u64) -> Vec<u8> {
    let mut record = tree::random_bytes(RECORD_LEN, number);
    record.splice(..8, number.to_le_bytes());
    record
}

/// New files, each written in pieces and synced before it is closed.
fn write_files(dir: &Path, round: u64, promises: &Sender<Promise>) -> Result<()> {
    for number in 0.. {
        let seed = round * 100_000 + number;
        let len = [10, 4_000, 70_000, 300_000, 1_500_000][(seed * 7 % 5) as usize];
        let name = format!("file {round} {number}");
        let bytes = self_proving(len, seed);
        let mut file = File::create_new(dir.join(&name))?;
        for piece in bytes.chunks(bytes.len() / 3 + 1) {
            file.write_all(piece)?;
        }
        file.sync_all()?;
        promises.send(Promise::File { name, seed, len })?;
    }
    Ok(())
}

/// One document, saved over itself as careful applications do.
fn save_document(dir: &Path, from: u64, promises: &Sender<Promise>) -> Result<()> {
    for save in from.. {
        let mut temp = File::create(dir.join("document.tmp"))?;
        temp.write_all(&self_proving(40_000, save))?;
        temp.sync_all()?;
        fs::rename(dir.join("document.tmp"), dir.join("document"))?;
        File::open(dir)?.sync_all()?;
        promises.send(Promise::Document(save))?;
    }
    Ok(())
}

/// A log that grows record by record in one file that stays open.
fn append_log(dir: &Path, from: u64, promises: &Sender<Promise>) -> Result<()> {
    let mut log = OpenOptions::new().append(true).create(true).open(dir.join("log"))?;
    for number in from.. {
        log.write_all(&record(number))?;
        log.sync_data()?;
        promises.send(Promise::Log(number + 1))?;
    }
    Ok(())
}

#[derive(Default)]
struct Promised {
    files: BTreeMap<String, (u64, usize)>,
    document: u64,
    log: u64,
}

impl Promised {
    fn take_in(&mut self, promise: Promise) {
        match promise {
            Promise::File { name, seed, len } => drop(self.files.insert(name, (seed, len))),
            Promise::Document(save) => self.document = self.document.max(save),
            Promise::Log(records) => self.log = self.log.max(records),
        }
    }

    /// Checks everything that is in the drive; gives the number of records in the log.
    fn check(&self, dir: &Path, round_only: Option<u64>) -> Result<u64> {
        for (name, (seed, len)) in &self.files {
            if round_only.is_some_and(|round| !name.starts_with(&format!("file {round} "))) {
                continue;
            }
            let found = fs::read(dir.join(name))
                .with_context(|| format!("{name} was synced and is lost"))?;
            ensure!(
                found == self_proving(*len, *seed),
                "{name} was synced and has {} other bytes",
                found.len()
            );
        }
        for entry in fs::read_dir(dir)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let mine = round_only.is_none_or(|round| name.starts_with(&format!("file {round} ")));
            let document = name.starts_with("document");
            if document || (name.starts_with("file") && mine) {
                let bytes = fs::read(dir.join(&name))?;
                ensure!(
                    proven_seed(&bytes).is_some(),
                    "{name} is there in part: {} bytes",
                    bytes.len()
                );
            }
        }
        if self.document > 0 {
            let save = proven_seed(&fs::read(dir.join("document"))?)
                .context("the document is not whole")?;
            ensure!(
                save >= self.document,
                "the document is at save {save}, promised was {}",
                self.document
            );
        }
        let log = match fs::read(dir.join("log")) {
            Ok(log) => log,
            Err(_) if self.log == 0 => return Ok(0),
            Err(error) => return Err(error).context("the log is lost"),
        };
        let records = (log.len() / RECORD_LEN) as u64;
        ensure!(records >= self.log, "the log has {records} records, promised were {}", self.log);
        for (number, found) in log.chunks_exact(RECORD_LEN).enumerate() {
            ensure!(found == record(number as u64), "record {number} of the log has other bytes");
        }
        Ok(records)
    }
}

/// Writes with all three writers until the kill; gives what was promised.
fn work_until_killed(
    device: &mut Device,
    round: u64,
    state: &mut Promised,
    records: u64,
) -> Result<u64> {
    let dir = device.mount_dir();
    let (send, receive): (Sender<Promise>, Receiver<Promise>) = mpsc::channel();
    let document = state.document + 1;
    std::thread::scope(|scope| -> Result<u64> {
        let (files, documents) = (send.clone(), send.clone());
        let dir = &dir;
        // Each ends with the error it gets when the daemon dies; that is expected and says nothing.
        scope.spawn(move || write_files(dir, round, &files).ok());
        scope.spawn(move || save_document(dir, document, &documents).ok());
        scope.spawn(move || append_log(dir, records, &send).ok());
        let wanted = 3 + round * 13 % 40;
        let mut count = 0;
        while count < wanted {
            let promise =
                receive.recv_timeout(Duration::from_secs(60)).context("nothing was synced")?;
            state.take_in(promise);
            count += 1;
        }
        if !round.is_multiple_of(3) {
            wait::breathe(Duration::from_micros(round * 7919 % 30_000));
        }
        device.kill()?;
        for promise in receive {
            state.take_in(promise);
            count += 1;
        }
        Ok(count)
    })
}

#[test]
fn fifty_kills_in_the_middle_of_writes_lose_nothing_that_was_synced() -> Result<()> {
    needs!(Need::Fuse);
    let site = Site::new()?;
    let mut ann = Device::local(&site, "Ann")?;
    let mut bob = Device::local(&site, "Bob")?;
    ann.mount()?;
    bob.join_drive_of(&ann)?;
    let mut state = Promised::default();
    let (mut records, mut promises) = (0, 0);
    for round in 0..KILLS {
        promises += work_until_killed(&mut ann, round, &mut state, records)?;
        ann.mount().with_context(|| format!("mount after kill {round}"))?;
        let checked = state.check(&ann.mount_dir(), Some(round));
        records = checked.with_context(|| format!("after kill {round}\n{}", ann.log_tail()))?;
    }
    ensure!(promises > KILLS * 5, "only {promises} syncs in {KILLS} rounds: the kills hit nothing");
    println!(
        "{promises} syncs, {} files, {} saves, {records} records",
        state.files.len(),
        state.document
    );
    state.check(&ann.mount_dir(), None)?;
    agree_within(&[&ann, &bob], Duration::from_secs(180))?;
    state.check(&bob.mount_dir(), None).context("on the other host")?;
    let differences = Tree::read(&ann.mount_dir())?.differences(&Tree::read(&bob.mount_dir())?);
    ensure!(differences.is_empty(), "{differences}");
    let verified = ann.json("verify")?;
    ensure!(verified["bad"] == 0 && verified["journal_bad"] == 0, "verify: {verified}");
    ensure!(ann.status()?["conflicts"] == 0, "a crash made a conflict");
    Ok(())
}

#[test]
fn a_receiver_killed_again_and_again_ends_with_everything() -> Result<()> {
    needs!(Need::Fuse);
    let site = Site::new()?;
    let mut ann = Device::local(&site, "Ann")?;
    let mut bob = Device::local(&site, "Bob")?;
    ann.mount()?;
    bob.join_drive_of(&ann)?;
    for round in 0..8_u64 {
        fs::create_dir(ann.path(&format!("round {round}")))?;
        for number in 0..60 {
            let bytes = self_proving(20_000, round * 1000 + number);
            fs::write(ann.path(&format!("round {round}/file {number}")), bytes)?;
        }
        tree::write_random(&ann.path(&format!("round {round}/large")), 12 << 20, round)?;
        // Killed as soon as something of the round has begun to arrive, or a little later.
        let dir = bob.path(&format!("round {round}"));
        wait::until("the round begins to arrive", Duration::from_secs(60), || {
            Ok(dir.exists().then_some(()))
        })?;
        wait::breathe(Duration::from_millis(round * 23));
        bob.kill()?;
        bob.mount()?;
    }
    agree(&[&ann, &bob])?;
    let differences = Tree::read(&ann.mount_dir())?.differences(&Tree::read(&bob.mount_dir())?);
    ensure!(differences.is_empty(), "{differences}");
    let verified = bob.json("verify")?;
    ensure!(verified["bad"] == 0 && verified["journal_bad"] == 0, "verify: {verified}");
    Ok(())
}

#[test]
fn a_file_closed_before_the_kill_is_there_after_it() -> Result<()> {
    needs!(Need::Fuse);
    let site = Site::new()?;
    let mut ann = Device::local(&site, "Ann")?;
    ann.mount()?;
    for round in 0..5_u64 {
        let names: Vec<String> = (0..20).map(|number| format!("{round} {number}")).collect();
        for (number, name) in names.iter().enumerate() {
            fs::write(ann.path(name), self_proving(3000, number as u64))?;
        }
        fs::rename(ann.path(&format!("{round} 0")), ann.path(&format!("{round} renamed")))?;
        fs::remove_file(ann.path(&format!("{round} 1")))?;
        ann.kill()?;
        ann.mount()?;
        for (number, name) in names.iter().enumerate().skip(2) {
            let bytes = fs::read(ann.path(name))
                .with_context(|| format!("{name} was closed and is lost"))?;
            ensure!(proven_seed(&bytes) == Some(number as u64), "{name} has other bytes");
        }
        ensure!(proven_seed(&fs::read(ann.path(&format!("{round} renamed")))?) == Some(0));
        ensure!(!ann.path(&format!("{round} 1")).exists(), "a removed file came back");
    }
    Ok(())
}
