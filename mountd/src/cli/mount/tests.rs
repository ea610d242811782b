//! Tests of which drive a mount means, and of the places that are refused.

use journal::id::{DeviceId, DriveId};

use super::*;
use crate::paths::Store;
use crate::report::Code;

struct World {
    _dir: tempfile::TempDir,
    root: PathBuf,
    data: DataDir,
}

fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let data = DataDir::locate(Some(&root.join("data"))).unwrap();
    data.prepare().unwrap();
    World { _dir: dir, root, data }
}

impl World {
    fn make(&self, n: u8, name: &str, mount: &str) -> Store {
        let mut store = Store::begin(&self.data).unwrap();
        let device = (DeviceId::from_bytes([9; 32]), "anna");
        let drive = (DriveId::from_bytes([n; 32]), name);
        store.complete(Description::new(drive, device, &[0; 32], &self.root.join(mount))).unwrap();
        store
    }

    fn which(&self, mount: &str, name: Option<&str>) -> Result<Option<String>, Code> {
        which_drive(&self.data, &self.root.join(mount), name)
            .map(|d| d.map(|d| d.drive.id[..2].to_owned()))
            .map_err(|f| f.code)
    }
}

#[test]
fn the_drive_that_is_meant_is_found() {
    let world = world();
    drop(world.make(1, "film", "a"));
    drop(world.make(2, "twin", "b"));
    drop(world.make(3, "twin", "c"));
    let one = Ok(Some("01".to_owned()));
    assert_eq!(world.which("a", None), one, "its own place");
    assert_eq!(world.which("a", Some("film")), one);
    assert_eq!(world.which("new", Some("film")), one, "another place, by name");
    assert_eq!(world.which("new", Some(&"03".repeat(32))), Ok(Some("03".to_owned())), "by id");
    assert_eq!(world.which("new", None), Ok(None), "a new drive");
    assert_eq!(world.which("new", Some("other")), Ok(None), "a new drive with a name");
    assert_eq!(world.which("a", Some("twin")), Err(Code::OtherDrive));
    assert_eq!(world.which("new", Some("twin")), Err(Code::Usage), "which of the two?");
}

#[test]
fn a_place_whose_drive_is_lost_makes_no_new_drive() {
    let world = world();
    let store = world.make(1, "film", "a");
    let dir = store.dir().to_owned();
    drop(store);
    std::fs::remove_dir_all(dir).unwrap();
    assert_eq!(world.which("a", None), Err(Code::StoreGone));
    assert_eq!(world.which("a", Some("film")), Err(Code::StoreGone));
    assert_eq!(world.which("a", Some("fresh")), Err(Code::StoreGone));
}

#[test]
fn a_store_held_by_a_process_that_does_not_talk_is_in_use() {
    let world = world();
    let store = world.make(1, "film", "a");
    let drive = store.description().unwrap().clone();
    let check = |ms| {
        refuse_running(&world.data, &drive, &drive.mount, Duration::from_millis(ms))
            .map_err(|f| f.code)
    };
    assert_eq!(check(1), Err(Code::StoreInUse));
    // Or it is only ending: it is waited for.
    let waiting = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| check(20_000));
        drop(store);
        waiting.join().unwrap()
    });
    assert_eq!(waiting, Ok(()));
    assert_eq!(check(0), Ok(()));
}

#[test]
fn places_that_cannot_be_are_refused() {
    let world = world();
    let code = |p: &Path| place(&world.data, p).map(|_| ()).map_err(|f| f.code);
    assert_eq!(code(Path::new("/")), Err(Code::BadPath));
    assert_eq!(code(&world.root), Err(Code::Nested), "over the data directory");
    assert_eq!(code(&world.root.join("data/mnt")), Err(Code::Nested), "inside it");
    assert_eq!(code(&world.root.join("no/where")), Err(Code::MountParentMissing));
    let odd = std::os::unix::ffi::OsStrExt::from_bytes(b"\xff\xfe");
    assert_eq!(code(&world.root.join::<&std::ffi::OsStr>(odd)), Err(Code::BadPath));
}

#[test]
fn names_that_cannot_be_are_refused() {
    for good in ["film", "Ä ö", "a.b", &"x".repeat(64)] {
        assert_eq!(check_name(good, "--drive"), Ok(()));
    }
    for bad in ["", "a/b", "a\nb", "\x1b[2J", &"x".repeat(65)] {
        assert_eq!(check_name(bad, "--drive").unwrap_err().code, Code::Usage, "{bad:?}");
    }
    assert!(check_name(&login_name(), "--user").is_ok());
}

#[test]
fn addresses_given_before_are_remembered_and_new_ones_replace_them() {
    let world = world();
    let store = world.make(1, "film", "a");
    let mut known = store.description().unwrap().clone();
    known.listen = vec!["/ip4/10.0.0.1/tcp/1".into()];
    known.peers = vec!["/ip4/10.0.0.2/tcp/1".into()];
    let given = |words: &[&str]| {
        use clap::Parser;
        #[derive(Parser)]
        struct Words {
            #[command(flatten)]
            options: MountOptions,
        }
        let words = Words::try_parse_from([&["mount"], words].concat()).unwrap();
        words.options.to_options(Some(&known))
    };
    assert_eq!(given(&[]).listen, known.listen);
    let changed = given(&["--listen", "/ip4/10.0.0.9/tcp/9", "--no-mdns"]);
    assert_eq!(changed.listen, ["/ip4/10.0.0.9/tcp/9"]);
    assert_eq!((changed.peers, changed.mdns), (known.peers.clone(), false));
}
