//! Saves as applications do them, as text: a *dance* is one save, one system call a line, each with the pause before it.
//!
//! ```text
//! # Where it comes from.
//! document s.blend                what is saved
//! backup s.blend~                 a name others may see for a moment although the save takes it away again
//! 0.1 create W s.blend@ 644       pause in milliseconds, call, handle, name, mode
//! 0.1 write W new 0 50            bytes of the new version, from 0 to 50 percent, at their place
//! 0   close W
//! 0.1 rename s.blend@ s.blend
//! ```
//!
//! `{n}` in a name is the number of the save; `unlink?` does nothing when nothing is there. Versions are numbered; the
//! bytes of each follow from its number ([`content`]), so that a reader can tell a whole one from a part.
//!
//! Leaves out every judgement, and the stage: a folder ([`Folder`]) or a file system below its kernel.
//!
//! Invariant: needs nothing but `std` and `rustix`; the tests of `vfs` take this file in by its path.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, RenameFlags, XattrFlags};

/// The part of every version that is the same in all, bytes.
const COMMON_LEN: usize = 100_000;
/// Length of version 0, bytes.
const BASE_LEN: usize = 180_000;
/// How much longer each version is than the one before, bytes.
const GROWTH: usize = 997;
/// The modification time that programs set which keep one.
const KEPT_TIME: Duration = Duration::from_secs(1_234_567_890);

/// The bytes of a document's version: the first half is the same in all, the end says which it is.
pub fn content(version: u32) -> Vec<u8> {
    let tail = format!("\nversion {version}\n");
    let len = BASE_LEN + GROWTH * version as usize - tail.len();
    let mut bytes: Vec<u8> = (0..len)
        .map(|at| {
            let seed = if at < COMMON_LEN { 0 } else { version as usize + 1 };
            let place = (at / 8).wrapping_mul(0x9e37_79b9);
            (place.wrapping_add(seed.wrapping_mul(0x85eb_ca6b)) >> 13) as u8
        })
        .collect();
    bytes.extend(tail.bytes());
    bytes
}

/// Which version these are the whole bytes of.
pub fn version_of(bytes: &[u8]) -> Option<u32> {
    let tail = bytes.strip_suffix(b"\n")?.rsplit(|byte| *byte == b'\n').next()?;
    let version = std::str::from_utf8(tail).ok()?.strip_prefix("version ")?.parse().ok()?;
    (content(version) == bytes).then_some(version)
}

/// One save.
#[derive(Clone, Debug)]
pub struct Dance {
    /// What it is called.
    pub name: String,
    /// The name of what is saved.
    pub document: String,
    /// A name that may be published for a moment.
    pub backup: Option<String>,
    /// With a longer pause before every call it is more than one version.
    pub pause_max: Duration,
    steps: Vec<Step>,
}

/// One call.
#[derive(Clone, Debug)]
pub struct Step {
    /// The pause before it, as recorded.
    pub pause: Duration,
    act: Act,
}

impl Step {
    /// Whether it waits for the disk: how long it takes says nothing about who else runs.
    pub fn waits_for_disk(&self) -> bool {
        matches!(self.act, Act::Sync(_))
    }
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// To be read.
    Read,
    /// To be changed in place.
    Write,
    /// To be written anew.
    Truncate,
    /// Made or written anew, with this mode when made.
    Create(u32),
    /// Made, with this mode.
    CreateNew(u32),
}

#[derive(Clone, Copy, Debug)]
enum Bytes {
    /// The version that is saved.
    New,
    /// The one before.
    Old,
    /// Neither: a lock file, a program's notes.
    Other,
}

#[derive(Clone, Debug)]
enum Act {
    Open { handle: String, name: String, how: How },
    Read(String),
    Write { handle: String, bytes: Bytes, from: usize, to: usize },
    SetLen { handle: String, percent: usize },
    SetLenOf { name: String, percent: usize },
    Sync(String),
    FileMode { handle: String, mode: u32 },
    Close(String),
    Mode { name: String, mode: u32 },
    KeepTime(String),
    Attribute { name: String, key: String, value: String },
    Rename { from: String, to: String },
    Exchange { a: String, b: String },
    Unlink { name: String, must: bool },
    MakeDir(String),
    RemoveDir(String),
}

/// Where a dance is danced.
pub trait Stage {
    /// An open file.
    type File;
    /// The moment before a step.
    fn pause(&self, step: &Step);
    /// Opens.
    fn open(&self, name: &str, how: How) -> io::Result<Self::File>;
    /// Reads the whole file.
    fn read(&self, file: &Self::File) -> io::Result<Vec<u8>>;
    /// Writes at a place.
    fn write(&self, file: &Self::File, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Cuts or extends.
    fn set_len(&self, file: &Self::File, len: u64) -> io::Result<()>;
    /// Cuts or extends what is not open.
    fn set_len_of(&self, name: &str, len: u64) -> io::Result<()>;
    /// fsync.
    fn sync(&self, file: &Self::File) -> io::Result<()>;
    /// fchmod.
    fn set_file_mode(&self, file: &Self::File, mode: u32) -> io::Result<()>;
    /// Closes.
    fn close(&self, file: Self::File) -> io::Result<()>;
    /// chmod.
    fn set_mode(&self, name: &str, mode: u32) -> io::Result<()>;
    /// Sets the modification time.
    fn set_time(&self, name: &str, time: SystemTime) -> io::Result<()>;
    /// Sets an extended attribute.
    fn set_attribute(&self, name: &str, key: &str, value: &[u8]) -> io::Result<()>;
    /// Whether something is there.
    fn exists(&self, name: &str) -> bool;
    /// Moves, replacing what is there.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Lets two names change places.
    fn exchange(&self, a: &str, b: &str) -> io::Result<()>;
    /// Removes a file.
    fn unlink(&self, name: &str) -> io::Result<()>;
    /// Makes a directory.
    fn make_dir(&self, name: &str) -> io::Result<()>;
    /// Removes one.
    fn remove_dir(&self, name: &str) -> io::Result<()>;
}

fn bad(what: impl Into<String>) -> io::Error {
    io::Error::other(what.into())
}

impl Dance {
    /// Reads every dance of a directory, in the order of their names.
    pub fn load_all(dir: &Path) -> io::Result<Vec<Dance>> {
        let mut paths: Vec<PathBuf> =
            fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
        paths.retain(|path| path.extension().is_some_and(|ending| ending == "txt"));
        paths.sort();
        paths.iter().map(|path| Dance::load(path)).collect()
    }

    fn load(path: &Path) -> io::Result<Dance> {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let mut dance = Dance {
            name,
            document: String::new(),
            backup: None,
            pause_max: Duration::from_millis(400),
            steps: Vec::new(),
        };
        for (index, line) in fs::read_to_string(path)?.lines().enumerate() {
            let words: Vec<&str> = line.split_whitespace().collect();
            dance.line(&words).map_err(|error| {
                bad(format!("{}, line {}: {error}: {line}", path.display(), index + 1))
            })?;
        }
        if dance.document.is_empty() || dance.steps.is_empty() {
            return Err(bad(format!("{}: no document or no step", path.display())));
        }
        Ok(dance)
    }

    fn line(&mut self, words: &[&str]) -> io::Result<()> {
        match words {
            [] => {}
            [first, ..] if first.starts_with('#') => {}
            ["document", name] => self.document = (*name).to_owned(),
            ["backup", name] => self.backup = Some((*name).to_owned()),
            ["pause-max", ms] => self.pause_max = millis(ms)?,
            [ms, call @ ..] => self.steps.push(Step { pause: millis(ms)?, act: act(call)? }),
        }
        Ok(())
    }

    /// Whether the document itself is written, not another file that takes its name.
    pub fn is_in_place(&self) -> bool {
        let mut handles = Vec::new();
        self.steps.iter().any(|step| match &step.act {
            Act::Open { handle, name, how: How::Write | How::Truncate } => {
                if *name == self.document {
                    handles.push(handle);
                }
                false
            }
            Act::Write { handle, .. } => handles.contains(&handle),
            Act::SetLenOf { name, .. } => *name == self.document,
            _ => false,
        })
    }

    /// How many calls it takes.
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether it does nothing.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Saves version `number` over the one before.
    pub fn save<S: Stage>(&self, stage: &S, number: u32) -> io::Result<()> {
        let open = self.save_up_to(stage, number, self.len())?;
        if open.is_empty() { Ok(()) } else { Err(bad(format!("{}: left open", self.name))) }
    }

    /// Its first `count` calls. Gives the files that are open then.
    pub fn save_up_to<S: Stage>(
        &self,
        stage: &S,
        number: u32,
        count: usize,
    ) -> io::Result<BTreeMap<String, S::File>> {
        let mut run = Run { number, files: BTreeMap::new() };
        for step in self.steps.iter().take(count) {
            stage.pause(step);
            run.step(stage, &step.act).map_err(|error| {
                io::Error::new(error.kind(), format!("{}, {:?}: {error}", self.name, step.act))
            })?;
        }
        Ok(run.files)
    }
}

fn millis(text: &str) -> io::Result<Duration> {
    let ms: f64 = text.parse().map_err(|_| bad("not a number of milliseconds"))?;
    Duration::try_from_secs_f64(ms / 1000.0).map_err(|_| bad("not a length of time"))
}

fn number(text: &str) -> io::Result<usize> {
    text.parse().map_err(|_| bad("not a number"))
}

fn act(words: &[&str]) -> io::Result<Act> {
    let mode = |text: &str| u32::from_str_radix(text, 8).map_err(|_| bad("not a mode"));
    let own = |text: &str| text.to_owned();
    let open =
        |handle: &str, name: &str, how| Act::Open { handle: own(handle), name: own(name), how };
    Ok(match words {
        ["open", handle, name] => open(handle, name, How::Read),
        ["open-write", handle, name] => open(handle, name, How::Write),
        ["open-truncate", handle, name] => open(handle, name, How::Truncate),
        ["create", handle, name, bits] => open(handle, name, How::Create(mode(bits)?)),
        ["create-new", handle, name, bits] => open(handle, name, How::CreateNew(mode(bits)?)),
        ["read", handle] => Act::Read(own(handle)),
        ["write", handle, which, from, to] => {
            let bytes = match *which {
                "new" => Bytes::New,
                "old" => Bytes::Old,
                "other" => Bytes::Other,
                _ => return Err(bad("bytes of what")),
            };
            Act::Write { handle: own(handle), bytes, from: number(from)?, to: number(to)? }
        }
        ["ftruncate", handle, percent] => {
            Act::SetLen { handle: own(handle), percent: number(percent)? }
        }
        ["truncate", name, percent] => Act::SetLenOf { name: own(name), percent: number(percent)? },
        ["fsync", handle] => Act::Sync(own(handle)),
        ["fchmod", handle, bits] => Act::FileMode { handle: own(handle), mode: mode(bits)? },
        ["close", handle] => Act::Close(own(handle)),
        ["chmod", name, bits] => Act::Mode { name: own(name), mode: mode(bits)? },
        ["utimens", name] => Act::KeepTime(own(name)),
        ["setxattr", name, key, value] => {
            Act::Attribute { name: own(name), key: own(key), value: own(value) }
        }
        ["rename", from, to] => Act::Rename { from: own(from), to: own(to) },
        ["exchange", a, b] => Act::Exchange { a: own(a), b: own(b) },
        ["unlink", name] => Act::Unlink { name: own(name), must: true },
        ["unlink?", name] => Act::Unlink { name: own(name), must: false },
        ["mkdir", name] => Act::MakeDir(own(name)),
        ["rmdir", name] => Act::RemoveDir(own(name)),
        _ => return Err(bad("no such call")),
    })
}

struct Run<F> {
    number: u32,
    files: BTreeMap<String, F>,
}

impl<F> Run<F> {
    fn name(&self, name: &str) -> String {
        name.replace("{n}", &self.number.to_string())
    }

    fn file(&self, handle: &str) -> io::Result<&F> {
        self.files.get(handle).ok_or_else(|| bad(format!("{handle} is not open")))
    }

    /// A percentage of the new version's length.
    fn part_of_len(&self, percent: usize) -> usize {
        content(self.number).len() * percent / 100
    }

    fn step<S: Stage<File = F>>(&mut self, stage: &S, act: &Act) -> io::Result<()> {
        match act {
            Act::Open { handle, name, how } => {
                let file = stage.open(&self.name(name), *how)?;
                self.files.insert(handle.clone(), file);
                Ok(())
            }
            Act::Read(handle) => stage.read(self.file(handle)?).map(drop),
            Act::Write { handle, bytes, from, to } => {
                let whole = match bytes {
                    Bytes::New => content(self.number),
                    Bytes::Old => content(self.number.saturating_sub(1)),
                    Bytes::Other => vec![b'.'; 100],
                };
                let (from, to) = (whole.len() * from / 100, whole.len() * to / 100);
                let part = whole.get(from..to).ok_or_else(|| bad("no such part"))?;
                stage.write(self.file(handle)?, from as u64, part)
            }
            Act::SetLen { handle, percent } => {
                stage.set_len(self.file(handle)?, self.part_of_len(*percent) as u64)
            }
            Act::SetLenOf { name, percent } => {
                stage.set_len_of(&self.name(name), self.part_of_len(*percent) as u64)
            }
            Act::Sync(handle) => stage.sync(self.file(handle)?),
            Act::FileMode { handle, mode } => stage.set_file_mode(self.file(handle)?, *mode),
            Act::Close(handle) => {
                let file = self.files.remove(handle).ok_or_else(|| bad("it is not open"))?;
                stage.close(file)
            }
            Act::Mode { name, mode } => stage.set_mode(&self.name(name), *mode),
            Act::KeepTime(name) => {
                let time = SystemTime::UNIX_EPOCH + KEPT_TIME;
                stage.set_time(&self.name(name), time + Duration::from_secs(self.number.into()))
            }
            Act::Attribute { name, key, value } => {
                stage.set_attribute(&self.name(name), key, value.as_bytes())
            }
            Act::Rename { from, to } => stage.rename(&self.name(from), &self.name(to)),
            Act::Exchange { a, b } => stage.exchange(&self.name(a), &self.name(b)),
            Act::Unlink { name, must } => {
                let name = self.name(name);
                if *must || stage.exists(&name) { stage.unlink(&name) } else { Ok(()) }
            }
            Act::MakeDir(name) => stage.make_dir(&self.name(name)),
            Act::RemoveDir(name) => stage.remove_dir(&self.name(name)),
        }
    }
}

/// A folder of whatever file system.
pub struct Folder<'a> {
    dir: PathBuf,
    pause: Box<dyn Fn(&Step) + 'a>,
}

impl<'a> Folder<'a> {
    /// Dances in `dir`; `pause` is called before every step.
    pub fn new(dir: &Path, pause: impl Fn(&Step) + 'a) -> Self {
        Self { dir: dir.to_owned(), pause: Box::new(pause) }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

impl Stage for Folder<'_> {
    type File = File;

    fn pause(&self, step: &Step) {
        (self.pause)(step);
    }

    fn open(&self, name: &str, how: How) -> io::Result<File> {
        let mut options = OpenOptions::new();
        match how {
            How::Read => options.read(true),
            How::Write => options.read(true).write(true),
            How::Truncate => options.write(true).truncate(true),
            How::Create(mode) => options.write(true).create(true).truncate(true).mode(mode),
            How::CreateNew(mode) => options.read(true).write(true).create_new(true).mode(mode),
        };
        options.open(self.at(name))
    }

    fn read(&self, file: &File) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    fn write(&self, file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    fn set_len(&self, file: &File, len: u64) -> io::Result<()> {
        file.set_len(len)
    }

    fn set_len_of(&self, name: &str, len: u64) -> io::Result<()> {
        OpenOptions::new().write(true).open(self.at(name))?.set_len(len)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    fn set_file_mode(&self, file: &File, mode: u32) -> io::Result<()> {
        file.set_permissions(Permissions::from_mode(mode))
    }

    fn close(&self, file: File) -> io::Result<()> {
        drop(file);
        Ok(())
    }

    fn set_mode(&self, name: &str, mode: u32) -> io::Result<()> {
        fs::set_permissions(self.at(name), Permissions::from_mode(mode))
    }

    fn set_time(&self, name: &str, time: SystemTime) -> io::Result<()> {
        File::open(self.at(name))?.set_modified(time)
    }

    fn set_attribute(&self, name: &str, key: &str, value: &[u8]) -> io::Result<()> {
        Ok(rustix::fs::setxattr(self.at(name), key, value, XattrFlags::empty())?)
    }

    fn exists(&self, name: &str) -> bool {
        self.at(name).exists()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.at(from), self.at(to))
    }

    fn exchange(&self, a: &str, b: &str) -> io::Result<()> {
        let (a, b) = (self.at(a), self.at(b));
        Ok(rustix::fs::renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE)?)
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.at(name))
    }

    fn make_dir(&self, name: &str) -> io::Result<()> {
        fs::create_dir(self.at(name))
    }

    fn remove_dir(&self, name: &str) -> io::Result<()> {
        fs::remove_dir(self.at(name))
    }
}
