//! Disks that come back from a backup or live twice: both branches count, the device is flagged, it does not go on for
//! ever.

const TABLE: &[super::Scenario<'_>] = &[
    (
        "a restored backup that hears the others first has no fork",
        "
        A: write x v0
        backup B
        B: write x bob
        cut B
        restore B
        join A B
        B: write y more
        = x bob
        = y more
        = member B editor",
    ),
    (
        "a restored backup that works before it hears anybody: both branches stay",
        "
        A: write x v0
        backup B
        B: write y before
        cut B
        restore B
        B: write z after
        together
        = x v0
        = y before
        = z after
        = member B editor forked",
    ),
    (
        "both branches over one version are a conflict of the device with itself",
        "
        A: write x v0
        backup B
        B: write x before
        cut B
        restore B
        B: write x after
        together
        = x before
        = x!B after
        = member B editor forked",
    ),
    (
        "after a fork the device goes on from one end, having seen the other",
        "
        A: write x v0
        backup B
        B: write y before
        cut B
        restore B
        B: write z after
        together
        B: write y once
        B: write y twice
        B: write z thrice
        = x v0
        = y twice
        = z thrice
        = member B editor forked",
    ),
    (
        "what a restored device removes that it had made meanwhile",
        "
        A: write x v0; write y v0
        backup B
        B: rm x
        cut B
        restore B
        B: write x after
        together
        = x after
        = y v0
        = member B editor forked",
    ),
    (
        "a disk that lives twice",
        "
        A: write x v0
        clone B E
        E: write e eve
        B: write b bob
        together
        = b bob
        = e eve
        = x v0
        = member B editor forked",
    ),
    (
        "a disk that lives twice, both over one file",
        "
        A: write x v0
        clone B E
        E: write x eve
        B: write x bob
        together
        = x bob
        = x!B eve
        = member B editor forked",
    ),
    (
        "both go on after they have met",
        "
        A: write x v0
        clone B E
        E: write e eve
        B: write b bob
        together
        E: write e eve2
        B: write b bob2
        = b bob2
        = e eve2
        = x v0",
    ),
    (
        "two branches move one directory",
        "
        A: mkdir d
        clone B E
        E: mv d e
        B: mv d b
        together
        = b/
        = skipped d -> e by B
        = member B editor forked",
    ),
    (
        "a forked device is removed, both branches with it, and taken back",
        "
        clone B E
        E: write e eve
        B: write b bob
        together
        A: disown B
        = nothing
        = member B editor removed forked
        A: take-back B
        = b bob
        = e eve",
    ),
    (
        "a fork of one who makes a directory on both sides",
        "
        clone B E
        E: mkdir d
        E: write d/e e
        B: mkdir d
        B: write d/b b
        together
        = d/
        = d/b b
        = d/e e",
    ),
    (
        "called late by both branches, it counts from the first time",
        "
        A: write x v0
        cut B D
        B: write x bob
        backup B
        join D B
        cut B D
        A: write x ann
        restore B
        join A B
        A= x ann
        A= x!B bob
        together
        = x bob
        = x!A ann
        = member B editor forked",
    ),
    (
        "a disk that lives three times, and forks again afterwards: one proof for all",
        "
        A: write x v0
        clone B E
        clone B F
        E: write e eve
        F: write f fay
        B: write b bob
        together
        clone B G
        G: write g gus
        B: write b bob2
        together
        = b bob2
        = e eve
        = f fay
        = g gus
        = x v0
        = member B editor forked",
    ),
];

#[test]
fn forks() {
    super::all(TABLE);
}
