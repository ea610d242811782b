//! The address book: where members were reached, when to dial them again, and who misbehaved.
//!
//! Pure but for [`AddressBook::load`] and [`AddressBook::save`]; time and randomness are arguments.
//!
//! Leaves out: dialling itself (`driver`) and who is a member (the host).
//!
//! Invariants:
//! - only members have addresses, at most [`limits::ADDRS_PER_DEVICE_MAX`] each; one that worked is
//!   never pushed out by one that was only told;
//! - between two dials of a member that fail lies at least half of the current wait, which doubles from
//!   [`limits::RECONNECT_MIN`] to [`limits::RECONNECT_MAX`];
//! - a member whose violations reach [`limits::STRIKES_MAX`] is kept out, each time twice as long.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use journal::id::DeviceId;
use serde::{Deserialize, Serialize};

use crate::error::BookError;
use crate::limits;
use crate::wire::Addr;

/// First bytes of the file, version included.
const MAGIC: &[u8] = b"atelier address book 1\n";

/// How an address was learned.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Source {
    /// Another member said so.
    Told,
    /// The member itself said so, or it answered on the local network.
    Announced,
    /// A person gave it (configuration, ticket).
    Given,
    /// A connection was made there.
    Reached,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Known {
    addr: Addr,
    source: Source,
    /// Counts up over the whole book: the larger, the more recently confirmed.
    fresh: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Link {
    /// Dial when this time (ms) has come.
    Down {
        next_ms: u64,
        failures: u32,
    },
    /// A dial is under way.
    Dialling {
        failures: u32,
    },
    Up {
        since_ms: u64,
        failures: u32,
    },
}

#[derive(Debug)]
struct Contact {
    addrs: Vec<Known>,
    link: Link,
}

/// See the module's words.
#[derive(Debug, Default)]
pub struct AddressBook {
    contacts: BTreeMap<DeviceId, Contact>,
    fresh: u64,
    dirty: bool,
}

/// Between which ends a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkKind {
    /// Two processes of one machine.
    Local,
    /// Two machines.
    Network,
}

/// A dial that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dial {
    /// Who must answer.
    pub device: DeviceId,
    /// Where, best first.
    pub addrs: Vec<Addr>,
}

/// What a violation leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Noted.
    Noted,
    /// Disconnect and keep out for so long.
    Exclude(Duration),
}

impl AddressBook {
    /// Makes the book be about these members; others' addresses are forgotten.
    pub fn set_members(&mut self, members: &[DeviceId], me: &DeviceId, now_ms: u64) {
        let before = self.contacts.len();
        self.contacts.retain(|device, _| members.contains(device) && device != me);
        self.dirty |= self.contacts.len() != before;
        for device in members.iter().filter(|d| *d != me) {
            self.contacts.entry(*device).or_insert_with(|| Contact {
                addrs: Vec::new(),
                link: Link::Down { next_ms: now_ms, failures: 0 },
            });
        }
    }

    /// Remembers addresses; a member that is down is dialled at once if any is new or was confirmed.
    pub fn learn(
        &mut self,
        device: &DeviceId,
        addrs: &[Addr],
        source: Source,
        now_ms: u64,
    ) -> bool {
        let Some(contact) = self.contacts.get_mut(device) else { return false };
        let mut news = false;
        for addr in addrs.iter().filter(|a| !a.is_unusable()) {
            self.fresh += 1;
            match contact.addrs.iter_mut().find(|known| known.addr == *addr) {
                Some(known) => {
                    known.fresh = self.fresh;
                    if source > known.source {
                        known.source = source;
                        self.dirty = true;
                    }
                }
                None => {
                    contact.addrs.push(Known { addr: addr.clone(), source, fresh: self.fresh });
                    news = true;
                }
            }
        }
        if contact.addrs.len() > limits::ADDRS_PER_DEVICE_MAX {
            contact.addrs.sort_by_key(|known| std::cmp::Reverse((known.source, known.fresh)));
            contact.addrs.truncate(limits::ADDRS_PER_DEVICE_MAX);
        }
        self.dirty |= news;
        if news && let Link::Down { .. } = contact.link {
            contact.link = Link::Down { next_ms: now_ms, failures: 0 };
        }
        news
    }

    /// Dials a member that is down without waiting any longer.
    pub fn hurry(&mut self, device: &DeviceId, now_ms: u64) {
        if let Some(contact) = self.contacts.get_mut(device)
            && let Link::Down { .. } = contact.link
        {
            contact.link = Link::Down { next_ms: now_ms, failures: 0 };
        }
    }

    /// The network changed: nobody is waited for any longer.
    pub fn hurry_all(&mut self, now_ms: u64) {
        for contact in self.contacts.values_mut() {
            if let Link::Down { next_ms, .. } = &mut contact.link {
                *next_ms = now_ms.min(*next_ms);
            }
        }
    }

    /// Takes the dials that are due at `now_ms`; each must end in `connected` or `failed`.
    pub fn take_due(&mut self, now_ms: u64, count_max: usize) -> Vec<Dial> {
        let mut dials = Vec::new();
        for (device, contact) in &mut self.contacts {
            if dials.len() >= count_max {
                break;
            }
            if let Link::Down { next_ms, failures } = contact.link
                && next_ms <= now_ms
                && !contact.addrs.is_empty()
            {
                contact.link = Link::Dialling { failures };
                dials.push(Dial { device: *device, addrs: best_first(&contact.addrs) });
            }
        }
        dials
    }

    /// When the next dial is due, if any waits.
    pub fn next_due_ms(&self) -> Option<u64> {
        self.contacts
            .values()
            .filter(|c| !c.addrs.is_empty())
            .filter_map(|c| match c.link {
                Link::Down { next_ms, .. } => Some(next_ms),
                _ => None,
            })
            .min()
    }

    /// A connection stands, by a dial to `addr` or by the other end's.
    pub fn connected(&mut self, device: &DeviceId, addr: Option<&Addr>, now_ms: u64) {
        if let Some(addr) = addr {
            self.learn(device, std::slice::from_ref(addr), Source::Reached, now_ms);
        }
        if let Some(contact) = self.contacts.get_mut(device) {
            contact.link = match contact.link {
                Link::Down { failures, .. } | Link::Dialling { failures } => {
                    Link::Up { since_ms: now_ms, failures }
                }
                up @ Link::Up { .. } => up,
            };
        }
    }

    /// The last connection is gone. `jitter` is in `0.0..1.0`. One that did not last counts as a
    /// failed dial, so that a peer which cuts us off at once is not dialled all the time.
    pub fn disconnected(&mut self, device: &DeviceId, now_ms: u64, jitter: f64) {
        if let Some(contact) = self.contacts.get_mut(device) {
            let failures = match contact.link {
                Link::Up { since_ms, failures } if !is_settled(since_ms, now_ms) => failures,
                Link::Up { .. } => 0,
                Link::Down { .. } | Link::Dialling { .. } => return,
            };
            let next_ms = now_ms + wait_ms(failures, jitter);
            contact.link = Link::Down { next_ms, failures: failures.saturating_add(1) };
        }
    }

    /// A dial failed; says nothing if the other end connected meanwhile.
    pub fn failed(&mut self, device: &DeviceId, now_ms: u64, jitter: f64) {
        if let Some(contact) = self.contacts.get_mut(device)
            && let Link::Dialling { failures } = contact.link
        {
            let next_ms = now_ms + wait_ms(failures, jitter);
            contact.link = Link::Down { next_ms, failures: failures.saturating_add(1) };
        }
    }

    /// What is known of `device`, best first.
    pub fn addrs(&self, device: &DeviceId) -> Vec<Addr> {
        self.contacts.get(device).map(|c| best_first(&c.addrs)).unwrap_or_default()
    }

    /// Addresses that worked or were announced, for a member at the other end of `link`. Those of the
    /// machine itself are only worth telling to the same machine.
    pub fn to_share(&self, except: &DeviceId, link: LinkKind) -> Vec<(DeviceId, Vec<Addr>)> {
        self.contacts
            .iter()
            .filter(|(device, _)| *device != except)
            .map(|(device, contact)| {
                let good = contact.addrs.iter().filter(|k| k.source >= Source::Announced);
                let good = good.filter(|k| link == LinkKind::Local || !k.addr.is_loopback());
                let good: Vec<Known> = good.cloned().collect();
                (*device, best_first(&good))
            })
            .filter(|(_, addrs)| !addrs.is_empty())
            .take(limits::ADDRS_DEVICES_MAX)
            .collect()
    }

    /// Whether `device` is one of the members this book is about.
    pub fn knows(&self, device: &DeviceId) -> bool {
        self.contacts.contains_key(device)
    }

    /// Whether something worth saving changed since the last [`Self::save`].
    pub fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// Reads a book; a missing file is an empty one.
    pub fn load(path: &Path) -> Result<Self, BookError> {
        let io = |source| BookError::Io { path: path.into(), verb: "read", source };
        let file = match fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(error) => return Err(io(error)),
        };
        let mut bytes = Vec::new();
        file.take(limits::BOOK_FILE_LEN_MAX).read_to_end(&mut bytes).map_err(io)?;
        Self::decode(&bytes).ok_or_else(|| BookError::Corrupt { path: path.into() })
    }

    /// Replaces the file as a whole. It is a cache: its loss costs a rediscovery, so no sync.
    pub fn save(&mut self, path: &Path) -> Result<(), BookError> {
        self.dirty = false;
        write_whole(path, &self.encode())
    }

    /// The book's bytes, and notes that they are as good as saved.
    pub(crate) fn take_bytes(&mut self) -> Vec<u8> {
        self.dirty = false;
        self.encode()
    }

    fn encode(&self) -> Vec<u8> {
        let list: Vec<(&DeviceId, &Vec<Known>)> =
            self.contacts.iter().map(|(device, c)| (device, &c.addrs)).collect();
        postcard::to_extend(&list, MAGIC.to_vec()).unwrap_or_default()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let body = bytes.strip_prefix(MAGIC)?;
        let list: Vec<(DeviceId, Vec<Known>)> = postcard::from_bytes(body).ok()?;
        let mut book = Self::default();
        for (device, mut addrs) in list {
            addrs.truncate(limits::ADDRS_PER_DEVICE_MAX);
            for known in &addrs {
                book.fresh = book.fresh.max(known.fresh);
            }
            let link = Link::Down { next_ms: 0, failures: 0 };
            book.contacts.insert(device, Contact { addrs, link });
        }
        // A file of the largest numbers must not make the next one wrap.
        book.fresh = book.fresh.min(u64::MAX / 2);
        Some(book)
    }
}

/// Writes beside and renames over.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), BookError> {
    let mut beside: PathBuf = path.into();
    beside.as_mut_os_string().push(".new");
    let io = |source| BookError::Io { path: path.into(), verb: "write", source };
    let mut file = fs::File::create(&beside).map_err(io)?;
    file.write_all(bytes).map_err(io)?;
    drop(file);
    fs::rename(&beside, path).map_err(io)
}

fn best_first(known: &[Known]) -> Vec<Addr> {
    let mut sorted: Vec<&Known> = known.iter().collect();
    sorted
        .sort_by(|a, b| (a.addr.via(), b.source, b.fresh).cmp(&(b.addr.via(), a.source, a.fresh)));
    sorted.into_iter().map(|k| k.addr.clone()).collect()
}

fn is_settled(since_ms: u64, now_ms: u64) -> bool {
    now_ms.saturating_sub(since_ms) >= limits::SETTLED_TIME.as_millis() as u64
}

/// Between half of the doubled wait and all of it.
pub(crate) fn wait_ms(failures: u32, jitter: f64) -> u64 {
    let full = limits::RECONNECT_MIN
        .saturating_mul(1u32.checked_shl(failures.min(16)).unwrap_or(u32::MAX))
        .min(limits::RECONNECT_MAX)
        .as_millis() as u64;
    full / 2 + (full as f64 / 2.0 * jitter.clamp(0.0, 1.0)) as u64
}

/// Violations of the protocol by peer.
#[derive(Debug, Default)]
pub struct Scores {
    peers: BTreeMap<DeviceId, Score>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Score {
    strikes: u32,
    exclusions: u32,
    last_ms: u64,
}

impl Scores {
    /// Notes one violation. Good behaviour for [`limits::BAN_MAX`] wipes the slate.
    pub fn strike(&mut self, device: &DeviceId, now_ms: u64) -> Verdict {
        if !self.peers.contains_key(device) && self.peers.len() >= limits::BANNED_PEERS_MAX {
            let oldest = self.peers.iter().min_by_key(|(_, s)| s.last_ms).map(|(d, _)| *d);
            if let Some(oldest) = oldest {
                self.peers.remove(&oldest);
            }
        }
        let score = self.peers.entry(*device).or_default();
        if now_ms.saturating_sub(score.last_ms) > limits::BAN_MAX.as_millis() as u64 {
            *score = Score::default();
        }
        score.last_ms = now_ms;
        score.strikes += 1;
        if score.strikes < limits::STRIKES_MAX {
            return Verdict::Noted;
        }
        score.strikes = 0;
        let factor = 1u32.checked_shl(score.exclusions.min(16)).unwrap_or(u32::MAX);
        score.exclusions = score.exclusions.saturating_add(1);
        Verdict::Exclude(limits::BAN_MIN.saturating_mul(factor).min(limits::BAN_MAX))
    }
}

#[cfg(test)]
mod tests;
