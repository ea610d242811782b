//! A slow link: passes TCP connections on, and every byte arrives later than it was sent by a fixed time.
//!
//! `relay LISTEN TARGET DELAY_MS`. Runs until it is killed. Each direction of a connection is a thread that reads and
//! one that writes, with a bounded queue in between; what was read together is written together.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tests::harness::wait;

/// Pieces on their way, a direction: a gigabit a second over 100 ms in pieces of 64 KiB.
const QUEUE_MAX: usize = 256;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let mut next = || args.next().context("usage: relay LISTEN TARGET DELAY_MS");
    let (listen, target): (SocketAddr, SocketAddr) = (next()?.parse()?, next()?.parse()?);
    let delay = Duration::from_millis(next()?.parse()?);
    let listener = TcpListener::bind(listen).with_context(|| format!("listen on {listen}"))?;
    println!("ready");
    for near in listener.incoming() {
        let near = near?;
        thread::spawn(move || {
            if let Err(error) = pass(near, target, delay) {
                eprintln!("a connection was not passed on: {error:#}");
            }
        });
    }
    Ok(())
}

fn pass(near: TcpStream, target: SocketAddr, delay: Duration) -> Result<()> {
    // A handshake over the slow link would take a round trip of its own.
    wait::breathe(2 * delay);
    let far = TcpStream::connect(target).context("connect to the target")?;
    for (from, to) in [(&near, &far), (&far, &near)] {
        from.set_nodelay(true)?;
        let (queue, pieces) = sync_channel(QUEUE_MAX);
        let (from, to) = (from.try_clone()?, to.try_clone()?);
        thread::spawn(move || read(from, &queue));
        thread::spawn(move || write(to, &pieces, delay));
    }
    Ok(())
}

fn read(mut from: TcpStream, queue: &SyncSender<(Instant, Vec<u8>)>) {
    let mut buffer = vec![0; 64 << 10];
    // The end, or a failure, which ends the other direction as well.
    while let Ok(len @ 1..) = from.read(&mut buffer) {
        let piece = buffer.get(..len).unwrap_or_default().to_vec();
        if queue.send((Instant::now(), piece)).is_err() {
            break;
        }
    }
}

fn write(mut to: TcpStream, pieces: &Receiver<(Instant, Vec<u8>)>, delay: Duration) {
    for (sent, piece) in pieces {
        wait::breathe((sent + delay).saturating_duration_since(Instant::now()));
        if to.write_all(&piece).is_err() {
            break;
        }
    }
    // The other side may have gone already.
    let _ = to.shutdown(Shutdown::Both);
}
