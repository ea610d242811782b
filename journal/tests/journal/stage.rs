//! Devices with real journals that work, part and meet as a scenario tells them to, each through what it sees, as a
//! mount does.
//!
//! Leaves out: the notation ([`crate::script`]) and what must be true at the end ([`crate::scenarios`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use journal::kv::mem::MemKv;
use journal::op::{Arrival, Content, DirAttr, ExchangeSide, FileValue};
use journal::signed::VerifiedEntry;
use journal::state::State;
use journal::{
    AppendError, DirId, EntryId, EntryName, Frontier, Journal, LockPolicy, Op, Register, Role,
    Signer, Standing, Value, VersionId, ViewKind, ViewNode,
};

use crate::forge::{
    MemStorage, admit, content, file, gone_in, invite_key, journal_of, link, list, name, now,
    put_in, signer_of, spec,
};

/// Where every clock that is right begins, milliseconds.
pub const START_MS: u64 = 1_000_000;
/// Time between two steps, milliseconds.
const STEP_MS: u64 = 10;

/// What a change of a name replaces.
#[derive(Clone)]
struct Below {
    name: EntryName,
    bases: Vec<VersionId>,
    /// Dealing with the copy that stands there.
    resolve: Option<Op>,
    /// Whether something published stands there that has to go.
    live: bool,
}

/// A name as a device sees it.
struct Seen {
    dir: DirId,
    name: EntryName,
    node: Option<ViewNode>,
}

pub struct Player {
    pub signer: Signer,
    pub journal: Journal,
    storage: MemStorage,
    skew_ms: i64,
    group: usize,
    backup: Option<MemStorage>,
    /// What a program has loaded, by the path it was given.
    loaded: BTreeMap<String, (DirId, Below)>,
}

pub struct Stage {
    pub players: BTreeMap<char, Player>,
    pub genesis: VerifiedEntry,
    pub wall_ms: u64,
    /// Who changed members after the beginning.
    pub members_changed: bool,
    /// Whether some disk was copied or brought back.
    pub forked: bool,
    pub marks: BTreeMap<String, u64>,
    texts: BTreeMap<Content, String>,
    /// The name under which a copy was first seen.
    copies: BTreeMap<VersionId, EntryName>,
    invites: BTreeMap<String, [u8; 32]>,
    /// The last checkout of a device of a path.
    pub checkouts: BTreeMap<(char, String), VersionId>,
}

fn value_of(node: &ViewNode) -> Value {
    match &node.kind {
        ViewKind::File(file) => Value::File(file.clone()),
        ViewKind::Symlink(link) => Value::Symlink(link.clone()),
        ViewKind::Dir { .. } => panic!("{} is a directory", node.shown),
    }
}

/// A name with the digits of a copy's tag as `#`: what was the name of a copy once is a file's own name after an edit.
fn masked(name: &str) -> String {
    let mut out = String::new();
    let mut rest = name;
    while let Some(at) = rest.find(" (conflict ") {
        let (before, tag) = rest.split_at(at);
        let Some((said, after)) = tag.split_once(')') else { break };
        let Some((user, _digits)) = said.rsplit_once(' ') else { break };
        out.push_str(&format!("{before}{user} #)"));
        rest = after;
    }
    out + rest
}

fn is_dir(node: &ViewNode) -> bool {
    matches!(node.kind, ViewKind::Dir { .. })
}

/// The part of a name that a copy keeps behind its tag.
fn ending(name: &str) -> &str {
    let lower = name.to_ascii_lowercase();
    let known = ["gz", "bz2", "xz", "zst"].map(|packed| format!(".tar.{packed}"));
    if let Some(tar) = known.iter().find(|tar| lower.ends_with(*tar) && lower.len() > tar.len()) {
        return &name[name.len() - tar.len()..];
    }
    match name.rfind('.') {
        Some(dot)
            if dot > 0 && !name[dot..].contains(' ') && (2..=17).contains(&(name.len() - dot)) =>
        {
            &name[dot..]
        }
        _ => "",
    }
}

/// How a scenario writes a copy of `name`: `name!USER`, with `!!` when the digits had to be many. Panics when `shown`
/// is no such name.
fn copy_token(name: &str, user: &str, shown: &str) -> String {
    assert!(shown.len() <= 255, "{shown} is too long");
    let ending = ending(name);
    let parts = shown.strip_suffix(ending).and_then(|rest| rest.strip_suffix(')'));
    let (stem, digits) = parts
        .and_then(|rest| rest.split_once(&format!(" (conflict {user} ")))
        .unwrap_or_else(|| panic!("{shown} is no copy of {name} by {user}"));
    let whole = name.strip_suffix(ending).unwrap_or(name);
    let cut = shown.len() > 250 && whole.starts_with(stem);
    assert!(stem == whole || cut, "{shown} is no copy of {name}");
    assert!(digits.chars().all(|c| c.is_ascii_hexdigit()), "{shown}");
    match digits.len() {
        6 => format!("{}!{user}", masked(name)),
        32 => format!("{}!!{user}", masked(name)),
        len => panic!("{shown} has {len} digits"),
    }
}

impl Stage {
    /// A drive of A, who admitted B, C and D as editors; all of them connected.
    pub fn new() -> Self {
        let a = signer_of('A');
        let genesis = Journal::genesis(&a, spec(), now(START_MS)).unwrap();
        let drive = genesis.id().into();
        let mut ops = vec![Op::Invite {
            key: invite_key(),
            role: Role::Editor,
            expires: u64::MAX >> 16,
            uses: 3,
        }];
        ops.extend(['B', 'C', 'D'].map(|device| admit(&drive, device)));
        let mut stage = Self {
            players: BTreeMap::new(),
            genesis,
            wall_ms: START_MS,
            members_changed: false,
            forked: false,
            marks: BTreeMap::new(),
            texts: BTreeMap::new(),
            copies: BTreeMap::new(),
            invites: BTreeMap::new(),
            checkouts: BTreeMap::new(),
        };
        for device in ['A', 'B', 'C', 'D'] {
            stage.enter(device, signer_of(device), 0);
        }
        stage.players[&'A'].journal.author(&a, ops, now(START_MS)).unwrap();
        stage.flow();
        stage
    }

    fn enter(&mut self, device: char, signer: Signer, group: usize) {
        let (journal, storage) = journal_of(&self.genesis);
        let (skew_ms, backup, loaded) = (0, None, BTreeMap::new());
        let player = Player { signer, journal, storage, skew_ms, group, backup, loaded };
        self.players.insert(device, player);
    }

    pub fn player(&self, device: char) -> &Player {
        self.players.get(&device).unwrap_or_else(|| panic!("no device {device}"))
    }

    fn player_mut(&mut self, device: char) -> &mut Player {
        self.players.get_mut(&device).unwrap_or_else(|| panic!("no device {device}"))
    }

    fn clock(&self, device: char) -> u64 {
        self.wall_ms.saturating_add_signed(self.player(device).skew_ms)
    }

    /// The devices that are connected with `device`, itself included.
    pub fn mates(&self, device: char) -> Vec<char> {
        let group = self.player(device).group;
        self.players.iter().filter(|(_, p)| p.group == group).map(|(d, _)| *d).collect()
    }

    // Time and the network

    pub fn wait(&mut self, ms: u64) {
        self.wall_ms += ms;
    }

    pub fn set_clock(&mut self, device: char, skew_ms: i64) {
        self.player_mut(device).skew_ms = skew_ms;
    }

    /// Nobody reaches anybody but in these groups; who is not named is alone.
    pub fn apart(&mut self, groups: &[Vec<char>]) {
        let mut next = groups.len() + 1;
        for (device, player) in &mut self.players {
            let found = groups.iter().position(|group| group.contains(device));
            player.group = found.unwrap_or_else(|| {
                next += 1;
                next
            });
        }
    }

    pub fn cut(&mut self, devices: &[char]) {
        for device in devices {
            let next = self.players.values().map(|p| p.group).max().unwrap_or(0) + 1;
            self.player_mut(*device).group = next;
        }
    }

    /// The devices come back one after the other to the group of the first: each pulls, says what of its own is late,
    /// and is heard.
    pub fn join(&mut self, order: &[char]) {
        let (first, others) = order.split_first().expect("somebody who joins");
        let group = self.player(*first).group;
        for device in others {
            if self.player(*device).group == group {
                continue;
            }
            for mate in self.mates(*first) {
                self.say_late(mate);
            }
            for mate in self.mates(*first) {
                self.pull(*device, mate);
            }
            self.wait(STEP_MS);
            self.say_late(*device);
            self.player_mut(*device).group = group;
            self.flow();
        }
        self.wait(STEP_MS);
    }

    fn say_late(&mut self, device: char) {
        let (player, at) = (self.player(device), now(self.clock(device)));
        match player.journal.author_late(&player.signer, at) {
            Ok(_) => {}
            Err(AppendError::NotMember | AppendError::Role { .. }) if self.members_changed => {}
            Err(error) => panic!("{device} cannot say what is late: {error}"),
        }
    }

    fn pull(&self, to: char, from: char) {
        let (to, from) = (self.player(to), self.player(from));
        let frontier = to.journal.frontier();
        let lacking = from.journal.lacking(&frontier, usize::MAX);
        let mut got = to.journal.receive(&lacking, now(0)).unwrap();
        while !got.wants.is_empty() {
            let wanted: Vec<Arc<[u8]>> =
                got.wants.iter().filter_map(|id| from.journal.entry(id)).collect();
            if wanted.is_empty() {
                break;
            }
            got = to.journal.receive(&wanted, now(0)).unwrap();
        }
        assert_eq!(got.refused, vec![]);
        from.journal.acknowledged(to.signer.device(), &to.journal.frontier());
        let at = |player: &Player| self.wall_ms.saturating_add_signed(player.skew_ms);
        to.journal.observe_clock(from.signer.device(), at(from), now(at(to)));
    }

    /// Everybody who is connected gets everything.
    pub fn flow(&mut self) {
        let all: Vec<char> = self.players.keys().copied().collect();
        for _ in 0..2 {
            for to in &all {
                for from in self.mates(*to) {
                    if from != *to {
                        self.pull(*to, from);
                    }
                }
            }
        }
        self.look_at_names();
    }

    /// Devices that hold the same show the same, and a copy has one name as long as it lives.
    fn look_at_names(&mut self) {
        let all: Vec<char> = self.players.keys().copied().collect();
        for device in all {
            let first = self.mates(device)[0];
            let hash = self.player(first).journal.tree_hash();
            assert_eq!(self.player(device).journal.tree_hash(), hash, "{device} and {first}");
            for (_, node) in self.nodes(device) {
                if node.standing != Standing::Copy {
                    continue;
                }
                let was = self.copies.entry(node.version).or_insert_with(|| node.shown.clone());
                let short = was.as_str().len().min(node.shown.as_str().len());
                let long = was.as_str().len().max(node.shown.as_str().len());
                let gave_way = long - short == 26;
                assert!(*was == node.shown || gave_way, "{was} was renamed to {}", node.shown);
            }
        }
    }

    // Disks

    pub fn back_up(&mut self, device: char) {
        let player = self.player_mut(device);
        player.backup = Some(player.storage.copy());
    }

    pub fn restore(&mut self, device: char) {
        let player = self.player_mut(device);
        player.storage = player.backup.as_ref().expect("a backup").copy();
        self.restart(device);
        self.forked = true;
    }

    /// The device starts again: what it had seen of clocks is forgotten.
    pub fn restart(&mut self, device: char) {
        let player = self.player_mut(device);
        let storage = Arc::new(player.storage.clone());
        player.journal =
            Journal::open_with(storage, State::Memory(MemKv::default()), None).unwrap();
        player.loaded.clear();
    }

    /// The disk of `device` is copied, and both live, the copy alone.
    pub fn clone_disk(&mut self, device: char, twin: char) {
        let (storage, signer) =
            (self.player(device).storage.copy(), self.player(device).signer.clone());
        self.enter(twin, signer, 0);
        self.cut(&[twin]);
        let player = self.player_mut(twin);
        player.storage = storage;
        self.restart(twin);
        self.forked = true;
    }

    // Looking

    /// Everything a device shows, with the paths as scenarios write them.
    pub fn nodes(&self, device: char) -> Vec<(String, ViewNode)> {
        let journal = &self.player(device).journal;
        nodes_of(|dir| list(journal, dir), &|author| user_of(journal, author))
    }

    /// Where a directory stands, as scenarios write it.
    pub fn path_of(&self, device: char, dir: DirId) -> String {
        if dir == DirId::ROOT {
            return String::new();
        }
        let here =
            |node: &ViewNode| matches!(node.kind, ViewKind::Dir { dir: at, .. } if at == dir);
        let all = self.nodes(device);
        let found = all.into_iter().find(|(_, node)| here(node));
        found.map_or_else(|| "(removed)/".to_owned(), |(path, _)| format!("{path}/"))
    }

    pub fn what(&self, node: &ViewNode) -> String {
        match &node.kind {
            ViewKind::File(file) => {
                let text = self.text(&file.content);
                let mode = match file.mode {
                    0o644 => String::new(),
                    mode => format!(" {mode:o}"),
                };
                let told = |(name, value): (&Vec<u8>, &Vec<u8>)| {
                    format!(" {}={}", String::from_utf8_lossy(name), String::from_utf8_lossy(value))
                };
                format!("{text}{mode}{}", file.xattrs.iter().map(told).collect::<String>())
            }
            ViewKind::Symlink(link) => format!("-> {}", String::from_utf8_lossy(&link.target)),
            ViewKind::Dir { attr, .. } if attr.mode == 0o755 => String::new(),
            ViewKind::Dir { attr, .. } => format!("{:o}", attr.mode),
        }
    }

    pub fn text(&self, content: &Content) -> String {
        self.texts.get(content).cloned().unwrap_or_else(|| "?".to_owned())
    }

    /// The directory and the name that `path` leads to, as `device` sees it.
    fn see(&self, device: char, path: &str, made: &BTreeMap<String, DirId>) -> Seen {
        let mut dir = DirId::ROOT;
        let (parents, last) = path.rsplit_once('/').map_or(("", path), |(dirs, last)| (dirs, last));
        let mut walked = String::new();
        for part in parents.split('/').filter(|part| !part.is_empty()) {
            walked = if walked.is_empty() { part.to_owned() } else { format!("{walked}/{part}") };
            dir = match (made.get(&walked), self.find(device, dir, part)) {
                (Some(dir), _) => *dir,
                (None, Some(ViewNode { kind: ViewKind::Dir { dir, .. }, .. })) => dir,
                (None, found) => panic!("{device} sees no directory {walked}: {found:?}"),
            };
        }
        let node = self.find(device, dir, last);
        let name = match &node {
            Some(node) => node.shown.clone(),
            None => name(last),
        };
        Seen { dir, name, node }
    }

    fn find(&self, device: char, dir: DirId, token: &str) -> Option<ViewNode> {
        let journal = &self.player(device).journal;
        let Some((of, by)) = token.split_once('!') else {
            let official = |node: &ViewNode| node.standing == Standing::Official;
            let told = |node: &ViewNode| official(node) && masked(node.shown.as_str()) == token;
            return match token.contains('#') {
                true => list(journal, dir).into_iter().find(told),
                false => journal.lookup(dir, &name(token)).unwrap(),
            };
        };
        let by = by.trim_start_matches('!');
        let (user, text) = by.split_once('=').map_or((by, None), |(user, text)| (user, Some(text)));
        let of = name(of);
        let mut found = list(journal, dir).into_iter().filter(|node| {
            let wanted = text.is_none_or(|text| self.what(node) == text);
            node.standing == Standing::Copy
                && node.register.name.folded() == of.folded()
                && user_of(journal, node.author) == user
                && wanted
        });
        let first = found.next();
        assert!(first.is_some(), "{device} sees no copy {token}");
        assert!(found.next().is_none(), "{device} sees several copies {token}");
        first
    }

    // Working

    fn below(&self, device: char, seen: &Seen) -> Below {
        let journal = &self.player(device).journal;
        let Some(node) = &seen.node else {
            let bases = journal.gone_heads(seen.dir, &seen.name).unwrap();
            return Below { name: seen.name.clone(), bases, resolve: None, live: false };
        };
        if node.standing == Standing::Copy && !is_dir(node) {
            let (name, drop) = (node.register.name.clone(), node.merged.clone());
            let resolve = Some(Op::Resolve { dir: seen.dir, name, drop });
            let bases = journal.gone_heads(seen.dir, &node.shown).unwrap();
            return Below { name: node.shown.clone(), bases, resolve, live: false };
        }
        let mut bases: BTreeSet<VersionId> = node.merged.iter().copied().collect();
        bases.extend(journal.gone_heads(seen.dir, &node.register.name).unwrap());
        let (name, bases) = (node.register.name.clone(), bases.into_iter().collect());
        Below { name, bases, resolve: None, live: true }
    }

    fn put(&self, dir: DirId, below: Below, value: Value) -> Vec<Op> {
        let put = put_in(dir, below.name.as_str(), value, &below.bases);
        below.resolve.into_iter().chain([put]).collect()
    }

    fn vanish(&self, dir: DirId, below: Below, moved_to: Option<(DirId, EntryName)>) -> Vec<Op> {
        let Below { name, bases, resolve, live } = below;
        let gone = Op::Put { dir, name, value: Value::Gone { moved_to }, bases };
        resolve.into_iter().chain(live.then_some(gone)).collect()
    }

    fn keep(&mut self, text: &str) {
        self.texts.insert(content(text), text.to_owned());
    }

    /// The operations of one action, given what `device` sees.
    fn ops(
        &mut self,
        device: char,
        words: &[String],
        made: &mut BTreeMap<String, DirId>,
    ) -> Vec<Op> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let see = |stage: &Self, path: &str| stage.see(device, path, made);
        match words.as_slice() {
            ["write", path, text] => {
                self.keep(text);
                let seen = see(self, path);
                assert!(!seen.node.as_ref().is_some_and(is_dir), "{path} is a directory");
                let Value::File(fresh) = file(text) else { unreachable!("it is a file") };
                let value = match seen.node.as_ref().map(|node| &node.kind) {
                    Some(ViewKind::File(old)) => {
                        FileValue { content: fresh.content, ..old.clone() }
                    }
                    _ => fresh,
                };
                let below = self.below(device, &seen);
                self.put(seen.dir, below, Value::File(value))
            }
            ["load", path] => {
                let seen = see(self, path);
                let below = self.below(device, &seen);
                self.player_mut(device).loaded.insert((*path).to_owned(), (seen.dir, below));
                Vec::new()
            }
            ["save", path, text] => {
                self.keep(text);
                let (dir, below) = self.player(device).loaded.get(*path).expect("loaded").clone();
                self.put(dir, below, file(text))
            }
            // A file of a copy's own name, by somebody who does not know of the copy.
            ["squat", path, text] => {
                self.keep(text);
                let seen = see(self, path);
                vec![put_in(seen.dir, seen.name.as_str(), file(text), &[])]
            }
            // What lost at this name is dealt with.
            ["settle", path] => {
                let seen = see(self, path);
                let all = self.player(device).journal.conflicts().unwrap();
                let here = Register::new(seen.dir, seen.name.clone());
                let found = all.into_iter().find(|conflict| conflict.register == here);
                let skipped = found.expect("something that lost").skipped;
                let drop = skipped.into_iter().map(|skipped| skipped.version).collect();
                vec![Op::Resolve { dir: seen.dir, name: seen.name, drop }]
            }
            ["link", path, target] => {
                let seen = see(self, path);
                let below = self.below(device, &seen);
                self.put(seen.dir, below, link(target))
            }
            ["chmod", path, mode] => {
                let seen = see(self, path);
                let mode = u32::from_str_radix(mode, 8).unwrap();
                let node = seen.node.clone().unwrap_or_else(|| panic!("no {path}"));
                if let ViewKind::Dir { dir, attr } = node.kind {
                    return vec![Op::SetDir { dir, attr: DirAttr { mode, ..attr } }];
                }
                let Value::File(value) = value_of(&node) else { panic!("{path} is no file") };
                let below = self.below(device, &seen);
                self.put(seen.dir, below, Value::File(FileValue { mode, ..value }))
            }
            ["attr", path, name, value] => {
                let seen = see(self, path);
                let node = seen.node.clone().unwrap_or_else(|| panic!("no {path}"));
                let Value::File(mut file) = value_of(&node) else { panic!("{path} is no file") };
                match *value {
                    "-" => file.xattrs.remove(name.as_bytes()),
                    value => {
                        file.xattrs.insert(name.as_bytes().to_vec(), value.as_bytes().to_vec())
                    }
                };
                let below = self.below(device, &seen);
                self.put(seen.dir, below, Value::File(file))
            }
            ["rm", path] => {
                let seen = see(self, path);
                let node = seen.node.as_ref().unwrap_or_else(|| panic!("no {path}"));
                assert!(!is_dir(node), "{path} is a directory");
                let below = self.below(device, &seen);
                self.vanish(seen.dir, below, None)
            }
            ["mkdir", path] => {
                let seen = see(self, path);
                assert!(seen.node.is_none(), "{device} has {path} already");
                let Below { name, bases, .. } = self.below(device, &seen);
                let journal = &self.player(device).journal;
                let dir = journal.new_dir_id(seen.dir, &name, &bases).unwrap();
                made.insert((*path).to_owned(), dir);
                let attr = DirAttr::default();
                vec![Op::MkDir { parent: seen.dir, name, dir, attr, bases }]
            }
            [verb @ ("rmdir" | "rmdir!"), path] => {
                let seen = see(self, path);
                let node = seen.node.as_ref().unwrap_or_else(|| panic!("no {path}"));
                let ViewKind::Dir { dir, .. } = node.kind else { panic!("{path} is no directory") };
                let full = !list(&self.player(device).journal, dir).is_empty();
                assert!(*verb == "rmdir!" || !full, "{path} is not empty at {device}");
                let Below { name, bases, .. } = self.below(device, &seen);
                vec![gone_in(seen.dir, name.as_str(), &bases)]
            }
            ["cp", from, to] => {
                let node = see(self, from).node.unwrap_or_else(|| panic!("no {from}"));
                let target = see(self, to);
                let below = self.below(device, &target);
                self.put(target.dir, below, value_of(&node))
            }
            ["mv", from, to] => self.move_ops(device, &see(self, from), see(self, to)),
            ["xchg", a, b] => {
                let (one, other) = (see(self, a), see(self, b));
                let (Some(stands), Some(comes)) = (&one.node, &other.node) else {
                    panic!("{device} cannot exchange {a} and {b}")
                };
                let a = self.side(device, &one, comes);
                vec![Op::Exchange { a, b: self.side(device, &other, stands) }]
            }
            // The old version aside under a name of its own, the new one in its place.
            ["dance", path, text, backup] => {
                self.keep(text);
                let (seen, aside) = (see(self, path), see(self, backup));
                let old = seen.node.as_ref().map(value_of).unwrap_or_else(|| panic!("no {path}"));
                let (below, under) = (self.below(device, &seen), self.below(device, &aside));
                let mut ops = self.put(seen.dir, below, file(text));
                ops.extend(self.put(aside.dir, under, old));
                ops
            }
            ["checkout", path] => {
                let seen = see(self, path);
                vec![Op::Checkout { dir: seen.dir, name: seen.name }]
            }
            [verb @ ("giveback" | "break"), path] => {
                let seen = see(self, path);
                let (dir, name) = (seen.dir, seen.name);
                let found = self.player(device).journal.checkout(&Register::new(dir, name.clone()));
                let found = found.unwrap().map(|found| found.id);
                let mut was = self.checkouts.iter().filter(|((_, of), _)| of == path);
                let checkout = found.or_else(|| was.next().map(|(_, id)| *id));
                let checkout = checkout.unwrap_or_else(|| panic!("nobody ever had {path}"));
                match *verb {
                    "break" => vec![Op::Break { dir, name, checkout }],
                    _ => vec![Op::GiveBack { dir, name, checkout }],
                }
            }
            ["locks", "enforced"] => vec![Op::Locks(LockPolicy::Enforced)],
            ["locks", "advisory"] => vec![Op::Locks(LockPolicy::Advisory)],
            ["snap", name] => vec![Op::Snapshot { name: (*name).to_owned() }],
            _ => vec![self.member_op(device, &words)],
        }
    }

    fn move_ops(&self, device: char, from: &Seen, to: Seen) -> Vec<Op> {
        let node = from.node.as_ref().unwrap_or_else(|| panic!("no {}", from.name));
        let journal = &self.player(device).journal;
        if let ViewKind::Dir { dir, .. } = node.kind {
            let mut bases = journal.gone_heads(to.dir, &to.name).unwrap();
            if let Some(ViewNode { kind: ViewKind::Dir { dir, .. }, .. }) = &to.node {
                assert!(list(journal, *dir).is_empty(), "{} is not empty", to.name);
                bases.push(journal.dir(*dir).unwrap().unwrap().placement);
            } else {
                assert!(to.node.is_none(), "{} is there", to.name);
            }
            let placement = journal.dir(dir).unwrap().unwrap().placement;
            return vec![Op::Move { dir, from: placement, to: (to.dir, to.name), bases }];
        }
        let (left, below) = (self.below(device, from), self.below(device, &to));
        let moved_to = Some((to.dir, below.name.clone()));
        let mut ops = self.vanish(from.dir, left, moved_to);
        ops.extend(self.put(to.dir, below, value_of(node)));
        ops
    }

    fn side(&self, device: char, here: &Seen, comes: &ViewNode) -> ExchangeSide {
        let comes = match comes.kind {
            ViewKind::Dir { dir, .. } => {
                let placed = self.player(device).journal.dir(dir).unwrap().unwrap();
                Arrival::Dir { dir, from: placed.placement }
            }
            _ => Arrival::Value(value_of(comes)),
        };
        let Below { name, bases, .. } = self.below(device, here);
        ExchangeSide { dir: here.dir, name, comes, bases }
    }

    fn member_op(&mut self, device: char, words: &[&str]) -> Op {
        self.members_changed = true;
        let of =
            |stage: &Self, name: &str| stage.player(name.chars().next().unwrap()).signer.device();
        let role = |text: &str| match text {
            "owner" => Role::Owner,
            "editor" => Role::Editor,
            "reader" => Role::Reader,
            _ => panic!("no role {text}"),
        };
        let tips = || -> Vec<EntryId> {
            let tips = self.player(device).journal.frontier().tips;
            tips.into_iter().map(|tip| tip.entry).collect()
        };
        match words {
            ["remove", whom] => Op::Remove { device: of(self, whom), frontier: tips() },
            // A removal that counts nothing the device ever did.
            ["disown", whom] => Op::Remove { device: of(self, whom), frontier: vec![] },
            ["role", whom, new] => {
                Op::SetRole { device: of(self, whom), role: role(new), frontier: tips() }
            }
            ["call", whom, name] => {
                let what = journal::op::Named::Device(of(self, whom));
                Op::Rename { what, name: (*name).to_owned() }
            }
            ["invite", ticket, new, uses] => {
                let secret = *blake3::hash(ticket.as_bytes()).as_bytes();
                self.invites.insert((*ticket).to_owned(), secret);
                Op::Invite {
                    key: Signer::invite_public(&secret),
                    role: role(new),
                    expires: self.clock(device) + 1_000_000,
                    uses: uses.parse().unwrap(),
                }
            }
            ["admit", whom, ticket] => {
                let char = whom.chars().next().unwrap();
                let signer = signer_of(char);
                if !self.players.contains_key(&char) {
                    self.enter(char, signer.clone(), 0);
                    self.cut(&[char]);
                }
                let secret = self.invites[*ticket];
                let drive = self.genesis.id().into();
                let proof = journal::member::admit_proof(&secret, &drive, &signer.device());
                Op::Admit {
                    invite: Signer::invite_public(&secret),
                    device: signer.device(),
                    name: (*whom).to_owned(),
                    proof,
                }
            }
            _ => panic!("nobody knows how to {words:?}"),
        }
    }

    /// One entry of `device`; the actions are taken on what it saw before.
    pub fn act(&mut self, device: char, actions: &[Vec<String>]) -> Result<(), AppendError> {
        let (mut ops, mut made) = (Vec::new(), BTreeMap::new());
        for words in actions {
            ops.extend(self.ops(device, words, &mut made));
        }
        self.wait(STEP_MS);
        if ops.is_empty() {
            return Ok(());
        }
        let (player, at) = (self.player(device), now(self.clock(device)));
        let done = player.journal.author(&player.signer, ops, at)?;
        for (words, version) in actions.iter().zip(&done.versions) {
            if let ["checkout", path] = words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
                self.checkouts.insert((device, path.to_owned()), *version);
            }
        }
        self.flow();
        Ok(())
    }

    /// Takes back in what `device` did that is not shown because it was removed.
    pub fn take_back(&mut self, by: char, whom: char) -> Result<(), AppendError> {
        self.members_changed = true;
        self.wait(STEP_MS);
        let (player, at) = (self.player(by), now(self.clock(by)));
        let ops = player.journal.take_back(self.player(whom).signer.device()).unwrap();
        assert!(!ops.is_empty(), "{whom} has nothing to be taken back");
        let done = player.journal.author(&player.signer, ops, at);
        self.flow();
        done.map(drop)
    }

    /// Everything that `device` holds.
    pub fn entries(&self, device: char) -> Vec<VerifiedEntry> {
        let all = self.player(device).journal.lacking(&Frontier::default(), usize::MAX);
        all.into_iter().map(|bytes| VerifiedEntry::verify(bytes).unwrap()).collect()
    }
}

pub fn user_of(journal: &Journal, author: journal::DeviceId) -> String {
    // Copies carry the name in the Admit, which in these tests is the device's letter.
    let letter = ('A'..='Z').find(|letter| signer_of(*letter).device() == author);
    letter.map_or_else(|| journal.member(author).unwrap().name, |letter| letter.to_string())
}

/// All nodes from the root down, with the paths as scenarios write them.
pub fn nodes_of(
    look: impl Fn(DirId) -> Vec<ViewNode>,
    user: &dyn Fn(journal::DeviceId) -> String,
) -> Vec<(String, ViewNode)> {
    let (mut out, mut queue) = (Vec::new(), vec![(String::new(), DirId::ROOT)]);
    while let Some((at, dir)) = queue.pop() {
        for node in look(dir) {
            let shown = node.shown.as_str();
            let token = match node.standing {
                Standing::Official => masked(shown),
                Standing::Copy => {
                    copy_token(node.register.name.as_str(), &user(node.author), shown)
                }
            };
            let path = format!("{at}{token}");
            if let ViewKind::Dir { dir, .. } = node.kind {
                queue.push((format!("{path}/"), dir));
            }
            out.push((path, node));
        }
    }
    out
}

/// The registers in which files were written, and where.
pub fn written(entries: &[VerifiedEntry]) -> BTreeMap<VersionId, Register> {
    let mut out = BTreeMap::new();
    for entry in entries {
        for (index, op) in entry.entry().ops.iter().enumerate() {
            if let Op::Put { dir, name, value: Value::File(_), .. } = op {
                let id = VersionId::new(entry.id(), index as u32);
                out.insert(id, Register::new(*dir, name.clone()));
            }
        }
    }
    out
}
