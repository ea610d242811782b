//! Asking for a passphrase: from the environment, or on the terminal without showing it.
//!
//! Leaves out what the passphrase opens ([`super::sealed`]).
//!
//! Invariants: the terminal is put back as it was, however the question ends; what is typed is kept
//! only in memory that is wiped, and is bounded.

use std::fs::File;
use std::io::{Read, Write};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use crate::report::{Code, Failure};

/// The variable that answers instead of a person.
pub const VARIABLE: &str = "ATELIER_PASSPHRASE";
/// Longest passphrase, bytes.
const PASSPHRASE_LEN_MAX: usize = 1_024;
/// How often a person may mistype a new passphrase.
const TRIES: u32 = 3;

/// What the passphrase is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// To open what it sealed before.
    Open,
    /// To seal something new: asked twice.
    Choose,
}

/// Somebody who knows the passphrase.
pub trait Ask {
    /// Gives the passphrase.
    fn ask(&self, purpose: Purpose) -> Result<Zeroizing<String>, Failure>;
}

/// The environment, else the person at the terminal.
#[derive(Clone, Copy, Debug, Default)]
pub struct Terminal;

impl Ask for Terminal {
    fn ask(&self, purpose: Purpose) -> Result<Zeroizing<String>, Failure> {
        if let Ok(given) = std::env::var(VARIABLE) {
            let given = Zeroizing::new(given);
            return if given.is_empty() { Err(empty()) } else { Ok(given) };
        }
        let mut terminal = File::options()
            .read(true)
            .write(true)
            .open("/dev/tty")
            .map_err(|_| Failure::passphrase_needed())?;
        match purpose {
            Purpose::Open => question(&mut terminal, "Passphrase of the device key: "),
            Purpose::Choose => choose(&mut terminal),
        }
    }
}

fn empty() -> Failure {
    Failure::new(Code::PassphraseNeeded, "the passphrase is empty", "choose one with some length")
}

fn choose(terminal: &mut File) -> Result<Zeroizing<String>, Failure> {
    for _ in 0..TRIES {
        let first = question(terminal, "New passphrase for the device key: ")?;
        if first.is_empty() {
            return Err(empty());
        }
        if question(terminal, "Once more: ")? == first {
            return Ok(first);
        }
        let _ = terminal.write_all(b"They differ.\n");
    }
    Err(Failure::new(Code::PassphraseNeeded, "the two passphrases differ", "try again"))
}

/// Puts the terminal back when it goes.
struct Quiet<'a> {
    terminal: &'a File,
    before: Termios,
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.terminal, OptionalActions::Flush, &self.before);
    }
}

fn question(terminal: &mut File, text: &str) -> Result<Zeroizing<String>, Failure> {
    let unusable = |_| Failure::passphrase_needed();
    let mut reader = terminal.try_clone().map_err(|_| Failure::passphrase_needed())?;
    let before = tcgetattr(&*terminal).map_err(unusable)?;
    let mut quiet = before.clone();
    // Signals off too: an interrupt in the middle would leave the terminal without echo. The key is
    // read as a character instead.
    quiet.local_modes -= LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
    terminal.write_all(text.as_bytes()).map_err(|_| Failure::passphrase_needed())?;
    let typed = {
        let guard = Quiet {
            terminal: &reader.try_clone().map_err(|_| Failure::passphrase_needed())?,
            before,
        };
        tcsetattr(guard.terminal, OptionalActions::Flush, &quiet).map_err(unusable)?;
        read_line(&mut reader)
    };
    let _ = terminal.write_all(b"\n");
    typed
}

/// Reads up to the end of the line, as typed: with deletions, interrupt and end.
fn read_line(from: &mut impl Read) -> Result<Zeroizing<String>, Failure> {
    // Room for all of it at once: a growing buffer would leave copies behind.
    let mut line = Zeroizing::new(Vec::with_capacity(PASSPHRASE_LEN_MAX));
    let mut byte = Zeroizing::new([0_u8; 1]);
    loop {
        if from.read(byte.as_mut()).map_err(|_| Failure::passphrase_needed())? == 0 {
            return Err(Failure::passphrase_needed());
        }
        match *byte {
            [b'\n' | b'\r'] => break,
            [0x03 | 0x1c] => return Err(Failure::new(Code::Cancelled, "interrupted", "")),
            [0x04] => return Err(Failure::passphrase_needed()),
            [0x08 | 0x7f] => delete_last(&mut line),
            // Control-U: from the beginning.
            [0x15] => line.clear(),
            [other] if line.len() < PASSPHRASE_LEN_MAX => line.push(other),
            _ => {}
        }
    }
    match std::str::from_utf8(&line) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err(Failure::new(Code::Usage, "the passphrase is not valid UTF-8", "try again")),
    }
}

/// Takes the last character away, all bytes of it.
fn delete_last(line: &mut Vec<u8>) {
    while let Some(byte) = line.pop() {
        if byte & 0xc0 != 0x80 {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_is_read_as_a_person_means_it() {
        for (typed, expected) in [
            ("abc\n", "abc"),
            ("abx\x7fc\r", "abc"),
            ("aä\x7fb\n", "ab"),
            ("\x7f\x7fa\n", "a"),
            ("wrong\x15right\n", "right"),
            ("\n", ""),
        ] {
            assert_eq!(*read_line(&mut typed.as_bytes()).unwrap(), expected, "{typed:?}");
        }
    }

    #[test]
    fn interrupt_and_end_are_no_passphrase() {
        assert_eq!(read_line(&mut &b"ab\x03c\n"[..]).unwrap_err().code, Code::Cancelled);
        assert_eq!(read_line(&mut &b"ab\x04"[..]).unwrap_err().code, Code::PassphraseNeeded);
        assert_eq!(read_line(&mut &b"ab"[..]).unwrap_err().code, Code::PassphraseNeeded);
    }

    #[test]
    fn a_line_without_end_is_bounded() {
        let typed = [vec![b'a'; 100_000], b"\n".to_vec()].concat();
        assert_eq!(read_line(&mut typed.as_slice()).unwrap().len(), PASSPHRASE_LEN_MAX);
    }
}
