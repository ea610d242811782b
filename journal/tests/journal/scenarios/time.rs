//! The tree as it was: at a time, in a snapshot; and logical time under wrong clocks.

use journal::signed::VerifiedEntry;
use journal::{DirId, Now, Odd, date};

use crate::stage::{START_MS, Stage};

const TABLE: &[super::Scenario<'_>] = &[
    (
        "every save is there at its time",
        "
        mark never
        A: write x v0
        mark first
        A: write x v1; write y y
        mark second
        B: rm x
        @never nothing
        @first x v0
        @second x v1
        @second y y
        = y y",
    ),
    (
        "a snapshot keeps what its author had",
        "
        A: write x v0
        B: snap cut
        A: write x v1
        A: rm x
        @cut x v0
        = nothing",
    ),
    (
        "a snapshot taken offline has its author's work and not the team's",
        "
        A: write x v0
        cut B
        B: write x bob
        B: snap mine
        A: write x ann
        together
        @mine x bob
        = x ann
        = x!B bob",
    ),
    (
        "late work counts from when it was said",
        "
        A: write x v0
        cut B
        B: write x bob
        mark alone
        A: write x ann
        mark team
        wait 1h
        together
        mark after
        @alone x v0
        @team x ann
        @after x ann
        @after x!B bob
        = x ann
        = x!B bob",
    ),
    (
        "a copy that was dealt with stood then",
        "
        cut B
        B: write x bob
        A: write x ann
        together
        mark both
        C: mv x!B x
        @both x ann
        @both x!B bob
        = x bob",
    ),
    (
        "a copy that had to take a long name did so then",
        "
        cut B
        B: write x bob
        A: write x ann
        together
        C: squat x!B real
        mark both
        C: rm \"x (conflict B #)\"
        @both x ann
        @both x!!B bob
        @both \"x (conflict B #)\" real
        = x ann
        = x!B bob",
    ),
    (
        "a removed directory stood then, and where it stood",
        "
        A: mkdir d
        A: write d/f f
        mark one
        A: mv d e
        mark two
        A: rm e/f
        A: rmdir e
        @one d/
        @one d/f f
        @two e/
        @two e/f f
        = nothing",
    ),
    (
        "a move that lost stood where its author took the snapshot",
        "
        A: mkdir d
        cut B
        B: mv d mine
        B: snap b
        A: mv d theirs
        A: snap a
        together
        @a theirs/
        @b mine/
        = theirs/
        = skipped d -> mine by B",
    ),
    (
        "a removal that was void later had been one",
        "
        A: mkdir d
        cut B
        B: write d/f f
        A: rmdir d
        mark gone
        together
        @gone nothing
        = d/
        = d/f f",
    ),
    (
        "what a removed member wrote stood until the removal",
        "
        A: write x v0
        B: write x bob
        mark before
        A: disown B
        mark since
        A: take-back B
        @before x bob
        @since x v0
        = x bob",
    ),
    (
        "one whose clock is ahead, in company, writes with the team's time",
        "
        clock B +10y
        A: write y y
        B: write x bob
        mark now
        A: rm x
        @now x bob
        @now y y
        = y y",
    ),
    (
        "one whose clock is ahead and who has heard nobody dates its work ahead, and so what follows",
        "
        A: write x v0
        cut B
        restart B
        clock B +10y
        B: write x bob
        together
        A: write y y
        mark now
        @now x v0
        = x bob
        = y y",
    ),
    (
        "a team whose time ran ahead goes on in order",
        "
        cut B
        restart B
        clock B +10y
        B: write x bob
        together
        A: write x ann
        C: write x cat
        cut B
        A: write x a2
        B: write x b2
        together
        = x a2
        = x!B b2",
    ),
    (
        "a year's pause is no hindrance",
        "
        A: write x v0
        mark old
        wait 400d
        A: write x v1
        @old x v0
        = x v1",
    ),
];

#[test]
fn time() {
    super::all(TABLE);
}

/// Clocks of A, B, C, D against the true time, milliseconds; who writes after all have met; and how far logical time is
/// from the true time then.
const CLOCKS: &[(&str, [i64; 4], char, i64)] = &[
    ("all right", [0, 0, 0, 0], 'A', 0),
    ("one's own clock is years ahead", [YEARS, 0, 0, 0], 'A', 0),
    ("another's clock is years ahead", [0, YEARS, 0, 0], 'A', 0),
    ("one's own clock is ahead, one liar says so, too", [YEARS, YEARS, 0, 0], 'A', 0),
    ("half of them are ahead: the lower middle is believed", [0, 0, YEARS, YEARS], 'C', 0),
    ("most are ahead and oneself is right", [0, YEARS, YEARS, YEARS], 'A', 0),
    ("most are ahead and oneself, too", [YEARS, YEARS, YEARS, 0], 'A', YEARS),
    ("small differences: the median bounds who is ahead", [900, 500, 100, -300], 'A', 100),
    ("small differences: who is below the median keeps its own", [900, 500, 100, -300], 'D', -300),
];

const YEARS: i64 = 10 * 365 * 86_400_000;

/// The logical time of an entry that `writer` makes when the clocks are off by so much, minus the true time.
fn written_at(skews: [i64; 4], writer: char) -> i64 {
    let mut stage = Stage::new();
    // Later than every clock's difference, so that none reads below its beginning.
    stage.wait(u64::try_from(YEARS).unwrap());
    for (device, skew) in ['A', 'B', 'C', 'D'].into_iter().zip(skews) {
        stage.set_clock(device, skew);
    }
    stage.flow();
    let player = stage.player(writer);
    let own =
        Now { wall_ms: stage.wall_ms.saturating_add_signed(skews[(writer as u8 - b'A') as usize]) };
    let op = crate::forge::put("x", "x", &[]);
    let done = player.journal.author(&player.signer, vec![op], own).unwrap();
    let entry = VerifiedEntry::verify(done.bytes).unwrap();
    assert_eq!(entry.entry().saved_at_ms, own.wall_ms, "what is displayed is the author's own");
    entry.entry().hlc.ms() as i64 - stage.wall_ms as i64
}

#[test]
fn logical_time_follows_the_members_median_and_no_single_clock() {
    for (name, skews, writer, expected) in CLOCKS {
        assert_eq!(written_at(*skews, *writer), *expected, "{name}");
    }
}

#[test]
fn a_clock_that_jumps_back_does_not_take_time_back() {
    let mut stage = Stage::new();
    let far = START_MS + 3_600_000;
    stage.wait(far);
    let act = |stage: &mut Stage, text: &str| {
        stage.act('A', &[vec!["write".into(), "x".into(), text.into()]]).unwrap();
    };
    act(&mut stage, "one");
    stage.set_clock('A', -i64::try_from(far).unwrap());
    act(&mut stage, "two");
    act(&mut stage, "three");
    let entries = stage.entries('A');
    let hlcs: Vec<_> = entries.iter().map(|entry| entry.entry().hlc).collect();
    assert!(hlcs.is_sorted_by(|a, b| a < b), "{hlcs:?}");
    let last = &entries.last().unwrap().entry();
    assert!(
        last.saved_at_ms < far && last.hlc.ms() >= far,
        "order goes on, the date is shown as it was"
    );
}

/// Clocks, who is cut off and starts again with its own; and whose date is odd afterwards, seen by A an hour later.
#[test]
fn an_odd_date_has_its_reason() {
    let hour = 3_600_000;
    let mut stage = Stage::new();
    stage.wait(2 * u64::try_from(YEARS).unwrap());
    let act = |stage: &mut Stage, device: char, text: &str| {
        stage.act(device, &[vec!["write".into(), text.into(), text.into()]]).unwrap();
    };
    // In company a wrong clock touches the date that is displayed, and nothing else.
    stage.set_clock('B', YEARS);
    stage.set_clock('C', -YEARS);
    stage.flow();
    for device in ['A', 'B', 'C', 'D'] {
        act(&mut stage, device, &device.to_string());
    }
    let odd = |stage: &Stage| -> Vec<(char, Odd)> {
        let journal = &stage.player('A').journal;
        let own = Now { wall_ms: stage.wall_ms };
        let letter =
            |device| ('A'..='D').find(|d| crate::forge::signer_of(*d).device() == device).unwrap();
        let mut all: Vec<_> = journal.odd_clocks(own).unwrap();
        all.sort_by_key(|clock| letter(clock.device));
        all.iter().map(|clock| (letter(clock.device), clock.odd)).collect()
    };
    let years = |by_ms: u64| by_ms.abs_diff(YEARS as u64) < 60_000;
    let found = odd(&stage);
    assert!(matches!(found[0], ('B', Odd::Ahead { by_ms }) if years(by_ms)), "{found:?}");
    assert!(matches!(found[1], ('C', Odd::Behind { by_ms }) if years(by_ms)), "{found:?}");
    assert_eq!(found.len(), 2);
    // Alone and started again, it dates its work ahead; who goes on from there is not to blame.
    stage.set_clock('C', 0);
    stage.cut(&['B']);
    stage.restart('B');
    act(&mut stage, 'B', "alone");
    stage.join(&['A', 'B']);
    for device in ['A', 'C', 'D'] {
        act(&mut stage, device, "after");
    }
    let found = odd(&stage);
    assert!(matches!(found[..], [('B', Odd::Future { by_ms })] if years(by_ms)), "{found:?}");
    // When time has come so far it is not ahead any more; who had followed it dated its work behind that.
    stage.wait(u64::try_from(YEARS).unwrap() + hour);
    let found = odd(&stage);
    assert!(found.iter().all(|(_, odd)| matches!(odd, Odd::Behind { .. })), "{found:?}");
}

#[test]
fn what_was_written_long_before_it_reached_anybody_says_so() {
    let mut stage = Stage::new();
    stage.cut(&['B']);
    let write = |stage: &mut Stage, device: char, name: &str| {
        stage.act(device, &[vec!["write".into(), name.into(), name.into()]]).unwrap();
    };
    write(&mut stage, 'B', "train");
    stage.wait(7 * 86_400_000);
    write(&mut stage, 'A', "studio");
    stage.join(&['A', 'B']);
    let journal = &stage.player('A').journal;
    let why = |name: &str| {
        let version = &journal.history(DirId::ROOT, &crate::forge::name(name)).unwrap()[0];
        date::odd(version.saved_at_ms, &version.order, stage.wall_ms)
    };
    let Some(Odd::Late { published_ms }) = why("train") else { panic!("{:?}", why("train")) };
    assert!(published_ms.abs_diff(stage.wall_ms) < 60_000);
    assert_eq!(why("studio"), None);
    assert_eq!(journal.odd_clocks(Now { wall_ms: stage.wall_ms }).unwrap(), vec![]);
}
