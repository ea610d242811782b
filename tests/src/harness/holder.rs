//! A program that works on a file until it is told to do something else: what takes a lock and keeps it.
//!
//! It is a real process of its own, so that it can be killed, stopped, and told from the test, which opens the same
//! files on other devices.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// What it does for each line it is given. `load` and `saveas` keep nothing open; `open` keeps a descriptor.
const SCRIPT: &str = r#"
import os, sys
held = {}
for line in sys.stdin:
    verb, path, *rest = line.rstrip("\n").split("\t")
    try:
        answer = "ok"
        if verb == "open":
            held[path] = os.open(path, os.O_RDWR)
        elif verb == "write":
            os.pwrite(held[path], rest[0].encode(), 0)
        elif verb == "append":
            os.lseek(held[path], 0, os.SEEK_END); os.write(held[path], rest[0].encode())
        elif verb == "close":
            os.close(held.pop(path))
        elif verb == "load":
            with open(path, "rb") as file: answer = "ok " + str(len(file.read()))
        elif verb == "overwrite":
            with open(path, "wb") as file: file.write(rest[0].encode())
        elif verb == "replace":
            with open(path + ".tmp", "wb") as file: file.write(rest[0].encode())
            os.replace(path + ".tmp", path)
        elif verb == "make":
            with open(path, "xb") as file: file.write(b"")
        elif verb == "access":
            answer = "ok " + str(os.access(path, os.W_OK))
        elif verb == "unlink":
            os.unlink(path)
        elif verb == "fork":
            child = os.fork()
            if child == 0:
                os.close(0)
                os.pause() if hasattr(os, "pause") else __import__("signal").pause()
            answer = "ok " + str(child)
    except OSError as error:
        answer = "error " + str(error.errno)
    print(answer, flush=True)
"#;

/// The program.
#[derive(Debug)]
pub struct Program {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

/// What came of a call: the words behind `ok`, or the error's number.
pub type Answer = std::result::Result<String, i32>;

impl Program {
    /// Starts it; it does nothing yet.
    pub fn start() -> Result<Program> {
        let mut command = Command::new("python3");
        command.args(["-u", "-c", SCRIPT]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("start python3")?;
        let stdin = child.stdin.take().context("no standard input")?;
        let stdout = BufReader::new(child.stdout.take().context("no standard output")?);
        Ok(Program { child, stdin, stdout })
    }

    /// Tells it what to do with a file, and waits for what came of it.
    pub fn tell(&mut self, verb: &str, path: &Path, text: &str) -> Result<Answer> {
        writeln!(self.stdin, "{verb}\t{}\t{text}", path.display())?;
        let mut line = String::new();
        ensure!(self.stdout.read_line(&mut line)? > 0, "the program ended");
        match line.trim_end().split_once(' ') {
            None => Ok(Ok(String::new())),
            Some(("ok", words)) => Ok(Ok(words.to_owned())),
            Some(("error", number)) => Ok(Err(number.parse()?)),
            Some(_) => bail!("the program said {line:?}"),
        }
    }

    /// [`Program::tell`], which must go well.
    pub fn must(&mut self, verb: &str, path: &Path, text: &str) -> Result<String> {
        let done = self.tell(verb, path, text)?;
        done.map_err(|number| {
            let error = std::io::Error::from_raw_os_error(number);
            anyhow::anyhow!("{verb} {}: {error}", path.display())
        })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as `kill -9` does.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Fails when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
