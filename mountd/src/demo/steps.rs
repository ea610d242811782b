//! What the demo shows, in order; each step checks what it says.
//!
//! Leaves out how commands are run ([`super::device`]).

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::device::{Device, failed};
use super::scene;
use crate::cli::output;
use crate::ipc::{ConflictReport, HistoryReport, LockRow, StatusReport};
use crate::report::Failure;

const SCENE: &str = "scene.blend";
const NOTES: &str = "notes.txt";
const FROM_ANNA: &str = "notes\nanna: the light comes from the left\n";
const FROM_BEN: &str = "notes\nben: the light comes from above\n";

/// Everything.
pub(super) fn all(anna: &Device, ben: &Device) -> Result<(), Failure> {
    let start = Instant::now();
    meet(anna, ben)?;
    let edited = saves(anna, ben)?;
    lock(anna, ben)?;
    history(anna)?;
    old_version(ben)?;
    snapshot(anna, ben, &edited)?;
    conflict(anna, ben)?;
    // The scene has seen the whole demo; it is still what Ben saved last.
    for device in [anna, ben] {
        expect(device, SCENE, &edited)?;
    }
    output::line(&format!("\nDone in {}.", seconds(start.elapsed())))
}

fn meet(anna: &Device, ben: &Device) -> Result<(), Failure> {
    step("anna makes a drive and mounts it", || {
        anna.make_drive()?;
        Ok(((), anna.mount.display().to_string()))
    })?;
    let ticket = step("anna invites", || {
        let ticket = anna.invite()?;
        let shown = ticket.get(..24).unwrap_or(&ticket).to_owned();
        Ok((ticket, format!("{shown}...")))
    })?;
    step("ben joins with the ticket and mounts the drive", || {
        ben.join(&ticket)?;
        Ok(((), ben.mount.display().to_string()))
    })?;
    step("both see each other", || {
        for device in [anna, ben] {
            device.wait("the other one", || {
                let status: StatusReport = device.ask("status", "")?;
                Ok((status.members.iter().filter(|m| m.online).count() == 2).then_some(()))
            })?;
        }
        Ok(((), "2 members online".to_owned()))
    })
}

/// A save each way; what the scene holds at the end.
fn saves(anna: &Device, ben: &Device) -> Result<Vec<u8>, Failure> {
    let first = scene::first(1);
    step("anna saves a scene and some notes", || {
        anna.save(SCENE, &first)?;
        anna.write(NOTES, "notes\n")?;
        Ok(((), output::size(first.len() as u64)))
    })?;
    step("ben has the same bytes", || {
        arrive(ben, SCENE, &first)?;
        arrive(ben, NOTES, b"notes\n")?;
        Ok(((), "compared byte by byte".to_owned()))
    })?;
    let edited = scene::edited(&first, 2);
    step("ben edits the scene and saves it", || {
        ben.save(SCENE, &edited)?;
        Ok(((), "24.0 KiB inserted in the middle".to_owned()))
    })?;
    step("anna has the edit", || {
        arrive(anna, SCENE, &edited)?;
        Ok(((), "compared byte by byte".to_owned()))
    })?;
    step("nothing is left to send on either side", || {
        anna.ask::<serde_json::Value>("sync", "")?;
        let hash = same_tree(anna, ben)?;
        Ok(((), format!("both show the tree {}", output::short(&hash))))
    })?;
    Ok(edited)
}

/// Anna works on the scene: Ben cannot write it, is told why, and can read it.
fn lock(anna: &Device, ben: &Device) -> Result<(), Failure> {
    let path = anna.mount.join(SCENE);
    let mut writing = std::fs::OpenOptions::new();
    writing.read(true).write(true);
    let held = step("anna opens the scene to work on it: it is locked", || {
        let held = writing.open(&path).map_err(|e| Failure::io("open", &path, &e))?;
        let locks: Vec<LockRow> = anna.ask("ls-locks", "")?;
        match locks.iter().any(|lock| lock.path == SCENE && lock.mine) {
            true => Ok((held, String::new())),
            false => Err(failed(format!("`ls-locks` does not list {SCENE}"))),
        }
    })?;
    step("ben cannot write it, is told who works on it, and reads it", || {
        let path = ben.mount.join(SCENE);
        match writing.open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {}
            Err(error) => return Err(Failure::io("open", &path, &error)),
            Ok(_) => return Err(failed(format!("ben could write {SCENE} meanwhile"))),
        }
        let told = ben.mount.join(format!(".{SCENE}.lock"));
        let text = std::fs::read_to_string(&told).map_err(|e| Failure::io("read", &told, &e))?;
        if !text.contains("holder: anna") || ben.read(SCENE)?.is_none() {
            return Err(failed(format!("{} says {text:?}", told.display())));
        }
        Ok(((), text.trim_end().replace('\n', "\n    ")))
    })?;
    step("she closes it: ben may write", || {
        drop(held);
        ben.wait("the scene to be free", || {
            Ok(writing.open(ben.mount.join(SCENE)).is_ok().then_some(()))
        })?;
        Ok(((), String::new()))
    })
}

/// The drive as it is now, under a name, on both.
fn snapshot(anna: &Device, ben: &Device, scene: &[u8]) -> Result<(), Failure> {
    step("anna names this moment, and ben finds it as a folder", || {
        anna.name_moment("first cut")?;
        let path = ben.mount.join(".snapshots/first cut").join(SCENE);
        ben.wait("the snapshot", || Ok(path.exists().then_some(())))?;
        match std::fs::read(&path) {
            Ok(bytes) if bytes == scene => Ok(((), path.display().to_string())),
            Ok(_) => Err(failed(format!("{} is another scene", path.display()))),
            Err(error) => Err(Failure::io("read", &path, &error)),
        }
    })
}

fn history(anna: &Device) -> Result<(), Failure> {
    step("every save is a version", || {
        let report: HistoryReport = anna.ask("history", SCENE)?;
        let authors: Vec<&str> = report.versions.iter().map(|v| v.author.as_str()).collect();
        if authors != ["ben", "anna"] {
            return Err(failed(format!(
                "the history of {SCENE} has versions by {authors:?}, not by ben and anna"
            )));
        }
        let shown: Vec<String> = report
            .versions
            .iter()
            .map(|v| format!("{} {} by {}", output::time(&v.time), output::size(v.size), v.author))
            .collect();
        Ok(((), shown.join("\n    ")))
    })
}

/// What anna saved first, as a file in ben's mount.
fn old_version(ben: &Device) -> Result<(), Failure> {
    step("what anna saved first can be opened as a file", || {
        let folder = ben.mount.join(".history").join(SCENE);
        let listed = std::fs::read_dir(&folder).map_err(|e| Failure::io("list", &folder, &e))?;
        let mut paths: Vec<_> = listed.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.sort();
        let first = paths.first().ok_or_else(|| failed(format!("{SCENE} has no versions")))?;
        let bytes = std::fs::read(first).map_err(|e| Failure::io("read", first, &e))?;
        match bytes == scene::first(1) {
            true => Ok(((), first.display().to_string())),
            false => Err(failed(format!("{} is not what anna saved", first.display()))),
        }
    })
}

/// Both change one file while the other is away.
fn conflict(anna: &Device, ben: &Device) -> Result<(), Failure> {
    step("anna goes offline, ben changes the notes and goes too", || {
        anna.unmount()?;
        ben.write(NOTES, FROM_BEN)?;
        ben.unmount()?;
        Ok(((), String::new()))
    })?;
    step("anna comes back alone and changes the same notes", || {
        anna.mount_again(None)?;
        expect(anna, NOTES, b"notes\n")?;
        anna.write(NOTES, FROM_ANNA)?;
        Ok(((), String::new()))
    })?;
    step("ben comes back: neither change is lost", || {
        ben.mount_again(Some(&anna.address()?))?;
        let names = both_kept(anna)?;
        if both_kept(ben)? != names {
            return Err(failed("anna and ben show the two versions under other names".to_owned()));
        }
        let hash = same_tree(anna, ben)?;
        let shown = names.join("\n    ");
        Ok(((), format!("{shown}\n    both show the tree {}", output::short(&hash))))
    })?;
    step("the conflict is listed", || {
        let report: Vec<ConflictReport> = ben.ask("conflicts", "")?;
        match report.as_slice() {
            [one] if one.path == NOTES && one.copies.len() == 1 => {
                let by = one.copies.iter().map(|c| c.author.as_str()).collect::<String>();
                Ok(((), format!("{NOTES}: a copy by {by}")))
            }
            other => Err(failed(format!("`conflicts` lists {} names, not {NOTES}", other.len()))),
        }
    })
}

/// Waits until the device shows both versions of the notes; under which names.
fn both_kept(device: &Device) -> Result<Vec<String>, Failure> {
    device.wait("both versions of the notes", || {
        let names: Vec<String> =
            device.names()?.into_iter().filter(|n| n.starts_with("notes")).collect();
        let mut found = BTreeSet::new();
        for name in &names {
            found.extend(device.read(name)?);
        }
        let wanted = BTreeSet::from([FROM_ANNA.as_bytes().to_vec(), FROM_BEN.as_bytes().to_vec()]);
        let named = names.iter().any(|n| n == NOTES) && names.len() == 2;
        Ok((named && found == wanted).then_some(names))
    })
}

/// Waits until both show the same tree; its hash.
fn same_tree(anna: &Device, ben: &Device) -> Result<String, Failure> {
    anna.wait("ben to show the same tree", || {
        let [one, other]: [StatusReport; 2] = [anna.ask("status", "")?, ben.ask("status", "")?];
        Ok((one.tree_hash == other.tree_hash && !one.tree_hash.is_empty()).then_some(one.tree_hash))
    })
}

/// Waits until the device has the file with exactly these bytes.
fn arrive(device: &Device, name: &str, bytes: &[u8]) -> Result<(), Failure> {
    device.wait(name, || Ok(device.read(name)?.is_some_and(|b| b == bytes).then_some(())))
}

/// The device has the file with exactly these bytes now.
fn expect(device: &Device, name: &str, bytes: &[u8]) -> Result<(), Failure> {
    match device.read(name)? {
        Some(found) if found == bytes => Ok(()),
        Some(_) => Err(failed(format!("{} has other bytes in {name}", device.name))),
        None => Err(failed(format!("{} lacks {name}", device.name))),
    }
}

/// Does one step, and says what came of it and how long it took.
fn step<T>(what: &str, act: impl FnOnce() -> Result<(T, String), Failure>) -> Result<T, Failure> {
    let start = Instant::now();
    let (value, detail) = act()?;
    output::line(&format!("\n{what:<60} {:>9}", seconds(start.elapsed())))?;
    if !detail.is_empty() {
        output::line(&format!("    {detail}"))?;
    }
    Ok(value)
}

fn seconds(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{} ms", time.as_millis())
    } else {
        format!("{:.2} s", time.as_secs_f64())
    }
}
