//! Strangers and vandals: who is not a member gets nothing and harms nobody.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use tests::harness::device::{Device, agree};
use tests::harness::liar::{Liar, Lie};
use tests::harness::site::Site;
use tests::harness::skip::Need;
use tests::harness::{process, rot, tree, wait};
use tests::needs;

/// How much a daemon may grow while vandals are at its port.
const GROWTH_MAX_KIB: u64 = 64 << 10;
const SECRET: &[u8] = b"the plot twist that must not leak before the premiere";

/// A mounted drive with a secret in it.
fn host(site: &Site) -> Result<Device> {
    let mut ann = Device::local(site, "Ann")?;
    ann.mount()?;
    fs::write(ann.path("secret.txt"), SECRET)?;
    fs::create_dir(ann.path("a telling name"))?;
    ann.sync()?;
    Ok(ann)
}

/// Where the device listens on TCP.
fn listens(device: &Device) -> Result<SocketAddr> {
    let status = device.status()?;
    let addresses = status["listen"].as_array().context("no listen in status")?.clone();
    for address in addresses {
        let address = address.as_str().unwrap_or_default().to_owned();
        let parts: Vec<&str> = address.split('/').collect();
        if let ["", "ip4", ip, "tcp", port, ..] = parts.as_slice() {
            return Ok(SocketAddr::new(ip.parse()?, port.parse()?));
        }
    }
    anyhow::bail!("no TCP address in {status}")
}

/// The refused device holds nothing of the drive, on disk or in a mount.
fn got_nothing(device: &Device) -> Result<()> {
    ensure!(!process::is_mounted(&device.mount_dir()), "the refused device has a mount");
    if !device.data_dir().exists() {
        return Ok(());
    }
    for file in rot::files_below(&device.data_dir())? {
        let bytes = fs::read(&file)?;
        for word in [SECRET, b"secret.txt", b"a telling name"] {
            let found = bytes.windows(word.len()).any(|window| window == word);
            ensure!(!found, "{} holds something of the drive", file.display());
        }
    }
    Ok(())
}

/// A join that must fail with a cause that names `word`.
fn refused_join(device: &mut Device, ticket: &str, word: &str) -> Result<()> {
    let ran = device.start_refused(&["join", ticket])?;
    ensure!(
        ran.code == 1 || ran.code == 4,
        "the join ended with {}\n{}{}",
        ran.code,
        ran.out,
        ran.err
    );
    let said = format!("{}{}", ran.out, ran.err).to_lowercase();
    ensure!(said.contains(word), "the error does not speak of {word:?}:\n{said}");
    got_nothing(device)
}

#[test]
fn a_used_ticket_admits_nobody_else() -> Result<()> {
    needs!(Need::Fuse);
    let site = Site::new()?;
    let ann = host(&site)?;
    let ticket = ann.invite(&[])?;
    let mut bob = Device::local(&site, "Bob")?;
    bob.join(&ticket)?;
    bob.wait_bytes("secret.txt", SECRET)?;
    refused_join(&mut Device::local(&site, "Eve")?, &ticket, "used")?;
    let members = ann.json("members")?;
    let members =
        members.as_array().or_else(|| members["members"].as_array()).context("no list")?;
    ensure!(members.len() == 2, "{} members after a refused join", members.len());
    agree(&[&ann, &bob])
}

#[test]
fn an_expired_ticket_admits_nobody() -> Result<()> {
    needs!(Need::Fuse);
    let site = Site::new()?;
    let ann = host(&site)?;
    let ticket = ann.invite(&["--expires", "1s"])?;
    let made = SystemTime::now();
    wait::until("the ticket has expired", Duration::from_secs(10), || {
        Ok((made.elapsed()? > Duration::from_secs(2)).then_some(()))
    })?;
    refused_join(&mut Device::local(&site, "Eve")?, &ticket, "expired")
}

#[test]
fn a_forged_ticket_admits_nobody() -> Result<()> {
    needs!(Need::Fuse);
    let site = Site::new()?;
    let ann = host(&site)?;
    // A ticket of another drive, made by a stranger who knows where Ann listens.
    let mut eve = Device::local(&site, "Eve")?;
    eve.mount()?;
    let address = format!("/ip4/127.0.0.1/tcp/{}", listens(&ann)?.port());
    eve.unmount()?;
    let mut eve = eve.option("--peer").option(&address);
    eve.mount()?;
    fs::write(eve.path("hello"), b"let me in")?;
    let before = ann.tree_hash()?;
    // Long enough for a connection and its refusal: her own daemon answers all the while.
    let started = Instant::now();
    wait::until("the stranger had her time", Duration::from_secs(30), || {
        eve.status()?;
        Ok((started.elapsed() > Duration::from_secs(4)).then_some(()))
    })?;
    ensure!(eve.online()? == 0 && ann.online()? == 0, "a stranger is connected");
    ensure!(ann.tree_hash()? == before && !ann.path("hello").exists());
    eve.unmount()?;
    got_nothing(&eve)
}

#[test]
fn a_ticket_with_one_changed_character_is_malformed() -> Result<()> {
    needs!(Need::Fuse);
    let site = Site::new()?;
    let ann = host(&site)?;
    let ticket = ann.invite(&[])?;
    let middle = ticket.len() / 2;
    let other = if ticket.as_bytes().get(middle) == Some(&b'a') { "b" } else { "a" };
    let mut changed = ticket.clone();
    changed.replace_range(middle..=middle, other);
    let cut = ticket.get(..ticket.len() - 4).context("a long ticket")?.to_owned();
    for bad in [changed, cut, format!("{ticket}x"), "atelier1".to_owned(), "atelier9abc".to_owned()]
    {
        refused_join(&mut Device::local(&site, "Eve")?, &bad, "ticket")?;
    }
    // The unharmed one still works: none of that used it up.
    let mut bob = Device::local(&site, "Bob")?;
    bob.join(&ticket)?;
    bob.wait_bytes("secret.txt", SECRET)
}

/// Runs a vandal against a drive with two members and insists that both work as before, and that the daemon did not
/// grow.
fn survives(vandal: impl Fn(SocketAddr) -> Result<()>) -> Result<()> {
    let site = Site::new()?;
    let mut ann = host(&site)?;
    let mut bob = Device::local(&site, "Bob")?;
    bob.join_drive_of(&ann)?;
    agree(&[&ann, &bob])?;
    let at = listens(&ann)?;
    let pid = ann.pid()?;
    let (memory, files) = (process::resident_kib(pid)?, process::open_files(pid)?);
    vandal(at)?;
    ensure!(ann.is_running()?, "the daemon died\n{}", ann.log_tail());
    let grown = process::resident_kib(pid)?.saturating_sub(memory);
    ensure!(grown < GROWTH_MAX_KIB, "the daemon grew by {grown} KiB");
    let bytes = tree::random_bytes(1 << 20, 5);
    fs::write(ann.path("afterwards"), &bytes)?;
    bob.wait_bytes("afterwards", &bytes)?;
    wait::until("the vandals' connections are closed", Duration::from_secs(60), || {
        Ok((process::open_files(pid)? < files + 16).then_some(()))
    })?;
    let log = fs::read_to_string(ann.log_path())?;
    ensure!(!log.contains("panicked"), "something panicked\n{}", ann.log_tail());
    Ok(())
}

fn dial(at: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&at, Duration::from_secs(5)).context("connect")?;
    stream.set_write_timeout(Some(Duration::from_secs(2)))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    Ok(stream)
}

/// The first message of every libp2p connection: it opens the door to what lies behind.
const MULTISTREAM: &[u8] = b"\x13/multistream/1.0.0\n";
const NOISE: &[u8] = b"\x07/noise\n";
const YAMUX: &[u8] = b"\x0d/yamux/1.0.0\n";

#[test]
fn random_bytes_on_the_port_harm_nobody() -> Result<()> {
    needs!(Need::Fuse);
    survives(|at| {
        for seed in 0..300_u64 {
            let mut stream = dial(at)?;
            let noise = tree::random_bytes(1 + (seed as usize * 97) % 5000, seed);
            let heads: [&[&[u8]]; 4] =
                [&[], &[MULTISTREAM], &[MULTISTREAM, NOISE], &[MULTISTREAM, NOISE, &[0, 32]]];
            let head = heads.get(seed as usize % 4).context("a head")?.concat();
            // The other end may close at any moment; that is its right.
            stream.write_all(&head).and_then(|()| stream.write_all(&noise)).ok();
            if seed % 3 == 0 {
                let mut answer = [0; 512];
                let _answered = stream.read(&mut answer);
            }
        }
        Ok(())
    })
}

#[test]
fn endless_data_does_not_fill_the_memory() -> Result<()> {
    needs!(Need::Fuse);
    survives(|at| {
        let block = tree::random_bytes(1 << 20, 9);
        for head in [
            &b""[..],
            MULTISTREAM,
            &[MULTISTREAM, NOISE].concat(),
            &[MULTISTREAM, NOISE, YAMUX].concat(),
        ] {
            let mut stream = dial(at)?;
            let started = Instant::now();
            let mut sent = stream.write(head).unwrap_or(0);
            while sent < 256 << 20 && started.elapsed() < Duration::from_secs(10) {
                match stream.write(&block) {
                    Ok(0) | Err(_) => break,
                    Ok(count) => sent += count,
                }
            }
        }
        Ok(())
    })
}

#[test]
fn silent_and_slow_strangers_cannot_hold_the_port() -> Result<()> {
    needs!(Need::Fuse);
    survives(|at| {
        let mut silent = Vec::new();
        for number in 0..200 {
            // Some may be turned away at the door.
            let Ok(mut stream) = dial(at) else { continue };
            if number % 2 == 0 {
                stream.write_all(MULTISTREAM.get(..number % 20).unwrap_or_default()).ok();
            }
            silent.push(stream);
        }
        ensure!(silent.len() > 20, "only {} connections could be made", silent.len());
        // They are still held open here while the members go on with their work.
        let closed = |stream: &mut TcpStream| {
            let mut byte = [0_u8; 64];
            stream.set_nonblocking(true).ok();
            loop {
                match stream.read(&mut byte) {
                    Ok(0) => return true,
                    Ok(_) => {}
                    Err(error) => return error.kind() != std::io::ErrorKind::WouldBlock,
                }
            }
        };
        wait::until(
            "the daemon closes connections that say nothing",
            Duration::from_secs(60),
            || Ok(silent.iter_mut().all(closed).then_some(())),
        )
    })
}

#[test]
fn a_member_that_lies_about_contents_never_puts_wrong_bytes_into_a_mount() -> Result<()> {
    needs!(Need::Fuse);
    for lie in [Lie::OtherBytes, Lie::OtherLength, Lie::Bomb, Lie::UnknownFlags, Lie::TooMuch] {
        lies_have_no_effect(lie).with_context(|| format!("{lie:?}"))?;
    }
    Ok(())
}

/// Ann makes a film and goes; Bob hears of it from Mallory only, who claims to have it.
fn lies_have_no_effect(lie: Lie) -> Result<()> {
    let site = Site::new()?;
    let mut ann = host(&site)?;
    let mut bob = Device::local(&site, "Bob")?;
    bob.join_drive_of(&ann)?;
    agree(&[&ann, &bob])?;
    let bobs_address = format!("/ip4/127.0.0.1/tcp/{}", listens(&bob)?.port());
    let mallory = Liar::join(&ann.invite(&[])?, &site.dir("mallory")?, lie, &[bobs_address])?;
    ann.wait_online(2)?;
    bob.unmount()?;
    let film = tree::random_bytes(2 << 20, 8);
    fs::write(ann.path("film"), &film)?;
    ann.cli(&["sync", "--timeout", "20s"]).ok();
    let verified = ann.json("verify")?;
    mallory.wait_entries(verified["journal_entries"].as_u64().context("no count of entries")?)?;
    ann.unmount()?;

    bob.mount()?;
    // Caught lying it is cut off within milliseconds: online is what it was, not what it stays.
    wait::until("Bob has met Mallory", Duration::from_secs(90), || {
        let status = bob.json("status")?;
        let online = status["members"].as_array().is_some_and(|members| {
            members.iter().filter(|member| member["online"] == true).count() > 1
        });
        let told = status["notices"].to_string().contains("not what it says");
        Ok((online || told).then_some(()))
    })?;
    let started = Instant::now();
    // Whatever Bob shows meanwhile, it is the film, an honest error, or nothing.
    wait::until("the lies had their time", Duration::from_secs(60), || {
        match fs::read(bob.path("film")) {
            Ok(bytes) => ensure!(bytes == film, "Bob reads {} wrong bytes", bytes.len()),
            Err(error) => ensure!(
                matches!(error.raw_os_error(), Some(2 | 5)),
                "Bob's read fails with {error}"
            ),
        }
        Ok((started.elapsed() > Duration::from_secs(3)).then_some(()))
    })?;
    ensure!(bob.is_running()?, "Bob's daemon died\n{}", bob.log_tail());
    let grown = process::resident_kib(bob.pid()?)?;
    ensure!(grown < 512 << 10, "Bob's daemon has {grown} KiB");
    ann.mount()?;
    bob.wait_bytes("film", &film)?;
    drop(mallory);
    Ok(())
}
