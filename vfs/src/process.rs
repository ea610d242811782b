//! Which process makes a call, and whether it still lives.
//!
//! A kernel tells the thread. While its call waits for us the thread lives, so what `/proc` says of it then is true. A
//! process is its thread group and the moment it started: a number that is used again is another process.
//!
//! Leaves out: what is remembered of processes ([`crate::loaded`], [`crate::uses`]).
//!
//! Invariants: a thread that cannot be looked at (0, or of another process namespace) is nobody, never somebody else;
//! at most [`KNOWN_MAX`] threads are remembered.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// Threads remembered.
const KNOWN_MAX: usize = 4_096;
/// Processes whose end is waited for.
const WATCHED_MAX: usize = 512;
/// Programs that keep a document open while somebody works on it, by the beginning of the name the kernel knows them
/// under (at most 15 bytes).
const EDITORS: [&str; 22] = [
    "blender",
    "krita",
    "gimp",
    "inkscape",
    "soffice",
    "oosplash",
    "Photoshop",
    "Illustrator",
    "AfterFX",
    "maya",
    "houdini",
    "Nuke",
    "resolve",
    "kdenlive",
    "natron",
    "zbrush",
    "Substance",
    "UnrealEditor",
    "godot",
    "unity",
    "WINWORD",
    "EXCEL",
];

/// Programs that have such a name and only look.
const NO_EDITORS: [&str; 1] = ["blender-thumb"];

/// A thread group and when it started, clock ticks since the system's start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct ProcessId {
    /// The number of its first thread.
    pub(crate) tgid: u32,
    /// When it started.
    pub(crate) start: u64,
}

/// How a program treats the documents it opens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Program {
    /// Somebody works in it for hours.
    Editor,
    /// Anything else.
    Other,
}

/// A process that makes a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Process {
    /// Which.
    pub(crate) id: ProcessId,
    /// What it is.
    pub(crate) program: Program,
}

/// A thread that was looked at.
struct Known {
    start: u64,
    /// A program that takes the place of another in its process has another name.
    name: String,
    process: Process,
}

/// Tells processes by their threads.
#[derive(Default)]
pub(crate) struct Processes {
    known: Mutex<HashMap<u32, Known>>,
}

impl Processes {
    /// The process of a thread that is waiting for us.
    pub(crate) fn of(&self, tid: u32) -> Option<Process> {
        if tid == 0 {
            return None;
        }
        let thread = Stat::read(tid)?;
        if let Some(known) = self.known.lock().get(&tid)
            && known.start == thread.start
            && known.name == thread.name
        {
            return Some(known.process);
        }
        let process = look_up(tid, &thread)?;
        let mut known = self.known.lock();
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(tid, Known { start: thread.start, name: thread.name, process });
        Some(process)
    }
}

fn look_up(tid: u32, thread: &Stat) -> Option<Process> {
    let status = fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    let tgid = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()?;
    let leader = if tgid == tid { None } else { Some(Stat::read(tgid)?) };
    let leader = leader.as_ref().unwrap_or(thread);
    let program = if is_editor(&leader.name) { Program::Editor } else { Program::Other };
    Some(Process { id: ProcessId { tgid, start: leader.start }, program })
}

fn is_editor(name: &str) -> bool {
    let starts = |list: &[&str]| list.iter().any(|known| name.starts_with(known));
    starts(&EDITORS) && !starts(&NO_EDITORS)
}

/// Whether a process has not ended; one that only waits to be reaped has.
pub(crate) fn is_alive(id: ProcessId) -> bool {
    Stat::read(id.tgid).is_some_and(|stat| stat.start == id.start && !stat.ended)
}

/// Waits for processes to end.
pub(crate) struct Watch {
    bell: io::PipeReader,
    ringer: Mutex<io::PipeWriter>,
    /// One for each process that is waited for, none when its end was told; a process that cannot be watched is looked
    /// at now and then.
    ends: Mutex<BTreeMap<ProcessId, Option<OwnedFd>>>,
}

impl Watch {
    pub(crate) fn new() -> io::Result<Self> {
        let (bell, ringer) = io::pipe()?;
        // Neither who rings nor who listens ever waits for the other.
        rustix::io::ioctl_fionbio(&bell, true)?;
        rustix::io::ioctl_fionbio(&ringer, true)?;
        Ok(Self { bell, ringer: Mutex::new(ringer), ends: Mutex::default() })
    }

    /// Ends a wait.
    pub(crate) fn ring(&self) {
        // A full pipe rings as well.
        let _ = self.ringer.lock().write(&[0]);
    }

    /// Waits until one of these has ended or somebody rings, at most `bound`; not at all if one has ended already. An
    /// end is told once, however long its process is waited for. For one thread.
    pub(crate) fn wait(&self, processes: &BTreeSet<ProcessId>, bound: Duration) {
        let mut ends = self.ends.lock();
        ends.retain(|process, _| processes.contains(process));
        let mut one_ended = false;
        for process in processes {
            if ends.len() >= WATCHED_MAX {
                break;
            }
            if ends.contains_key(process) {
                continue;
            }
            let pid = i32::try_from(process.tgid).ok().and_then(Pid::from_raw);
            let end = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
            // Looked at when it is open: until then the number could become another process's.
            if !is_alive(*process) {
                ends.insert(*process, None);
                one_ended = true;
            } else if end.is_some() {
                ends.insert(*process, end);
            }
        }
        if one_ended {
            return;
        }
        let watched = || ends.iter().filter_map(|(process, end)| Some((process, end.as_ref()?)));
        let mut fds: Vec<PollFd<'_>> =
            watched().map(|(_, end)| PollFd::new(end, PollFlags::IN)).collect();
        fds.push(PollFd::new(&self.bell, PollFlags::IN));
        let bound = Timespec::try_from(bound).ok();
        // Interrupted or not: whoever waits looks.
        let _ = poll(&mut fds, bound.as_ref());
        let told: Vec<ProcessId> = watched()
            .zip(&fds)
            .filter_map(|((process, _), fd)| (!fd.revents().is_empty()).then_some(*process))
            .collect();
        drop(fds);
        for process in told {
            ends.insert(process, None);
        }
        let mut rung = [0; 64];
        while matches!((&self.bell).read(&mut rung), Ok(read) if read == rung.len()) {}
    }
}

/// What `/proc/PID/stat` tells.
struct Stat {
    name: String,
    ended: bool,
    start: u64,
}

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        let bytes = fs::read(format!("/proc/{pid}/stat")).ok()?;
        Self::parse(&String::from_utf8_lossy(&bytes))
    }

    /// A name may hold blanks and brackets: it ends at the last one. The state follows, and 18 fields later the start.
    fn parse(line: &str) -> Option<Self> {
        let (head, tail) = line.rsplit_once(") ")?;
        let name = head.split_once('(')?.1.to_owned();
        let mut fields = tail.split_ascii_whitespace();
        let ended = matches!(fields.next()?, "Z" | "X" | "x");
        Some(Self { name, ended, start: fields.nth(18)?.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let line = "7 (a) b (c) S 1 7 7 0 -1 4 1 2 3 4 5 6 7 8 20 0 1 0 4711 9 9";
        let stat = Stat::parse(line).unwrap();
        assert_eq!((stat.name.as_str(), stat.ended, stat.start), ("a) b (c", false, 4711));
        assert!(Stat::parse("7 (x) Z 1 7").is_none());
        assert!(Stat::parse("").is_none());
    }

    #[test]
    fn the_end_of_a_process_ends_the_wait_and_so_does_a_ring() {
        const LONG: Duration = Duration::from_secs(60);
        let watch = Watch::new().unwrap();
        let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let process = Processes::default().of(child.id()).unwrap().id;
        let process = BTreeSet::from([process]);
        let alive = || process.iter().any(|process| is_alive(*process));
        let waited = std::time::Instant::now();
        watch.ring();
        watch.wait(&process, LONG);
        assert!(alive() && watch.ends.lock().values().all(Option::is_some));
        // It ends while it is watched.
        child.kill().unwrap();
        watch.wait(&process, LONG);
        assert!(!alive());
        // It had ended before anybody watched: first still to be reaped, then gone.
        Watch::new().unwrap().wait(&process, LONG);
        child.wait().unwrap();
        let another = Watch::new().unwrap();
        another.wait(&process, LONG);
        (0..1_000_000).for_each(|_| watch.ring());
        watch.wait(&BTreeSet::new(), LONG);
        assert!(waited.elapsed() < LONG);
        // All of it was heard.
        watch.wait(&BTreeSet::new(), Duration::ZERO);
        // Whoever goes on asking for one that has ended is not told for ever: that would be a busy loop.
        for watch in [&watch, &another] {
            watch.wait(&process, Duration::ZERO);
            let waited = std::time::Instant::now();
            watch.wait(&process, Duration::from_millis(20));
            assert!(waited.elapsed() >= Duration::from_millis(20));
        }
    }

    #[test]
    fn threads_of_one_process_are_one_and_a_child_is_another() {
        let processes = Processes::default();
        let me = processes.of(std::process::id()).unwrap();
        let tid = || rustix::thread::gettid().as_raw_nonzero().get() as u32;
        let thread = std::thread::scope(|s| s.spawn(|| processes.of(tid())).join().unwrap());
        assert_eq!(thread, Some(me));
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let other = processes.of(child.id()).unwrap().id;
        assert_ne!(other, me.id);
        assert!(is_alive(other) && is_alive(me.id));
        child.kill().unwrap();
        // Not reaped yet: it has ended all the same.
        while is_alive(other) {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(!is_alive(other));
        // A number that is used again is another process.
        assert!(!is_alive(ProcessId { start: me.id.start + 1, ..me.id }));
        assert_eq!(processes.of(0), None);
    }
}
