//! What a journal costs as it grows: taking entries in, starting, folding the whole log anew, and a thousand entries more
//! on top of very many.
//!
//! Leaves out: contents; the entries name some that nobody has.
//!
//! Invariants
//! * The entries are as four devices would write them: signed, chained, each device seeing the others' now and then.
//! * What a journal shows afterwards is compared between the ways in which it came about.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use cas::id::{ChunkId, ContentId, IdKey};
use journal::entry::Entry;
use journal::hlc::Hlc;
use journal::member::admit_proof;
use journal::op::{Content, DirAttr, FileValue, Timestamp, Xattrs};
use journal::signed::VerifiedEntry;
use journal::{
    DirId, DriveId, EntryId, EntryName, GenesisSpec, Journal, Now, Op, Opened, Role, Signer, Value,
    VersionId,
};

use super::Size;
use super::table::{Better, Table};
use crate::harness::process;
use crate::harness::site::Site;

const FILES: u64 = 1_000_000;
const FILES_A_DIR: u64 = 1_000;
/// Entries received at once.
const BATCH: usize = 1_000;
/// Entries a device writes before it sees the others'.
const TURN: u64 = 100;
const MORE: u64 = 1_000;
const DEVICES: [&str; 4] = ["Ann", "Bob", "Cat", "Dan"];
const INVITE_SECRET: [u8; 32] = [42; 32];

/// Runs everything and prints the table.
pub fn run(size: Size) -> Result<()> {
    let site = Site::new()?;
    let files = size.of(FILES);
    let (few, many) = (format!("{} entries", files / 100), format!("{files} entries"));
    let mut table = Table::new("A journal as it grows.", &[&few, &many]);
    grow(&site.dir("few")?, files / 100, &few, &mut table)?;
    grow(&site.dir("many")?, files, &many, &mut table)?;
    println!("{table}");
    Ok(())
}

fn seconds<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, f64)> {
    let started = Instant::now();
    let done = work()?;
    Ok((done, started.elapsed().as_secs_f64()))
}

fn grow(dir: &Path, files: u64, column: &str, table: &mut Table) -> Result<()> {
    let mut writers = Writers::new()?;
    let mut rate = |label: &str, count: u64, took: f64| {
        table.put(column, label, "entries/s", Better::Larger, count as f64 / took);
    };
    let journal = Journal::adopt(dir, writers.genesis.bytes())?;
    let now = Now { wall_ms: 1 };
    let (mut left, mut took, mut made, mut bytes) = (files, 0.0, 0u64, 0u64);
    let admin = vec![Arc::clone(writers.admin.bytes())];
    journal.receive(&admin, now)?;
    while left > 0 {
        let batch: Vec<Arc<[u8]>> =
            (0..left.min(BATCH as u64)).map(|_| writers.save()).collect::<Result<_>>()?;
        left -= batch.len() as u64;
        made += batch.len() as u64;
        bytes += batch.iter().map(|entry| entry.len() as u64).sum::<u64>();
        let (got, spent) = seconds(|| Ok(journal.receive(&batch, now)?))?;
        took += spent;
        ensure!(got.refused.is_empty() && got.wants.is_empty(), "not taken: {:?}", got.refused);
    }
    rate("received: verified, durable, applied", made, took);
    let more: Vec<Arc<[u8]>> = (0..MORE).map(|_| writers.resave()).collect::<Result<_>>()?;
    let (_, spent) = seconds(|| Ok(journal.receive(&more, now)?))?;
    rate("1,000 more at once", MORE, spent);
    let hash = journal.tree_hash();
    let (_, spent) = seconds(|| Ok(journal.rebuild_state()?))?;
    rate("folded anew from the log", made, spent);
    ensure!(journal.tree_hash() == hash, "folding anew gives another tree");
    journal.close()?;
    drop(journal);
    let (journal, spent) = seconds(|| Ok(Journal::open(dir, Opened::Clean)?))?;
    table.put(column, "start after a clean stop", "ms", Better::Smaller, spent * 1e3);
    ensure!(journal.tree_hash() == hash, "another tree after a start");
    drop(journal);
    let (journal, spent) = seconds(|| Ok(Journal::open(dir, Opened::ProcessCrash)?))?;
    table.put(column, "start after a crash", "ms", Better::Smaller, spent * 1e3);
    ensure!(journal.tree_hash() == hash, "another tree after a crash");
    drop(journal);
    let (journal, spent) = seconds(|| Ok(Journal::open(dir, Opened::PowerLoss)?))?;
    table.put(column, "start after a power loss", "ms", Better::Smaller, spent * 1e3);
    ensure!(journal.tree_hash() == hash, "another tree after a power loss");
    let mut per_op = |label: &str, bytes: u64| {
        table.put(column, label, "bytes", Better::Smaller, bytes as f64 / made as f64);
    };
    per_op("an entry of one save, signed", bytes);
    per_op("log, each entry", tree_bytes(&dir.join("log"))?);
    per_op("state, each entry", tree_bytes(&dir.join("state"))?);
    let memory = process::resident_kib(std::process::id())? as f64 / 1024.0;
    table.put(column, "memory, the mapped state included", "MiB", Better::Smaller, memory);
    Ok(())
}

/// Bytes on disk of the files below.
fn tree_bytes(dir: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir).with_context(|| format!("list {}", dir.display()))? {
        bytes += entry?.metadata()?.blocks() * 512;
    }
    Ok(bytes)
}

/// Four devices that fill a drive.
struct Writers {
    genesis: VerifiedEntry,
    admin: VerifiedEntry,
    drive: DriveId,
    key: IdKey,
    signers: Vec<Signer>,
    last: Vec<Option<VerifiedEntry>>,
    saved: u64,
    written: u64,
    dir: DirId,
    /// The first versions of files, to save over.
    firsts: Vec<(DirId, EntryName, VersionId)>,
    resaved: usize,
}

impl Writers {
    fn new() -> Result<Self> {
        let signers: Vec<Signer> =
            (0..DEVICES.len() as u8).map(|n| Signer::derive(&[n; 32], &[7; 32])).collect();
        let first = signers.first().context("a device")?;
        let key = IdKey::from_bytes([1; 32]);
        let spec = GenesisSpec {
            drive_name: "grown".into(),
            device_name: DEVICES.concat(),
            id_key: key,
            posix_owners: false,
        };
        let genesis = Journal::genesis(first, spec, Now { wall_ms: 1 })?;
        let drive = DriveId::from(genesis.id());
        let invite = Signer::invite_public(&INVITE_SECRET);
        let mut ops =
            vec![Op::Invite { key: invite, role: Role::Editor, expires: u64::MAX >> 16, uses: 9 }];
        for (signer, name) in signers.iter().zip(DEVICES).skip(1) {
            let device = signer.device();
            let proof = admit_proof(&INVITE_SECRET, &drive, &device);
            ops.push(Op::Admit { invite, device, name: name.to_owned(), proof });
        }
        let mut last = vec![None; signers.len()];
        if let Some(first) = last.first_mut() {
            *first = Some(genesis.clone());
        }
        let mut writers = Self {
            admin: genesis.clone(),
            genesis,
            drive,
            key,
            signers,
            last,
            saved: 0,
            written: 0,
            dir: DirId::ROOT,
            firsts: Vec::new(),
            resaved: 0,
        };
        writers.admin = writers.write(0, ops, Vec::new())?;
        Ok(writers)
    }

    fn write(&mut self, device: usize, ops: Vec<Op>, seen: Vec<EntryId>) -> Result<VerifiedEntry> {
        self.written += 1;
        let signer = self.signers.get(device).context("a device")?;
        let prev = self.last.get(device).cloned().flatten();
        let entry = Entry {
            drive: self.drive,
            device: signer.device(),
            seq: prev.as_ref().map_or(0, |prev| prev.entry().seq + 1),
            prev: prev.map(|prev| prev.id()),
            seen,
            late: Vec::new(),
            hlc: Hlc::from_ms(1_000 + self.written),
            saved_at_ms: 1_000 + self.written,
            ops,
        };
        let entry = VerifiedEntry::sign(entry, signer)?;
        if let Some(last) = self.last.get_mut(device) {
            *last = Some(entry.clone());
        }
        Ok(entry)
    }

    /// The device whose turn it is, and what it sees before it writes.
    fn turn(&self) -> (usize, Vec<EntryId>) {
        let count = self.signers.len() as u64;
        let device = (self.written / TURN % count) as usize;
        let begins = self.written.is_multiple_of(TURN)
            || self.last.get(device).is_none_or(|last| last.is_none());
        let mut seen = Vec::new();
        if begins {
            let others = self.last.iter().enumerate().filter(|(other, _)| *other != device);
            seen.extend(others.filter_map(|(_, last)| Some(last.as_ref()?.id())));
            seen.sort();
        }
        (device, seen)
    }

    fn value(&self, text: &str) -> Value {
        let id = ContentId::chunk(ChunkId::of(&self.key, text.as_bytes()));
        Value::File(FileValue {
            content: Content { id, len: 40_000 },
            mode: 0o644,
            mtime: Timestamp::default(),
            xattrs: Xattrs::new(),
            owner: None,
        })
    }

    /// One more new file, in a new directory now and then.
    fn save(&mut self) -> Result<Arc<[u8]>> {
        let (device, seen) = self.turn();
        let mut ops = Vec::new();
        if self.saved.is_multiple_of(FILES_A_DIR) {
            let name = EntryName::new(&format!("dir-{}", self.saved / FILES_A_DIR))?;
            self.dir = DirId::derive(&self.drive, &DirId::ROOT, &name, &[]);
            let attr = DirAttr::default();
            ops.push(Op::MkDir { parent: DirId::ROOT, name, dir: self.dir, attr, bases: vec![] });
        }
        let name = EntryName::new(&format!("file-{}.blend", self.saved))?;
        let value = self.value(&self.saved.to_string());
        ops.push(Op::Put { dir: self.dir, name: name.clone(), value, bases: Vec::new() });
        let at = ops.len() as u32 - 1;
        let entry = self.write(device, ops, seen)?;
        if self.saved.is_multiple_of(FILES_A_DIR / 2) {
            self.firsts.push((self.dir, name, VersionId::new(entry.id(), at)));
        }
        self.saved += 1;
        Ok(Arc::clone(entry.bytes()))
    }

    /// A save over one of the files, all over the drive.
    fn resave(&mut self) -> Result<Arc<[u8]>> {
        let (device, seen) = self.turn();
        let at = self.resaved % self.firsts.len().max(1);
        self.resaved += 1;
        let (dir, name, base) = self.firsts.get(at).context("a file")?.clone();
        let value = self.value(&format!("again {}", self.resaved));
        let op = Op::Put { dir, name, value, bases: vec![base] };
        let entry = self.write(device, vec![op], seen)?;
        if let Some(first) = self.firsts.get_mut(at) {
            first.2 = VersionId::new(entry.id(), 0);
        }
        Ok(Arc::clone(entry.bytes()))
    }
}
