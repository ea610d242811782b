//! Names of conflict copies, derived alike on every device.
//!
//! Leaves out: which heads are copies ([`crate::register`]).
//!
//! Invariants:
//! - a copy is `stem (conflict USER hhhhhh).ext`, at most [`NAME_LEN_MAX`] bytes, cut at character
//!   borders, endings such as `.tar.gz` whole;
//! - `hhhhhh` comes from the version id; where that name is taken by a real file or by another copy
//!   the digits are many more, so that a copy never hides behind another name nor another behind it.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use crate::canary::{self, Canary};
use crate::error::StateError;
use crate::fold::Fold;
use crate::id::{DeviceId, DirId, VersionId};
use crate::kv::{KvRead, prefix_end};
use crate::member::Members;
use crate::name::{EntryName, NAME_LEN_MAX, Register};
use crate::records::{
    RegKey, Shown, ShownKind, decode, key, load_register, load_version, store, table,
    version_at_end,
};

/// Digits of a copy's name where nothing is in its way.
const DIGITS_SHORT: usize = 6;
/// Digits of a copy's name where something is.
const DIGITS_LONG: usize = 32;
/// Longest ending kept, bytes, dot included.
const ENDING_LEN_MAX: usize = 17;
/// Most bytes of a user's name kept in a copy's name.
const USER_LEN_MAX: usize = 64;
/// What every copy's name has in it.
pub(crate) const COPY_MARK: &str = " (conflict ";
/// Endings that stand behind `.tar`.
const COMPRESSIONS: [&str; 9] = ["gz", "bz2", "xz", "zst", "lz4", "lzma", "lz", "br", "Z"];

fn cut(text: &str, len_max: usize) -> &str {
    let mut at = text.len().min(len_max);
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    text.get(..at).unwrap_or_default()
}

/// Splits a name before its ending.
fn split_ending(name: &str) -> (&str, &str) {
    let whole = (name, "");
    let Some(dot) = name.rfind('.').filter(|dot| *dot > 0) else { return whole };
    let (mut stem, mut ending) = name.split_at(dot);
    if COMPRESSIONS.contains(&ending.trim_start_matches('.'))
        && let Some(tar) = stem.len().checked_sub(4).filter(|at| *at > 0)
        && stem.get(tar..).is_some_and(|s| s.eq_ignore_ascii_case(".tar"))
    {
        (stem, ending) = name.split_at(tar);
    }
    let odd = ending.len() < 2 || ending.len() > ENDING_LEN_MAX || ending.contains(' ');
    if odd { whole } else { (stem, ending) }
}

/// The name of the copy `version` of `name`, with `digits` hex digits.
pub(crate) fn copy_name(
    name: &EntryName,
    user: &str,
    version: &VersionId,
    digits: usize,
) -> EntryName {
    let hash = blake3::hash(&version.to_bytes()).to_hex();
    let hex = cut(hash.as_str(), digits);
    let (stem, ending) = split_ending(name.as_str());
    let tag = format!("{COPY_MARK}{} {hex})", cut(user, USER_LEN_MAX));
    let room = NAME_LEN_MAX.saturating_sub(tag.len() + ending.len());
    let text = format!("{}{tag}{ending}", cut(stem, room));
    // Both parts were names, so what they join to is one; were it not, the plain name still is.
    EntryName::new(&text).unwrap_or_else(|_| name.clone())
}

/// Of which name `copy` is a copy's, as far as a name that was not cut tells.
pub(crate) fn copied_name(copy: &EntryName) -> Option<EntryName> {
    let (stem, tag) = copy.as_str().rsplit_once(COPY_MARK)?;
    let (_, ending) = tag.rsplit_once(')')?;
    EntryName::new(&format!("{stem}{ending}")).ok()
}

/// Whether a copy `version` of `name` could be shown as `copy`.
pub(crate) fn is_copy_name(
    copy: &EntryName,
    name: &EntryName,
    user: &str,
    version: &VersionId,
) -> bool {
    let named = |digits| copy_name(name, user, version, digits);
    [DIGITS_SHORT, DIGITS_LONG].iter().any(|digits| named(*digits).folded() == copy.folded())
}

/// A copy that would like a short name.
struct Claim {
    version: VersionId,
    name: EntryName,
    user: String,
}

/// The names of copies that claim one short name, in the order of their versions: the first has it,
/// unless it is taken.
fn claimed<'c>(mut taken: bool, claims: impl Iterator<Item = &'c Claim>) -> Vec<EntryName> {
    let name = |claim: &Claim| {
        let digits = if taken { DIGITS_LONG } else { DIGITS_SHORT };
        taken = true;
        copy_name(&claim.name, &claim.user, &claim.version, digits)
    };
    claims.map(name).collect()
}

/// Gives all copies of the directory `dir` their names; `taken` says which names real files have.
pub(crate) fn settled(
    kv: &dyn KvRead,
    members: &Members,
    dir: DirId,
    copies: Vec<Shown>,
    taken: impl Fn(&RegKey) -> bool,
) -> Result<Vec<Shown>, StateError> {
    let mut by_short: BTreeMap<RegKey, BTreeMap<VersionId, (Claim, Shown)>> = BTreeMap::new();
    for copy in copies {
        let Some(rec) = load_version(kv, &copy.version)? else { continue };
        let Some(Register { name, .. }) = rec.register else { continue };
        let user = user_of(members, &rec.author).to_owned();
        let short = RegKey::new(&dir, &copy_name(&name, &user, &copy.version, DIGITS_SHORT));
        let claim = Claim { version: copy.version, name, user };
        by_short.entry(short).or_default().insert(copy.version, (claim, copy));
    }
    let mut out = Vec::new();
    for (short, claims) in by_short {
        let names = claimed(taken(&short), claims.values().map(|(claim, _)| claim));
        let copies = claims.into_values().map(|(_, copy)| copy);
        out.extend(copies.zip(names).map(|(copy, shown)| Shown { shown, ..copy }));
    }
    Ok(out)
}

fn user_of<'m>(members: &'m Members, device: &DeviceId) -> &'m str {
    if canary::is(Canary::CopyNamedAfterFirst) {
        return members.list.first().map_or("unknown", |m| m.user.as_str());
    }
    members.user(device)
}

impl Fold<'_> {
    /// The user a copy of `version` is named after, and the name as it was spelled.
    fn copy_parts(&self, version: &VersionId) -> Result<Option<(EntryName, String)>, StateError> {
        let Some(rec) = load_version(self.kv, version)? else { return Ok(None) };
        let user = user_of(&self.members, &rec.author);
        Ok(rec.register.map(|register| (register.name, user.to_owned())))
    }

    /// Gives up the names of copies that are no more and claims names for new ones.
    pub(crate) fn rename_copies(
        &mut self,
        register: &Register,
        old: &[Shown],
        new: &mut [Shown],
    ) -> Result<(), StateError> {
        for copy in old.iter().filter(|o| !new.iter().any(|n| n.version == o.version)) {
            self.kv
                .delete(&key(table::COPY, &[RegKey::new(&register.dir, &copy.shown).as_slice()]))?;
            if let Some((name, user)) = self.copy_parts(&copy.version)? {
                let short = copy_name(&name, &user, &copy.version, DIGITS_SHORT);
                let short = RegKey::new(&register.dir, &short);
                let claim = key(table::CLAIM, &[short.as_slice(), &copy.version.to_bytes()]);
                self.kv.delete(&claim)?;
                self.names.insert(short);
            }
        }
        for copy in new {
            if let Some(was) = old.iter().find(|o| o.version == copy.version) {
                copy.shown.clone_from(&was.shown);
                continue;
            }
            let Some((name, user)) = self.copy_parts(&copy.version)? else { continue };
            copy.shown = copy_name(&name, &user, &copy.version, DIGITS_SHORT);
            let short = RegKey::new(&register.dir, &copy.shown);
            let claim = key(table::CLAIM, &[short.as_slice(), &copy.version.to_bytes()]);
            store(self.kv, &claim, register)?;
            self.names.insert(short);
        }
        Ok(())
    }

    /// Settles who has the short name `short`: a real file, else the least version that claims it.
    pub(crate) fn settle_names(&mut self, short: &RegKey) -> Result<(), StateError> {
        let mut claims = Vec::new();
        let from = key(table::CLAIM, &[short.as_slice()]);
        self.kv.scan(&from, &prefix_end(&from), &mut |k, value| {
            claims.push((version_at_end(k)?, decode::<Register>(k, value)?));
            Ok(ControlFlow::Continue(()))
        })?;
        if claims.is_empty() {
            return Ok(());
        }
        let taken = load_register(self.kv, short)?.is_some_and(|rec| rec.official.is_some());
        let mut found = Vec::new();
        for (version, register) in claims {
            if let Some((name, user)) = self.copy_parts(&version)? {
                found.push((register, Claim { version, name, user }));
            }
        }
        let names = claimed(taken, found.iter().map(|(_, claim)| claim));
        for ((register, claim), shown) in found.iter().zip(names) {
            self.show_copy(register, &claim.version, shown)?;
        }
        Ok(())
    }

    fn show_copy(
        &mut self,
        register: &Register,
        version: &VersionId,
        shown: EntryName,
    ) -> Result<(), StateError> {
        let reg = RegKey::of(register);
        let Some(mut rec) = load_register(self.kv, &reg)? else { return Ok(()) };
        let Some(copy) = rec.copies.iter_mut().find(|c| c.version == *version) else {
            return Ok(());
        };
        let old = RegKey::new(&register.dir, &copy.shown);
        let new = RegKey::new(&register.dir, &shown);
        if old != new {
            let at = key(table::COPY, &[old.as_slice()]);
            // The old name may by now be another copy's.
            if let Some(bytes) = self.kv.get(&at)?
                && decode::<(Register, VersionId)>(&at, &bytes)?.1 == *version
            {
                self.kv.delete(&at)?;
            }
        }
        store(self.kv, &key(table::COPY, &[new.as_slice()]), &(register, version))?;
        if copy.shown != shown {
            copy.shown = shown;
            let changed = matches!(copy.kind, ShownKind::Dir(_));
            store(self.kv, &key(table::REGISTER, &[reg.as_slice()]), &rec)?;
            if changed {
                self.changed.insert(reg, register.clone());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::EntryId;

    fn copy(name: &str, user: &str) -> String {
        let version = VersionId::new(EntryId::from_bytes([7; 32]), 0);
        let copy = copy_name(&EntryName::new(name).unwrap(), user, &version, DIGITS_SHORT);
        let hash = blake3::hash(&version.to_bytes()).to_hex();
        copy.as_str().replace(&hash.as_str()[..DIGITS_SHORT], "hhhhhh")
    }

    #[test]
    fn a_copy_keeps_its_ending() {
        assert_eq!(copy("scene.blend", "Ann"), "scene (conflict Ann hhhhhh).blend");
        assert_eq!(copy("a.tar.gz", "Ann"), "a (conflict Ann hhhhhh).tar.gz");
        assert_eq!(copy("a.b.gz", "Ann"), "a.b (conflict Ann hhhhhh).gz");
        assert_eq!(copy("Makefile", "Ann"), "Makefile (conflict Ann hhhhhh)");
        assert_eq!(copy(".bashrc", "Ann"), ".bashrc (conflict Ann hhhhhh)");
        assert_eq!(copy(".tar.gz", "Ann"), ".tar (conflict Ann hhhhhh).gz");
        assert_eq!(copy("Mr. Bean", "Ann"), "Mr. Bean (conflict Ann hhhhhh)");
        assert_eq!(copy("end.", "Ann"), "end. (conflict Ann hhhhhh)");
    }

    #[test]
    fn a_copy_never_is_longer_than_a_name_may_be() {
        for (name, user) in [
            ("é".repeat(127), "ü".repeat(60)),
            (format!("{}.blend", "x".repeat(249)), "u".repeat(128)),
            (format!(".{}", "y".repeat(254)), "u".repeat(128)),
        ] {
            let copy = copy(&name, &user);
            assert!(copy.len() <= NAME_LEN_MAX, "{} bytes", copy.len());
            assert!(copy.contains("(conflict "), "{copy}");
        }
    }
}
