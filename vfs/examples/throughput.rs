//! How fast the mount is: sequential writing with fsync, cold reading, many small files. Over a published tree kept in
//! memory and a store on disk, so what is measured is kernel, file system and store.
//!
//! `cargo run --release -p vfs --example throughput -- DIR [MIB]`; needs the right to mount.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    unreachable_pub,
    dead_code
)]

#[path = "../tests/vfs/drive.rs"]
mod drive;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use vfs::mount::{MountOptions, mount};
use vfs::{Config, Fs};

struct Wall(Instant);

impl vfs::Clock for Wall {
    fn wall(&self) -> journal::op::Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        journal::op::Timestamp { secs: since.as_secs() as i64, nanos: since.subsec_nanos() }
    }

    fn monotonic_ms(&self) -> u64 {
        self.0.elapsed().as_millis() as u64
    }
}

/// Runs a step and tells how long it took, as `unit` a second.
fn timed(what: &str, amount: f64, unit: &str, step: impl FnOnce()) {
    let begin = Instant::now();
    step();
    let seconds = begin.elapsed().as_secs_f64();
    println!("{what:32} {:>10.0} {unit}/s   ({seconds:.2} s)", amount / seconds);
}

fn run(dir: &Path, mib: usize) {
    let mut block = vec![0u8; 1 << 20];
    let mut seed = 0x9E37_79B9_7F4A_7C15u64;
    let big = dir.join("big");
    timed("sequential write + fsync", mib as f64, "MiB", || {
        let mut file = File::create(&big).unwrap();
        for _ in 0..mib {
            for word in block.chunks_exact_mut(8) {
                seed = seed
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                word.copy_from_slice(&(seed ^ (seed >> 31)).to_le_bytes());
            }
            file.write_all(&block).unwrap();
        }
        file.sync_all().unwrap();
    });
    let _ = fs::write("/proc/sys/vm/drop_caches", b"3");
    timed("sequential read, cold", mib as f64, "MiB", || {
        let mut file = File::open(&big).unwrap();
        while file.read(&mut block).unwrap() > 0 {}
    });
    let small = dir.join("small");
    fs::create_dir(&small).unwrap();
    let names: Vec<_> = (0..5_000).map(|i| small.join(i.to_string())).collect();
    let each = |what: &str, step: &dyn Fn(&Path)| {
        timed(what, names.len() as f64, "files", || names.iter().for_each(|name| step(name)));
    };
    each("create 4 KiB", &|name| fs::write(name, [7; 4096]).unwrap());
    each("stat", &|name| assert!(fs::metadata(name).unwrap().is_file()));
    each("read 4 KiB", &|name| drop(fs::read(name).unwrap()));
    timed("readdir", names.len() as f64, "files", || {
        assert_eq!(fs::read_dir(&small).unwrap().count(), names.len());
    });
    each("rename", &|name| fs::rename(name, name.with_extension("x")).unwrap());
    each("unlink", &|name| fs::remove_file(name.with_extension("x")).unwrap());
}

fn main() {
    let mut args = std::env::args().skip(1);
    let dir = std::path::PathBuf::from(args.next().expect("a directory on the disk to measure"));
    let mib: usize = args.next().map_or(512, |mib| mib.parse().unwrap());
    let work = tempfile::tempdir_in(dir).unwrap();
    let plain = work.path().join("plain");
    fs::create_dir(&plain).unwrap();
    println!("-- the disk itself");
    run(&plain, mib);
    let store = cas::Store::open(cas::Config {
        dir: work.path().join("store"),
        id_key: cas::IdKey::from_bytes([7; 32]),
        reserve_bytes: 0,
        workers: 2,
    });
    let store = store.unwrap();
    let drive: Arc<drive::Drive> = Arc::default();
    let source = Arc::new(drive::Elsewhere { store: store.clone(), others: Default::default() });
    let config = Config::new(work.path().join("spool"), 0, 0);
    let clock = Arc::new(Wall(Instant::now()));
    let fs = Arc::new(
        Fs::open(config, drive.clone(), drive.clone(), store, source, clock, drive).unwrap(),
    );
    let point = work.path().join("mount");
    fs::create_dir(&point).unwrap();
    let mounted = mount(fs.clone(), &point, &MountOptions::default()).unwrap();
    println!("-- the mount");
    run(&point, mib);
    timed("publish what waits", fs.drafts() as f64, "changes", || fs.seal_all().unwrap());
    mounted.unmount().unwrap();
}
