//! What locks cost: to take one, to be refused one, to learn that one is free, and a burst of changes, with the other
//! device next door and 30 ms away.
//!
//! The ceiling of the same run is a round trip of one byte over the same link ([`relay`](../../bin/relay.rs)): two hosts
//! that reach only a third, which passes everything on, later by a fixed time.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::Size;
use super::table::{Better, Table};
use crate::harness::device::{Device, agree};
use crate::harness::netns::{Host, Net};
use crate::harness::program::{self, command};
use crate::harness::site::Site;
use crate::harness::wait;

/// One way, milliseconds.
const DELAYS_MS: [u64; 2] = [0, 15];
const PORT: u16 = 4711;
const ECHO_PORT: u16 = 4712;
/// Answers one byte with the same, on a connection without delays of its own.
const ECHO: &str = "
import socket, sys
server = socket.create_server(('0.0.0.0', int(sys.argv[1])))
near, _ = server.accept()
near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
while (byte := near.recv(1)): near.send(byte)
";
/// Times round trips, and prints the median in microseconds.
const PING: &str = "
import socket, statistics, sys, time
far = socket.create_connection((sys.argv[1], int(sys.argv[2])))
far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
took = []
for _ in range(int(sys.argv[3])):
    start = time.perf_counter(); far.send(b'x'); far.recv(1); took.append(time.perf_counter() - start)
print(statistics.median(took) * 1e6)
";

/// A process that ends with the value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Fails when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs it and prints the table.
pub fn run(size: Size) -> Result<()> {
    let (files, rounds) = match size {
        Size::Full => (10_000, 200),
        Size::Quick => (1_000, 50),
    };
    let names = DELAYS_MS.map(|delay_ms| format!("{} ms there and back", 2 * delay_ms));
    let mut table = Table::new("locks", &names.each_ref().map(String::as_str));
    for (delay_ms, name) in DELAYS_MS.iter().zip(&names) {
        for (what, took) in one(*delay_ms, files, rounds)? {
            table.put(name, what, "ms", Better::Smaller, took.as_secs_f64() * 1e3);
        }
    }
    println!("{table}");
    Ok(())
}

fn one(delay_ms: u64, files: usize, rounds: usize) -> Result<Vec<(&'static str, Duration)>> {
    let (site, net) = (Site::new()?, Net::new()?);
    let (a, b, between) = (net.host()?, net.host()?, net.host()?);
    let listen = format!("/ip4/0.0.0.0/tcp/{PORT}");
    let on = |name: &str, host: &Host| -> Result<Device> {
        Ok(Device::on(&site, name, host)?.option("--no-mdns"))
    };
    let mut ann =
        on("Ann", &a)?.option("--peer").option(&format!("/ip4/{}/tcp/{PORT}", between.address()));
    let mut bob = on("Bob", &b)?.option("--listen").option(&listen);
    bob.mount()?;
    // They meet while they see each other; from then on only through the link.
    ann.join_drive_of(&bob)?;
    let root = site.dir("source")?;
    plant(&root, files, rounds)?;
    program::ok_within(
        command("cp", ["-a"]).arg(root.join(".")).arg(bob.mount_dir()),
        Duration::from_secs(120),
    )?;
    agree(&[&ann, &bob])?;
    ann.unmount()?;
    net.isolate(&a)?;
    net.isolate(&b)?;
    let _relays = [relay(&between, &b, PORT, delay_ms)?, relay(&between, &b, ECHO_PORT, delay_ms)?];
    let mut echo = b.command("python3");
    echo.args(["-c", ECHO]).arg(ECHO_PORT.to_string());
    let _echo = Running(echo.stdin(Stdio::null()).spawn()?);
    let mut ping = a.command("python3");
    ping.args(["-c", PING]).arg(between.address().to_string()).arg(ECHO_PORT.to_string());
    ping.arg(rounds.to_string());
    let trip =
        wait::until_ok("the echo answers", Duration::from_secs(20), || program::ok(&mut ping))?;
    let trip = Duration::from_secs_f64(trip.trim().parse::<f64>()? / 1e6);
    ann.mount()?;
    ann.wait_online(1)?;
    agree(&[&ann, &bob])?;

    let file = |device: &Device, n: usize| device.path(&format!("single/{n}/file"));
    let mut figures = vec![("round trip of one byte", trip)];
    let mut took = Took::default();
    for n in 0..rounds {
        took.open.push(timed(|| open(&file(&ann, n)).map(drop))?);
    }
    for n in 0..rounds {
        let held = open(&file(&bob, n))?;
        let lock = ann.path(&format!("single/{n}/.file.lock"));
        wait::until("Ann knows", Duration::from_secs(20), || Ok(lock.exists().then_some(())))?;
        took.refused.push(timed(|| match open(&file(&ann, n)) {
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Ok(()),
            other => other.map(drop),
        })?);
        let start = Instant::now();
        drop(held);
        while lock.exists() {
            ensure!(start.elapsed() < Duration::from_secs(20), "never free");
        }
        took.free.push(start.elapsed());
        took.plain.push(timed(|| File::open(file(&ann, n)).map(drop))?);
    }
    figures.push(("open to read (asks nobody)", median(&mut took.plain)));
    figures.push(("open to write, uncontended", median(&mut took.open)));
    figures.push(("open to write, refused", median(&mut took.refused)));
    figures.push(("closed there, free here", median(&mut took.free)));
    let archive = root.join("many.tar");
    program::ok(command("tar", ["cf"]).arg(&archive).arg("-C").arg(&root).arg("many"))?;
    for (what, how) in [
        ("tar x over existing files", "--preserve-permissions"),
        ("tar x --overwrite", "--overwrite"),
    ] {
        let start = Instant::now();
        let mut unpack = command("tar", ["xf"]);
        unpack.arg(&archive).arg(how).arg("-C").arg(ann.mount_dir());
        program::ok_within(&mut unpack, Duration::from_secs(600))?;
        figures.push((what, start.elapsed()));
        agree(&[&ann, &bob])?;
        ensure!(ann.status()?["conflicts"] == 0, "unpacking made conflicts");
    }
    Ok(figures)
}

#[derive(Default)]
struct Took {
    plain: Vec<Duration>,
    open: Vec<Duration>,
    refused: Vec<Duration>,
    free: Vec<Duration>,
}

fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

fn timed(act: impl FnOnce() -> std::io::Result<()>) -> Result<Duration> {
    let start = Instant::now();
    act()?;
    Ok(start.elapsed())
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// Folders of one file each, and a hundred folders of many.
fn plant(root: &Path, files: usize, rounds: usize) -> Result<()> {
    let write = |path: PathBuf, bytes: &[u8]| -> Result<()> {
        fs::create_dir_all(path.parent().context("a folder")?)?;
        Ok(File::create(path)?.write_all(bytes)?)
    };
    for n in 0..rounds {
        write(root.join(format!("single/{n}/file")), b"one")?;
    }
    for n in 0..files {
        let text = format!("{n} {}", "x".repeat(1_000));
        write(root.join(format!("many/{}/{n}", n % 100)), text.as_bytes())?;
    }
    Ok(())
}

fn relay(on: &Host, to: &Host, port: u16, delay_ms: u64) -> Result<Running> {
    let program = std::env::current_exe()?.with_file_name("relay");
    let mut relay = on.command(program);
    relay.arg(format!("0.0.0.0:{port}")).arg(format!("{}:{port}", to.address()));
    relay.arg(delay_ms.to_string()).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = relay.spawn().context("start the relay")?;
    let mut ready = [0; 5];
    child.stdout.as_mut().context("no output")?.read_exact(&mut ready)?;
    Ok(Running(child))
}
