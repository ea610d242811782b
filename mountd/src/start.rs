//! Starting a drive's daemon, in the background or in the foreground.
//!
//! The background daemon is this program again, in a session of its own. Its standard input is a
//! socket to the process that started it: the plan goes in, "ready" or what went wrong comes out.
//! Leaves out the plan's making ([`crate::cli`]) and the daemon itself.
//!
//! Invariants:
//! - the starter returns when the mount answers or with the reason why it does not, after at most
//!   [`SILENCE_MAX`] without a word;
//! - a starter that goes away before (an interrupt) takes its daemon with it;
//! - the secret passes through the socket, never through arguments or the environment.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::ipc::Progress;
use crate::ipc::frame::{FrameError, read_frame, write_frame};
use crate::keys::prompt;
use crate::launch::{Launch, Plan};
use crate::logging;
use crate::report::{Code, Exit, Failure, chain};
use crate::signals::Stop;

/// How long a starting daemon may say nothing.
pub const SILENCE_MAX: Duration = Duration::from_secs(60);
/// How long a daemon that is to end may take before it is killed.
const END_MAX: Duration = Duration::from_secs(10);
/// Between two looks at an ending daemon.
const END_POLL: Duration = Duration::from_millis(20);

/// What a starting daemon says.
#[derive(Debug, Serialize, Deserialize)]
enum Word {
    /// It logs there from now on.
    Log(PathBuf),
    /// It has come so far.
    Progress(Progress),
    /// A line for the person.
    Line(String),
    /// The mount answers.
    Ready,
    /// It cannot.
    Failed(Failure),
}

/// Tells whoever started the daemon how far it is; clones tell the same one.
#[derive(Clone)]
pub struct Ready {
    to: Arc<Mutex<Audience>>,
}

enum Audience {
    /// The process that started us, until it has been told the end.
    Starter(UnixStream),
    /// The person at the terminal.
    Person,
    /// Nobody any more.
    Nobody,
}

impl Ready {
    fn new(to: Audience) -> Self {
        Self { to: Arc::new(Mutex::new(to)) }
    }

    /// The drive is mounted and answers. What is said later is heard by nobody.
    pub fn ready(&self) {
        // One hold of the lock: the starter leaves as soon as it has read the word, and its leaving
        // must not be taken for an interrupt. One that left before stays noticed.
        let mut to = self.to.lock();
        if to.tell(&Word::Ready) {
            *to = Audience::Nobody;
        }
    }

    /// Tells of long work before the mount. Also a sign of life: without one the starter gives up.
    pub fn progress(&self, step: Progress) {
        self.tell(&Word::Progress(step));
    }

    /// A line for the person, as "made the drive X".
    pub fn line(&self, line: impl Into<String>) {
        self.tell(&Word::Line(line.into()));
    }

    fn tell(&self, word: &Word) {
        self.to.lock().tell(word);
    }

    fn is_over(&self) -> bool {
        matches!(&*self.to.lock(), Audience::Nobody)
    }
}

impl Audience {
    /// Says the word; whether it was heard.
    fn tell(&mut self, word: &Word) -> bool {
        match self {
            Self::Starter(stream) => return write_frame(stream, word).is_ok(),
            Self::Person => match word {
                Word::Line(line) => eprintln!("{line}"),
                Word::Ready => eprintln!("mounted; Ctrl-C unmounts"),
                Word::Progress(step) => tracing::info!("{}: {}", step.stage, step.done),
                Word::Log(_) | Word::Failed(_) => {}
            },
            Self::Nobody => {}
        }
        true
    }
}

/// Runs the daemon in this process.
pub fn foreground(plan: Plan) -> Result<(), Failure> {
    logging::init();
    let stop = Stop::on_signals()?;
    crate::daemon::run(Launch::prepare(plan, Ready::new(Audience::Person), stop)?)
}

/// Starts a daemon in the background and waits until it is ready.
pub fn background(plan: &Plan, hear: &mut dyn Hear) -> Result<(), Failure> {
    let cannot = |e: std::io::Error| Failure::internal(format!("cannot start the daemon: {e}"));
    let program = std::env::current_exe().map_err(cannot)?;
    let (mut ours, theirs) = UnixStream::pair().map_err(cannot)?;
    ours.set_read_timeout(Some(SILENCE_MAX)).map_err(cannot)?;
    ours.set_write_timeout(Some(SILENCE_MAX)).map_err(cannot)?;
    // The arguments are for people who look at the list of processes; the plan counts.
    let mut child = Command::new(program)
        .arg("--data-dir")
        .arg(&plan.data_dir)
        .arg(crate::cli::DAEMON_VERB)
        .arg(&plan.mount)
        .current_dir("/")
        .env_remove(prompt::VARIABLE)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .spawn()
        .map_err(cannot)?;
    let mut log = None;
    let outcome = write_frame(&mut ours, plan)
        .map_err(|e| (e, Silence::Died))
        .and_then(|()| listen(&mut ours, &mut log, hear));
    match outcome {
        Ok(result) => result,
        Err((error, silence)) => Err(post_mortem(&mut child, log, &error, silence)),
    }
}

/// What the starter does with the daemon's words.
pub trait Hear {
    /// It has come so far.
    fn progress(&mut self, step: Progress);
    /// A line for the person.
    fn line(&mut self, line: String);
}

#[derive(Clone, Copy)]
enum Silence {
    Died,
    Hangs,
}

fn listen(
    from: &mut UnixStream,
    log: &mut Option<File>,
    hear: &mut dyn Hear,
) -> Result<Result<(), Failure>, (FrameError, Silence)> {
    loop {
        match read_frame(from) {
            Ok(Word::Ready) => return Ok(Ok(())),
            Ok(Word::Failed(failure)) => return Ok(Err(failure)),
            Ok(Word::Progress(step)) => hear.progress(step),
            Ok(Word::Line(line)) => hear.line(line),
            // Opened now: a failed first start takes its store and the log in it away.
            Ok(Word::Log(path)) => *log = File::open(path).ok(),
            Err(e @ FrameError::TimedOut) => return Err((e, Silence::Hangs)),
            Err(e) => return Err((e, Silence::Died)),
        }
    }
}

/// What is left of a daemon that died or hangs: it is ended, and its log says why.
fn post_mortem(
    child: &mut Child,
    log: Option<File>,
    error: &FrameError,
    silence: Silence,
) -> Failure {
    end(child);
    let why = match (silence, child.try_wait()) {
        (Silence::Hangs, _) => format!("no word in {} s", SILENCE_MAX.as_secs()),
        (Silence::Died, Ok(Some(status))) => status.to_string(),
        (Silence::Died, _) => chain(error),
    };
    let last = log.map(|mut log| logging::tail(&mut log)).filter(|t| !t.is_empty());
    let cause = format!("the daemon ended before the mount answered ({why})");
    match last {
        Some(last) => Failure::new(Code::DiedAtStart, cause, format!("its last words: {last}")),
        None => Failure::new(Code::DiedAtStart, cause, "run it with --foreground to see more"),
    }
}

fn end(child: &mut Child) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    let start = Instant::now();
    while matches!(child.try_wait(), Ok(None)) {
        if start.elapsed() > END_MAX {
            let _ = child.kill();
            let _ = child.wait();
            return;
        }
        std::thread::sleep(END_POLL);
    }
}

/// The background daemon's whole life: what the hidden command runs.
pub fn child() -> Exit {
    // Fails only if we lead a group already, which a started process does not.
    let _ = rustix::process::setsid();
    let mut starter = match std::io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from) {
        Ok(starter) => starter,
        Err(_) => return Exit::Usage,
    };
    if let Ok(null) = File::open("/dev/null") {
        let _ = rustix::stdio::dup2_stdin(&null);
    }
    let plan: Plan = match read_frame(&mut starter) {
        Ok(plan) => plan,
        Err(_) => return Exit::Usage,
    };
    let _ = starter.set_write_timeout(Some(SILENCE_MAX));
    let ready = match starter.try_clone() {
        Ok(copy) => Ready::new(Audience::Starter(copy)),
        Err(_) => return Exit::Failed,
    };
    match live(plan, &ready, starter) {
        Ok(()) => Exit::Ok,
        Err(failure) => {
            tracing::error!("{failure}");
            ready.tell(&Word::Failed(failure.clone()));
            failure.exit()
        }
    }
}

fn live(plan: Plan, ready: &Ready, starter: UnixStream) -> Result<(), Failure> {
    let stop = Stop::on_signals()?;
    watch_starter(starter, ready.clone(), stop.clone())?;
    let launch = Launch::prepare(plan, ready.clone(), stop)?;
    let log = launch.store.log_path();
    logging::redirect_to(&log).map_err(|e| Failure::io("write", &log, &e))?;
    logging::init();
    ready.tell(&Word::Log(log));
    crate::daemon::run(launch)
}

/// Ends the daemon when its starter goes away before it was told the end.
fn watch_starter(mut starter: UnixStream, ready: Ready, stop: Stop) -> Result<(), Failure> {
    let watch = move || {
        // The starter says nothing after the plan: whatever comes is its end.
        let _ = std::io::Read::read(&mut starter, &mut [0_u8; 1]);
        if !ready.is_over() {
            tracing::warn!("whoever started this has gone");
            stop.request();
        }
    };
    std::thread::Builder::new()
        .name("starter".into())
        .spawn(watch)
        .map(|_| ())
        .map_err(Failure::internal)
}
