//! Tests of the key store, with a keyring that does as it is told.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::keyring::VaultError;
use super::*;
use crate::report::Code;

#[derive(Default)]
struct FakeVault {
    items: RefCell<BTreeMap<String, Seed>>,
    /// Set: it does not answer.
    broken: Cell<bool>,
    /// Set: it takes, and does not give back.
    forgetful: Cell<bool>,
}

impl Vault for FakeVault {
    fn get(&self, item: &str) -> Result<Option<Seed>, VaultError> {
        if self.broken.get() {
            return Err(VaultError::Silent);
        }
        Ok(self.items.borrow().get(item).cloned())
    }

    fn set(&self, item: &str, seed: &Seed) -> Result<(), VaultError> {
        if self.broken.get() {
            return Err(VaultError::Silent);
        }
        if !self.forgetful.get() {
            self.items.borrow_mut().insert(item.to_owned(), seed.clone());
        }
        Ok(())
    }
}

struct Knows(&'static str);

impl prompt::Ask for Knows {
    fn ask(&self, _: prompt::Purpose) -> Result<Zeroizing<String>, Failure> {
        Ok(Zeroizing::new(self.0.to_owned()))
    }
}

/// A test that gets here asked for a passphrase nobody should need.
struct Nobody;

impl prompt::Ask for Nobody {
    fn ask(&self, _: prompt::Purpose) -> Result<Zeroizing<String>, Failure> {
        Err(Failure::passphrase_needed())
    }
}

struct World {
    dir: tempfile::TempDir,
    vault: FakeVault,
}

fn world() -> World {
    World { dir: tempfile::tempdir().unwrap(), vault: FakeVault::default() }
}

impl World {
    fn open_as(
        &self,
        asker: &dyn prompt::Ask,
        choice: Choice,
        drives: Drives,
    ) -> Result<Opened, Failure> {
        let cost = sealed::Cost { memory_kib: 16, passes: 1, lanes: 1 };
        let root = self.dir.path().to_owned();
        KeyStore { root, vault: &self.vault, asker, cost }.existing_or_new(choice, drives)
    }

    fn open(&self, choice: Choice, drives: Drives) -> Result<Opened, Failure> {
        self.open_as(&Nobody, choice, drives)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

#[test]
fn auto_uses_the_keyring_when_it_answers_and_finds_the_seed_again() {
    let world = world();
    let first = world.open(Choice::Auto, Drives::None).unwrap();
    assert_eq!((first.place, first.notice.as_deref()), (Place::Keyring, None));
    assert!(!world.path("seed").exists(), "no copy lies about");
    let again = world.open(Choice::Auto, Drives::Some).unwrap();
    assert_eq!(again.seed, first.seed);
}

#[test]
fn auto_falls_back_to_a_file_of_the_owner_and_says_so_once() {
    let world = world();
    world.vault.broken.set(true);
    let first = world.open(Choice::Auto, Drives::None).unwrap();
    assert_eq!(first.place, Place::File);
    assert!(first.notice.unwrap().contains("seed"));
    assert_eq!(fs::metadata(world.path("seed")).unwrap().permissions().mode() & 0o777, 0o600);
    // A keyring that answers later does not move the seed, and the choice is no news any more.
    world.vault.broken.set(false);
    let again = world.open(Choice::Auto, Drives::Some).unwrap();
    assert_eq!((again.seed, again.place, again.notice), (first.seed, Place::File, None));
}

#[test]
fn a_keyring_that_forgets_is_not_trusted() {
    let world = world();
    world.vault.forgetful.set(true);
    let failure = world.open(Choice::Keyring, Drives::None).unwrap_err();
    assert_eq!(failure.code, Code::KeyStoreUnavailable);
    assert_eq!(world.open(Choice::Auto, Drives::None).unwrap().place, Place::File);
}

#[test]
fn a_keyring_that_was_asked_for_by_name_is_not_replaced_by_a_file() {
    let world = world();
    world.vault.broken.set(true);
    let failure = world.open(Choice::Keyring, Drives::None).unwrap_err();
    assert_eq!(failure.code, Code::KeyStoreUnavailable);
    assert_eq!(fs::read_dir(world.dir.path()).unwrap().count(), 0);
}

#[test]
fn a_locked_or_emptied_keyring_never_leads_to_a_new_seed() {
    let world = world();
    world.open(Choice::Auto, Drives::None).unwrap();
    for drives in [Drives::None, Drives::Some] {
        world.vault.broken.set(true);
        let failure = world.open(Choice::Auto, drives).unwrap_err();
        assert_eq!(failure.code, Code::KeyStoreUnavailable);
        world.vault.broken.set(false);
    }
    world.vault.items.borrow_mut().clear();
    for drives in [Drives::None, Drives::Some] {
        assert_eq!(world.open(Choice::Auto, drives).unwrap_err().code, Code::KeyMissing);
    }
    assert!(world.vault.items.borrow().is_empty(), "nothing was made");
}

#[test]
fn drives_without_any_key_are_an_error_and_never_a_new_identity() {
    let world = world();
    for choice in [Choice::Auto, Choice::Keyring, Choice::File, Choice::Passphrase] {
        let failure = world.open_as(&Knows("p"), choice, Drives::Some).unwrap_err();
        assert_eq!(failure.code, Code::KeyMissing);
    }
    assert_eq!(fs::read_dir(world.dir.path()).unwrap().count(), 0);
    assert!(world.vault.items.borrow().is_empty());
}

#[test]
fn a_lost_seed_file_is_an_error_and_a_lost_record_is_not() {
    let world = world();
    let first = world.open(Choice::File, Drives::None).unwrap();
    let saved = fs::read(world.path("seed")).unwrap();
    fs::remove_file(world.path("seed")).unwrap();
    for drives in [Drives::None, Drives::Some] {
        assert_eq!(world.open(Choice::Auto, drives).unwrap_err().code, Code::KeyMissing);
    }
    atomic::write(&world.path("seed"), &saved).unwrap();
    fs::remove_file(world.path("keystore.json")).unwrap();
    for drives in [Drives::Some, Drives::None] {
        assert_eq!(world.open(Choice::Auto, drives).unwrap().seed, first.seed);
    }
}

#[test]
fn another_seed_in_the_place_of_ours_is_noticed() {
    let world = world();
    world.open(Choice::File, Drives::None).unwrap();
    plain::save(&world.path("seed"), &Seed::from_bytes([1; SEED_LEN])).unwrap();
    assert_eq!(world.open(Choice::Auto, Drives::Some).unwrap_err().code, Code::KeyWrong);
}

#[test]
fn a_seed_file_that_others_can_read_is_refused() {
    let world = world();
    world.open(Choice::File, Drives::None).unwrap();
    for mode in [0o640, 0o604, 0o620] {
        fs::set_permissions(world.path("seed"), fs::Permissions::from_mode(mode)).unwrap();
        let failure = world.open(Choice::Auto, Drives::Some).unwrap_err();
        assert_eq!(failure.code, Code::Unreadable, "{mode:o}");
        assert!(failure.remedy.contains("chmod 600"));
    }
}

#[test]
fn a_damaged_seed_file_is_an_error() {
    let world = world();
    world.open(Choice::File, Drives::None).unwrap();
    for bad in ["", "abcd", "not hex at all", &"0g".repeat(32), &"00".repeat(33)] {
        atomic::write(&world.path("seed"), bad.as_bytes()).unwrap();
        assert_eq!(world.open(Choice::Auto, Drives::Some).unwrap_err().code, Code::Corrupt);
    }
}

#[test]
fn the_passphrase_is_needed_each_time_and_must_be_right() {
    let world = world();
    let first = world.open_as(&Knows("tea"), Choice::Passphrase, Drives::None).unwrap();
    assert_eq!(first.place, Place::Passphrase);
    let mode = fs::metadata(world.path("seed.enc")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let again = world.open_as(&Knows("tea"), Choice::Auto, Drives::Some).unwrap();
    assert_eq!(again.seed, first.seed);
    let wrong = world.open_as(&Knows("coffee"), Choice::Auto, Drives::Some).unwrap_err();
    assert_eq!(wrong.code, Code::PassphraseWrong);
    let nobody = world.open(Choice::Auto, Drives::Some).unwrap_err();
    assert_eq!(nobody.code, Code::PassphraseNeeded);
    // The record is lost: the passphrase still opens the file.
    fs::remove_file(world.path("keystore.json")).unwrap();
    let adopted = world.open_as(&Knows("tea"), Choice::Auto, Drives::Some).unwrap();
    assert_eq!((adopted.seed, adopted.place), (first.seed, Place::Passphrase));
}

#[test]
fn another_key_store_than_the_one_in_use_is_refused() {
    let world = world();
    world.open(Choice::File, Drives::None).unwrap();
    for choice in [Choice::Keyring, Choice::Passphrase] {
        let failure = world.open_as(&Knows("p"), choice, Drives::Some).unwrap_err();
        assert_eq!(failure.code, Code::KeyStoreOther);
    }
    assert!(world.vault.items.borrow().is_empty() && !world.path("seed.enc").exists());
}

#[test]
fn a_newer_record_is_refused() {
    let world = world();
    world.open(Choice::File, Drives::None).unwrap();
    let path = world.path("keystore.json");
    let newer = fs::read_to_string(&path).unwrap().replace("\"format\": 1", "\"format\": 3");
    fs::write(&path, newer).unwrap();
    assert_eq!(world.open(Choice::Auto, Drives::Some).unwrap_err().code, Code::TooNew);
}

#[test]
fn a_seed_does_not_show_itself() {
    let seed = Seed::from_bytes([0xab; SEED_LEN]);
    assert_eq!(format!("{seed:?}"), "Seed(..)");
    assert_ne!(seed.check(), Seed::from_bytes([0xac; SEED_LEN]).check());
}
