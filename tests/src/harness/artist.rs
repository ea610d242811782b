//! An artist: a real Blender without a window that stays open and does what it is asked, with or without the add-on.
//!
//! Several can be asked before the first has answered: that is how they do things at the same time.
//!
//! Leaves out Blenders that do one thing and end ([`super::blender`]).
//!
//! Invariants
//! * An answer is waited for with a bound; what Blender printed before comes with the failure.
//! * Dropping an artist kills its Blender, which is a crash of it.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use super::device::Device;
use super::wait;

/// How long one thing may take on a busy machine.
const ANSWER_BOUND: Duration = Duration::from_secs(120);
/// Begins the line of an answer.
const MARK: &str = "ATELIER-ANSWER ";

/// Whether the add-on is on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AddOn {
    /// It is, and checks out although there is no window.
    On,
    /// It is not.
    Off,
}

/// How the open scene stands, by the add-on.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
pub struct Stands {
    /// `mine`, `theirs`, `free`, ...
    pub standing: String,
    /// Who else has it, or nobody.
    pub holder: String,
    /// Whether somebody saved a newer version than the one that is open.
    pub newer: bool,
}

/// What came of something that was asked.
#[derive(Clone, Debug, Deserialize)]
pub struct Answer {
    /// Blender's error.
    pub failed: Option<String>,
    /// The open file.
    pub file: String,
    /// With the add-on, in a drive.
    pub stands: Option<Stands>,
    /// What was asked for, if it was something.
    pub value: Value,
}

/// One Blender.
#[derive(Debug)]
pub struct Artist {
    name: String,
    child: Child,
    asks: ChildStdin,
    answers: Receiver<String>,
}

impl Artist {
    /// Starts a Blender on the device's host; the first [`Artist::answer`] says that it is there.
    pub fn spawn(device: &Device, addon: AddOn) -> Result<Artist> {
        let home = device.data_dir().with_file_name("blender");
        let addons = home.join("scripts/addons");
        std::fs::create_dir_all(&addons)?;
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("blender/atelier");
        ensure!(source.is_dir(), "no add-on at {}", source.display());
        if !addons.join("atelier").exists() {
            std::os::unix::fs::symlink(source, addons.join("atelier"))?;
        }
        let mut blender = device.program("blender");
        blender
            .args(["--background", "--factory-startup", "--python-exit-code", "3", "--python-expr"])
            .arg(SCRIPT)
            .arg("--")
            .arg(if addon == AddOn::On { "on" } else { "off" })
            .arg(device.mount_dir())
            .env("BLENDER_USER_SCRIPTS", home.join("scripts"))
            .env("XDG_STATE_HOME", home.join("state"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = blender.spawn().context("start blender")?;
        let asks = child.stdin.take().context("no stdin")?;
        let lines = BufReader::new(child.stdout.take().context("no stdout")?).lines();
        let (to, answers) = channel();
        std::thread::spawn(move || {
            // Ends with Blender, or when nobody listens any more.
            for line in lines.map_while(Result::ok) {
                if to.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Artist { name: device.name().to_owned(), child, asks, answers })
    }

    /// [`Artist::spawn`], and waits until it is there.
    pub fn start(device: &Device, addon: AddOn) -> Result<Artist> {
        let mut artist = Artist::spawn(device, addon)?;
        artist.answer()?;
        Ok(artist)
    }

    /// Asks; [`Artist::answer`] tells what came of it.
    pub fn ask(&mut self, what: &Value) -> Result<()> {
        writeln!(self.asks, "{what}").context("Blender does not listen")?;
        self.asks.flush().context("Blender does not listen")
    }

    /// What came of what was asked last.
    pub fn answer(&mut self) -> Result<Answer> {
        let mut printed = Vec::new();
        loop {
            let Ok(line) = self.answers.recv_timeout(ANSWER_BOUND) else {
                bail!("{}'s Blender says nothing:\n{}", self.name, printed.join("\n"));
            };
            if let Some(answer) = line.strip_prefix(MARK) {
                return serde_json::from_str(answer).context("read an artist's answer");
            }
            printed.push(line);
        }
    }

    fn done(&mut self, what: &Value) -> Result<Answer> {
        self.ask(what)?;
        self.answer()
    }

    /// Opens a scene.
    pub fn open(&mut self, scene: &Path) -> Result<Answer> {
        self.done(&open(scene))
    }

    /// Saves the open scene with a stamp that no other save has.
    pub fn save(&mut self, stamp: u64) -> Result<Answer> {
        self.done(&save(stamp))
    }

    /// Lets the add-on find out how the scene stands.
    pub fn look(&mut self) -> Result<Stands> {
        let answer = self.done(&json!({"do": "look"}))?;
        answer.stands.context("no scene of a drive is open, or no add-on")
    }

    /// "Save a Copy Beside".
    pub fn copy_beside(&mut self) -> Result<Answer> {
        self.done(&json!({"do": "copy_beside"}))
    }

    /// The stamp of the save that made a scene; an error when it does not open.
    pub fn stamp_of(&mut self, scene: &Path) -> Result<Option<u64>> {
        let answer = self.done(&json!({"do": "stamp_of", "path": scene}))?;
        if let Some(failed) = answer.failed {
            bail!("{} does not open: {failed}", scene.display());
        }
        Ok(answer.value.as_u64())
    }

    /// Ends Blender in order.
    pub fn quit(mut self) -> Result<()> {
        self.ask(&json!({"do": "quit"}))?;
        let status = wait::exit_of(&mut self.child, ANSWER_BOUND)?;
        let status = status.with_context(|| format!("{}'s Blender does not end", self.name))?;
        ensure!(status.success(), "{}'s Blender ended with {status}", self.name);
        Ok(())
    }
}

impl Drop for Artist {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// For [`Artist::ask`]: opens a scene.
pub fn open(scene: &Path) -> Value {
    json!({"do": "open", "path": scene})
}

/// For [`Artist::ask`]: saves the open scene with a stamp.
pub fn save(stamp: u64) -> Value {
    json!({"do": "save", "stamp": stamp})
}

const SCRIPT: &str = r#"
import bpy, json, sys
addon, mount = sys.argv[sys.argv.index("--") + 1:]
session = None
if addon == "on":
    bpy.ops.preferences.addon_enable(module="atelier")
    bpy.context.preferences.addons["atelier"].preferences.in_background = True
    from atelier import session

def document():
    if session is None or session.keeper().document is None or session.keeper().document.place is None:
        return None
    return session.keeper().document

def stands():
    found = document()
    return found and {"standing": found.standing.value, "holder": found.holder, "newer": found.report.newer is not None}

def settle():
    # What timers do where there is a window; a busy machine may take longer than Blender waits.
    if session is None:
        return
    keeper = session.keeper()
    if keeper.document is not None:
        keeper._helper.wait(keeper._helper.do(keeper.document.loan, "look"), 30)
    keeper.tick()

def do_open(path):
    bpy.ops.wm.open_mainfile(filepath=path)
    settle()

def do_save(stamp):
    bpy.context.scene["stamp"] = stamp
    bpy.ops.wm.save_mainfile()
    settle()

def do_look():
    session.keeper().look()
    settle()

def do_copy_beside():
    bpy.ops.atelier.save_copy_beside()
    settle()

def do_stamp_of(path):
    bpy.ops.wm.open_mainfile(filepath=path)
    return bpy.context.scene.get("stamp")

def say(failed=None, value=None):
    answer = {"failed": failed, "file": bpy.data.filepath, "stands": stands(), "value": value}
    print("\nATELIER-ANSWER " + json.dumps(answer), flush=True)

say()
for line in sys.stdin:
    ask = json.loads(line)
    what = ask.pop("do")
    if what == "quit":
        break
    try:
        say(value=globals()["do_" + what](**ask))
    except RuntimeError as error:
        say(failed=str(error))
"#;
