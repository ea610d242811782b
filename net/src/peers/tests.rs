//! The address book's waits and bounds, its file, and penalties.

use super::*;

fn device(n: u8) -> DeviceId {
    DeviceId::from_bytes([n; 32])
}

fn addr(n: u16) -> Addr {
    Addr::new(format!("/ip4/10.0.0.1/tcp/{n}").parse().unwrap()).unwrap()
}

fn quic(n: u16) -> Addr {
    Addr::new(format!("/ip4/10.0.0.1/udp/{n}/quic-v1").parse().unwrap()).unwrap()
}

fn book(members: &[u8]) -> AddressBook {
    let mut book = AddressBook::default();
    let members: Vec<DeviceId> = members.iter().map(|n| device(*n)).collect();
    book.set_members(&members, &device(0), 0);
    book
}

#[test]
fn only_members_are_remembered_and_forgotten_with_their_membership() {
    let mut book = book(&[0, 1]);
    assert!(book.learn(&device(1), &[addr(1)], Source::Told, 0));
    assert!(!book.learn(&device(2), &[addr(2)], Source::Given, 0));
    assert!(!book.learn(&device(0), &[addr(2)], Source::Given, 0), "oneself is not dialled");
    book.set_members(&[device(0), device(2)], &device(0), 0);
    assert!(book.addrs(&device(1)).is_empty());
}

#[test]
fn failed_dials_wait_twice_as_long_each_time_up_to_a_bound() {
    let mut book = book(&[1]);
    book.learn(&device(1), &[addr(1)], Source::Told, 0);
    let (mut now, mut waits) = (0, Vec::new());
    for _ in 0..10 {
        assert_eq!(book.take_due(now, 10).len(), 1);
        assert!(book.take_due(now, 10).is_empty(), "one dial at a time");
        book.failed(&device(1), now, 1.0);
        let next = book.next_due_ms().unwrap();
        assert!(book.take_due(next - 1, 10).is_empty());
        waits.push((next - now) / 1000);
        now = next;
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]);
}

#[test]
fn jitter_stays_within_half_of_the_wait() {
    for failures in [0, 3, 40, u32::MAX] {
        assert_eq!(wait_ms(failures, 0.0) * 2, wait_ms(failures, 1.0));
        assert!(wait_ms(failures, f64::NAN) <= limits::RECONNECT_MAX.as_millis() as u64);
    }
}

#[test]
fn a_new_address_and_discovery_end_the_wait() {
    let mut book = book(&[1]);
    book.learn(&device(1), &[addr(1)], Source::Told, 0);
    book.take_due(0, 10);
    book.failed(&device(1), 0, 1.0);
    assert!(!book.learn(&device(1), &[addr(1)], Source::Told, 10), "nothing new");
    assert!(book.take_due(10, 10).is_empty());
    assert!(book.learn(&device(1), &[addr(2)], Source::Told, 10));
    assert_eq!(book.take_due(10, 10).len(), 1);
    book.failed(&device(1), 10, 1.0);
    book.hurry(&device(1), 20);
    assert_eq!(book.take_due(20, 10).len(), 1);
}

#[test]
fn a_connection_that_does_not_last_counts_as_a_failure_one_that_lasts_does_not() {
    let mut book = book(&[1]);
    book.learn(&device(1), &[addr(1)], Source::Told, 0);
    let mut now = 0;
    for wait in [1000, 2000, 4000] {
        book.take_due(now, 1);
        book.connected(&device(1), None, now);
        book.disconnected(&device(1), now + 10, 1.0);
        assert_eq!(book.next_due_ms(), Some(now + 10 + wait));
        now = now + 10 + wait;
    }
    book.take_due(now, 1);
    book.connected(&device(1), None, now);
    now += limits::SETTLED_TIME.as_millis() as u64;
    book.disconnected(&device(1), now, 1.0);
    assert_eq!(book.next_due_ms(), Some(now + 1000));
}

#[test]
fn told_addresses_never_push_out_those_that_worked_and_tcp_comes_first() {
    let mut book = book(&[1]);
    book.connected(&device(1), Some(&quic(1)), 0);
    book.connected(&device(1), Some(&addr(1)), 0);
    let flood: Vec<Addr> = (100..400).map(addr).collect();
    book.learn(&device(1), &flood, Source::Told, 0);
    let known = book.addrs(&device(1));
    assert_eq!(known.len(), limits::ADDRS_PER_DEVICE_MAX);
    assert_eq!(known.first(), Some(&addr(1)));
    assert_eq!(known.last(), Some(&quic(1)));
}

#[test]
fn addresses_of_the_machine_itself_are_told_only_within_it() {
    let mut book = book(&[1, 2]);
    let local = Addr::new("/ip4/127.0.0.1/tcp/9".parse().unwrap()).unwrap();
    book.connected(&device(1), Some(&local), 0);
    assert!(book.to_share(&device(2), LinkKind::Network).is_empty());
    assert_eq!(book.to_share(&device(2), LinkKind::Local), [(device(1), vec![local])]);
    assert!(book.to_share(&device(1), LinkKind::Local).is_empty(), "it knows its own");
    book.learn(&device(2), &[addr(5)], Source::Told, 0);
    assert!(book.to_share(&device(1), LinkKind::Network).is_empty(), "hearsay is not passed on");
}

#[test]
fn the_file_comes_back_and_damage_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("book");
    assert!(AddressBook::load(&path).unwrap().addrs(&device(1)).is_empty());
    let mut book = book(&[1, 2]);
    book.connected(&device(1), Some(&addr(1)), 0);
    book.learn(&device(2), &[addr(2), quic(2)], Source::Told, 0);
    assert!(book.is_dirty());
    book.save(&path).unwrap();
    assert!(!book.is_dirty());
    let loaded = AddressBook::load(&path).unwrap();
    for n in [1, 2] {
        assert_eq!(loaded.addrs(&device(n)), book.addrs(&device(n)));
    }
    let bytes = std::fs::read(&path).unwrap();
    for len in 0..bytes.len() {
        std::fs::write(&path, &bytes[..len]).unwrap();
        assert!(matches!(AddressBook::load(&path), Err(BookError::Corrupt { .. })), "{len}");
    }
}

#[test]
fn three_strikes_exclude_longer_each_time_and_good_behaviour_wipes_the_slate() {
    let mut scores = Scores::default();
    let mut exclusions = Vec::new();
    for n in 0..9 {
        match scores.strike(&device(1), n) {
            Verdict::Noted => assert_ne!(n % 3, 2),
            Verdict::Exclude(time) => exclusions.push(time / limits::BAN_MIN.as_secs() as u32),
        }
    }
    assert_eq!(exclusions.iter().map(Duration::as_secs).collect::<Vec<_>>(), [1, 2, 4]);
    let later = limits::BAN_MAX.as_millis() as u64 + 100;
    for _ in 0..2 {
        assert_eq!(scores.strike(&device(1), later), Verdict::Noted);
    }
    assert_eq!(scores.strike(&device(1), later), Verdict::Exclude(limits::BAN_MIN));
}

#[test]
fn only_so_many_offenders_are_remembered() {
    let mut scores = Scores::default();
    for n in 0..limits::BANNED_PEERS_MAX as u64 * 2 {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&n.to_le_bytes());
        scores.strike(&DeviceId::from_bytes(bytes), n);
    }
    assert!(scores.peers.len() <= limits::BANNED_PEERS_MAX);
}
