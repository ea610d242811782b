//! Members: roles, removals with their frontiers, what is quarantined and taken back, invitations.

const TABLE: &[super::Scenario<'_>] = &[
    (
        "a reader writes nothing",
        "
        A: write x v0
        A: role B reader
        B! write x no
        B! mkdir d
        B! remove C
        B! invite t editor 1
        = x v0
        = member B reader",
    ),
    (
        "a reader's work that it wrote before it knew has no effect, is kept and flagged",
        "
        A: write x v0
        cut B
        A: role B reader
        B: write x bob
        together
        = x v0
        = member B reader ignored
        = history x (bob) v0",
    ),
    (
        "what a reader wrote before it knew is taken back, and it stays a reader",
        "
        A: write x v0
        cut B
        A: role B reader
        B: write x bob; mkdir d
        B: write d/f f
        together
        = x v0
        A: take-back B
        B! write x no
        = x bob
        = d/
        = d/f f
        = member B reader",
    ),
    (
        "it is taken back, too, once it is an editor again and has written more",
        "
        B: write a before
        cut B
        A: role B reader
        B: write x aside
        together
        A: role B editor
        B: write y after
        = a before
        = y after
        A: take-back B
        B: write z on
        = a before
        = x aside
        = y after
        = z on
        = member B editor",
    ),
    (
        "a reader that was removed then: what it wrote as an editor is taken back",
        "
        B: write a before
        cut B
        A: role B reader
        B: write x aside
        together
        A: remove B
        = a before
        A: take-back B
        = a before
        = x aside
        = member B reader removed",
    ),
    (
        "what comes later of a reader is kept aside as before",
        "
        apart A C | B D
        A: role B reader
        B: write one 1
        cut B
        join A D
        A: take-back B
        = one 1
        B: write two 2
        together
        = one 1
        = member B reader ignored
        A: take-back B
        = one 1
        = two 2
        = member B reader",
    ),
    (
        "what a reader wrote before it knew, over what others wrote meanwhile, is a copy",
        "
        A: write x v0
        cut B
        B: write x bob
        A: role B reader
        A: write x ann
        together
        = x ann
        A: take-back B
        = x ann
        = x!B bob",
    ),
    (
        "what a reader wrote as an editor stays",
        "
        B: write x bob
        A: role B reader
        = x bob
        = member B reader",
    ),
    (
        "made an editor again, it writes",
        "
        A: role B reader
        B! write x no
        A: role B editor
        B: write x bob
        = x bob
        = member B editor",
    ),
    (
        "removed: what the removal had seen stays, what it had not is kept aside",
        "
        B: write before b
        cut B
        A: remove B
        B: write after b
        together
        B! write more b
        = before b
        = member B editor removed",
    ),
    (
        "what was kept aside is taken back, and the device stays removed",
        "
        B: write before b
        cut B
        A: remove B
        B: write after b
        together
        A: take-back B
        B! write more b
        = after b
        = before b
        = member B editor removed",
    ),
    (
        "an owner's work that a later owner takes back makes it no owner again",
        "
        A: role B owner; role C owner
        cut B
        A: remove B
        B: write x bob
        together
        C: take-back B
        B! write more b
        = x bob
        = member B editor removed
        = member C owner",
    ),
    (
        "what comes later of it is kept aside as before",
        "
        apart A C | B D
        A: remove B
        B: write one 1
        cut B
        join A D
        = nothing
        A: take-back B
        = one 1
        B: write two 2
        together
        = one 1
        = member B editor removed
        A: take-back B
        = one 1
        = two 2",
    ),
    (
        "a reader's work is not taken back with it",
        "
        A: role B reader
        cut B
        A: remove B
        B: call B bee
        together
        A: take-back B
        = nothing
        = member B reader removed",
    ),
    (
        "taken back by one, removed again by another",
        "
        A: role D owner
        apart A C D | B
        A: remove B
        B: write x bob
        together
        cut D
        A: take-back B
        D: disown B
        together
        = nothing
        = history x (bob)",
    ),
    (
        "a removed device's save is undone, and what it replaced is back",
        "
        A: write x v0
        B: write x bob
        A: disown B
        = x v0
        = history x (bob) v0
        = member B editor removed",
    ),
    (
        "accepted work on top of what is kept aside replaces what that had replaced",
        "
        A: write x v0
        apart A D | B C
        B: write x bob
        C: write x cat
        A: remove B
        together
        = x cat
        = history x cat (bob) v0",
    ),
    (
        "a directory made by a removed device, with others' work inside",
        "
        apart A D | B C
        B: mkdir d
        C: write d/f f
        A: remove B
        together
        = d/
        = d/f f",
    ),
    (
        "a move by a removed device is undone",
        "
        A: mkdir d
        A: write d/f f
        B: mv d e
        = e/
        = e/f f
        A: disown B
        = d/
        = d/f f",
    ),
    (
        "a copy that a removed device had dealt with is back",
        "
        A: write x v0
        cut C
        C: write x cat
        A: write x ann
        together
        B: rm x!C
        = x ann
        A: disown B
        = x ann
        = x!C cat",
    ),
    (
        "its copies carry its name on",
        "
        A: write x v0
        cut B
        B: write x bob
        A: write x ann
        together
        A: remove B
        = x ann
        = x!B bob
        A: call B bee
        = x ann
        = x!B bob",
    ),
    (
        "an owner is not locked out by one who came after it",
        "
        A: role B owner
        B: remove A
        B: role A reader
        A: write x ann
        = x ann
        = member A owner
        = member B owner",
    ),
    (
        "of two owners who remove each other the first one stays",
        "
        A: role B owner
        cut B
        A: remove B
        B: remove A
        B: disown C
        together
        A: write x ann
        C: write y cat
        = x ann
        = y cat
        = member A owner
        = member B owner removed
        = member C editor",
    ),
    (
        "later owners can remove each other, and the later one loses",
        "
        A: role B owner; role C owner
        cut C
        B: remove C
        C: remove B
        together
        = member A owner
        = member B owner
        = member C owner removed",
    ),
    (
        "an owner steps back by itself",
        "
        A: role B owner
        A: role A editor
        A! remove B
        A: write x ann
        = x ann
        = member A editor
        = member B owner",
    ),
    (
        "a device leaves by itself",
        "
        B: write x bob
        B: remove B
        B! write x no
        = x bob
        = member B editor removed",
    ),
    (
        "a reader may leave, too",
        "
        A: role B reader
        B: remove B
        = member B reader removed",
    ),
    (
        "an invitation used once too often is flagged",
        "
        A: invite t editor 1
        cut B
        B: admit E t
        A: admit F t
        together
        E: write x eve
        F: write y fay
        = x eve
        = y fay
        = member E editor
        = member F editor overused",
    ),
    (
        "whoever came in too many is removed",
        "
        A: invite t editor 1
        cut B
        B: admit E t
        A: admit F t
        together
        A: disown F
        = member F editor removed overused
        = member E editor",
    ),
    (
        "an invitation of one who was removed admits nobody",
        "
        A: role B owner
        B: invite t editor 5
        A: remove B
        A: admit E t
        = member E none",
    ),
    (
        "admitted by one who did not know that the invitation was void",
        "
        A: role B owner
        B: invite t editor 5
        cut C
        A: remove B
        C: admit E t
        together
        = member E none",
    ),
    (
        "admitted by a device that is removed meanwhile, and taken back",
        "
        A: invite t editor 5
        cut B
        A: remove B
        B: admit E t
        together
        = member E none
        A: take-back B
        = member E editor",
    ),
    (
        "who was removed comes back under another key",
        "
        B: write x bob
        A: remove B
        A: invite t editor 1
        A: admit E t
        together
        E: write x eve
        = x eve
        = member B editor removed
        = member E editor",
    ),
    (
        "a role for nobody",
        "
        A: role D reader
        cut D
        D! write x no
        together
        = nothing
        = member D reader",
    ),
];

#[test]
fn roles() {
    super::all(TABLE);
}
