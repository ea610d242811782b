//! The doctor's checks, one function each.
//!
//! Leaves out how they are shown. Invariant: each ends in bounded time, also on a machine that is
//! broken in the way it looks for.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};

use super::Check;
use crate::cli::output;
use crate::clock::SystemClock;
use crate::ipc::Client;
use crate::keys::{self, Place, SystemVault};
use crate::mountpoint;
use crate::paths::{DataDir, Description, atomic, store};
use crate::report::Failure;

/// Below this much free space a drive is of little use, bytes.
const FREE_FEW: u64 = 1 << 30;
/// Below this much a drive cannot be mounted, bytes.
const FREE_NONE: u64 = 64 << 20;
/// Pages a FUSE request may have on kernels that do not say: 1 MiB.
const PAGES_USUAL: u64 = 256;
/// No clock that shows less is right: this was written later. Milliseconds since 1970.
const WRITTEN_MS: u64 = 1_793_491_200_000;

/// Every check, in the order in which their failing matters.
pub(super) fn all(data: &DataDir) -> Vec<Check> {
    let mut found = vec![
        fuse_device(),
        fusermount(),
        request_size(Path::new("/proc/sys/fs/fuse/max_pages_limit")),
        data_dir(data),
        free_space(data),
        key(data),
        tcp(),
        multicast(),
        clock(SystemClock.wall_ms()),
    ];
    match data.drive_ids() {
        Ok(ids) => found.extend(ids.iter().map(|id| drive(&data.store_dir(id)))),
        Err(failure) => found.push(Check::fail("drives", failure)),
    }
    found
}

fn fuse_device() -> Check {
    match mountpoint::can_mount() {
        Err(failure) if failure.code == crate::report::Code::NoFuseDevice => {
            Check::fail("fuse", failure)
        }
        _ => Check::ok("fuse", mountpoint::FUSE_DEVICE),
    }
}

fn fusermount() -> Check {
    match (mountpoint::find_fusermount(), mountpoint::is_root()) {
        (Some(path), _) => Check::ok("fusermount3", path.display().to_string()),
        (None, true) => Check::ok("fusermount3", "not there; root mounts without it"),
        (None, false) => Check::fail("fusermount3", Failure::no_fusermount()),
    }
}

fn request_size(limit: &Path) -> Check {
    let name = "fuse requests";
    let pages = fs::read_to_string(limit).ok().and_then(|t| t.trim().parse::<u64>().ok());
    let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
    let shown = |pages: u64| format!("up to {}", output::size(pages.saturating_mul(page)));
    match pages {
        None => Check::ok(name, shown(PAGES_USUAL)),
        Some(pages) if pages >= PAGES_USUAL => Check::ok(name, shown(pages)),
        Some(pages) => Check::warn(
            name,
            format!("only {}; large files are slower", shown(pages)),
            format!("sysctl fs.fuse.max_pages_limit={PAGES_USUAL}"),
        ),
    }
}

fn data_dir(data: &DataDir) -> Check {
    let name = "data directory";
    let root = data.root();
    let shown = root.display().to_string();
    if !root.exists() {
        let above = existing_above(root);
        return match try_write(&above) {
            Ok(()) => Check::ok(name, format!("{shown} (made at the first mount)")),
            Err(e) => Check::fail(name, Failure::io("make the data directory in", &above, &e)),
        };
    }
    match try_write(root) {
        Ok(()) => Check::ok(name, shown),
        Err(e) => Check::fail(name, Failure::io("write to", root, &e)),
    }
}

/// Really writes: permissions, read-only and full disks all show.
fn try_write(dir: &Path) -> io::Result<()> {
    let path = dir.join(format!(".atelier-doctor-{}", atomic::random_suffix()?));
    let written = fs::write(&path, [0_u8; 4096]);
    let removed = fs::remove_file(&path);
    written.and(removed)
}

/// The nearest directory above `path` that exists.
fn existing_above(path: &Path) -> PathBuf {
    path.ancestors().find(|p| p.is_dir()).unwrap_or(Path::new("/")).to_owned()
}

fn free_space(data: &DataDir) -> Check {
    let name = "free space";
    let at = existing_above(data.root());
    match rustix::fs::statvfs(&at) {
        Ok(fs) => {
            let free = fs.f_bavail.saturating_mul(fs.f_frsize);
            let shown = format!("{} on the disk of {}", output::size(free), at.display());
            match free {
                0..FREE_NONE => Check::fail(name, Failure::disk_full(&at)),
                FREE_NONE..FREE_FEW => Check::warn(name, shown, "free some space"),
                _ => Check::ok(name, shown),
            }
        }
        Err(e) => Check::warn(name, format!("unknown: {e}"), ""),
    }
}

fn key(data: &DataDir) -> Check {
    let name = "device key";
    let place = match keys::place_in(data.root()) {
        Ok(place) => place,
        Err(failure) => return Check::fail(name, failure),
    };
    match (place, SystemVault.probe()) {
        (Some(Place::Keyring), Ok(())) => Check::ok(name, "in the system's keyring"),
        (Some(Place::Keyring), Err(e)) => Check::fail(name, Failure::key_store_unavailable(e)),
        (Some(Place::Passphrase), _) => Check::ok(name, "in a file sealed with a passphrase"),
        (Some(Place::File), _) => Check::warn(
            name,
            format!("in the plain file {}", data.root().join("seed").display()),
            "encrypt the disk it is on",
        ),
        (None, Ok(())) => Check::ok(name, "none yet; the keyring answers and will keep it"),
        (None, Err(e)) => Check::warn(
            name,
            format!("none yet; no keyring answers ({e}), so a plain file would keep it"),
            "--key-store passphrase, or start a keyring",
        ),
    }
}

fn tcp() -> Check {
    let name = "listening";
    match TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)) {
        Ok(_) => Check::ok(name, "TCP ports can be opened"),
        Err(e) => Check::warn(
            name,
            format!("no TCP port can be opened: {e}"),
            "others cannot reach this device; it can still reach them",
        ),
    }
}

fn multicast() -> Check {
    let name = "local network";
    let group = Ipv4Addr::new(224, 0, 0, 251);
    let tried = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| {
        socket.join_multicast_v4(&group, &Ipv4Addr::UNSPECIFIED)?;
        // A query for a name of ours without an answer: what counts is that it can be sent.
        socket.send_to(&MDNS_QUERY, (group, 5353)).map(|_| ())
    });
    match tried {
        Ok(()) => Check::ok(name, "members on it can be found (mDNS)"),
        Err(e) => Check::warn(
            name,
            format!("members on it cannot be found (mDNS): {e}"),
            "give their addresses with --peer; a ticket holds the inviter's",
        ),
    }
}

/// An mDNS query for `_atelier-doctor._udp.local`, type PTR.
const MDNS_QUERY: [u8; 44] =
    *b"\0\0\0\0\0\x01\0\0\0\0\0\0\x0f_atelier-doctor\x04_udp\x05local\0\0\x0c\0\x01";

fn clock(now_ms: u64) -> Check {
    let name = "clock";
    let shown = output::time(&crate::ipc::rfc3339(now_ms));
    if now_ms < WRITTEN_MS {
        return Check::warn(
            name,
            format!("it is wrong: {shown}"),
            "set it; saves stay safe, but their times are shown wrongly",
        );
    }
    // Written by systemd-timesyncd once it has heard from a server.
    if Path::new("/run/systemd/timesync/synchronized").exists() {
        Check::ok(name, format!("{shown}, set by the network"))
    } else {
        Check::ok(name, shown)
    }
}

fn drive(dir: &Path) -> Check {
    let found = match Description::load(dir) {
        Ok(found) => found,
        Err(failure) => return Check::fail("drive", failure),
    };
    let name = format!("drive {}", output::printable(&found.drive.name));
    let mount = found.mount.display();
    if !store::is_locked(dir) {
        return match mountpoint::mounted_at(&found.mount) {
            Some(kind) if kind.starts_with("fuse") => Check::warn(
                &name,
                format!("a dead mount is at {mount}"),
                format!("atelier mount {mount} takes it away"),
            ),
            _ => Check::ok(&name, format!("not mounted (was at {mount})")),
        };
    }
    match Client::connect(dir) {
        Ok(_) if mountpoint::answers(&found.mount) => {
            Check::ok(&name, format!("mounted at {mount}"))
        }
        _ => Check::warn(
            &name,
            format!("its daemon is running, but does not answer at {mount}"),
            format!("see {}; atelier unmount {mount}", dir.join(store::LOG_NAME).display()),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn a_small_request_limit_is_a_warning() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("limit");
        assert_eq!(request_size(&path).state, State::Ok, "older kernels have a fixed one");
        fs::write(&path, "256\n").unwrap();
        assert_eq!(request_size(&path).state, State::Ok);
        fs::write(&path, "32\n").unwrap();
        assert_eq!(request_size(&path).state, State::Warn);
    }

    #[test]
    fn a_clock_before_this_was_written_is_wrong() {
        assert_eq!(clock(0).state, State::Warn);
        assert_eq!(clock(WRITTEN_MS + 1).state, State::Ok);
    }

    #[test]
    fn the_data_directory_is_really_written_and_left_clean() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::locate(Some(dir.path())).unwrap();
        assert_eq!(data_dir(&data).state, State::Ok);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        // In a place where nobody can write, not even root.
        let data = DataDir::locate(Some(Path::new("/proc/nowhere/x"))).unwrap();
        assert_eq!(data_dir(&data).state, State::Fail);
    }

    #[test]
    fn a_damaged_store_is_a_failure_with_a_remedy() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("drive.json"), "{").unwrap();
        let check = drive(dir.path());
        assert_eq!(check.state, State::Fail);
        assert!(!check.remedy.is_empty());
    }
}
