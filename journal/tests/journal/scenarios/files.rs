//! Files: saves, creations, removals and renames that do not know of each other.

const TABLE: &[super::Scenario<'_>] = &[
    (
        "of two saves the first to be published is official",
        "
        A: write x v0
        cut B
        B: write x bob
        A: write x ann
        together
        = x ann
        = x!B bob
        = history x bob ann v0",
    ),
    (
        "who comes back first is official, although the other saved first",
        "
        A: write x v0
        cut B C
        C: write x cat
        B: write x bob
        together A B C
        = x bob
        = x!C cat",
    ),
    (
        "equal saves are one",
        "
        A: write x v0
        cut B
        A: write x same
        B: write x same
        together
        = x same
        A: write x next
        = x next",
    ),
    (
        "equal creations are one, and one that was edited since does not come back",
        "
        cut B
        A: write x same
        B: write x same
        A: write x next
        together
        = x next",
    ),
    (
        "an equal creation that comes late to an edited file is silent",
        "
        cut B
        B: write x same
        A: write x same
        A: write x next
        A: write x more
        together
        = x more
        = history x same more next same",
    ),
    (
        "two files of one name made apart both stay",
        "
        cut B
        A: write x ann
        B: write x bob
        together
        = x ann
        = x!B bob",
    ),
    (
        "an edit beats a removal that was published first",
        "
        A: write x v0
        cut B
        A: rm x
        B: write x edit
        together
        = x edit
        = history x edit - v0",
    ),
    (
        "an edit beats a removal that comes late",
        "
        A: write x v0
        cut B
        B: rm x
        A: write x edit
        together
        = x edit",
    ),
    (
        "a removal that knows of the edit removes it",
        "
        A: write x v0
        cut B
        A: rm x
        B: write x edit
        together
        D: rm x
        = nothing",
    ),
    (
        "two removals are one, and the name is free",
        "
        A: write x v0
        cut B
        A: rm x
        B: rm x
        together
        = nothing
        C: write x new
        = x new",
    ),
    (
        "removed and made again, against an edit of what was",
        "
        A: write x v0
        cut B
        A: rm x
        A: write x anew
        B: write x edit
        together
        = x anew
        = x!B edit",
    ),
    (
        "an edit against one who removed and made again and comes late",
        "
        A: write x v0
        cut B
        B: rm x
        B: write x anew
        A: write x edit
        together
        = x edit
        = x!B anew",
    ),
    (
        "a change of mode and a save are one file with both",
        "
        A: write x v0
        cut B
        B: chmod x 755
        A: write x work
        together
        = x work 755",
    ),
    (
        "a save that comes late keeps the mode set meanwhile",
        "
        A: write x v0
        cut B
        B: write x work
        A: chmod x 755
        together
        = x work 755",
    ),
    (
        "of two modes the later one holds",
        "
        A: write x v0
        cut B
        A: chmod x 600
        B: chmod x 755
        together
        = x v0 755",
    ),
    (
        "a save with its own mode against a mode: the later one holds",
        "
        A: write x v0
        cut B
        B: write x work
        B: chmod x 600
        A: chmod x 755
        together
        = x work 600",
    ),
    (
        "a change of mode is a sign of life against a removal",
        "
        A: write x v0
        cut B
        A: rm x
        B: chmod x 755
        together
        = x v0 755",
    ),
    (
        "a save over what was opened before two changes of mode is no copy",
        "
        A: write x v0
        A: load x
        A: chmod x 600
        A: chmod x 755
        A: save x work
        = x work 755",
    ),
    (
        "a save that comes late keeps the last of several modes set meanwhile",
        "
        A: write x v0
        cut B
        B: write x work
        A: chmod x 600
        A: chmod x 755
        together
        = x work 755",
    ),
    (
        "a change of mode beside two saves makes no third file",
        "
        A: write x v0
        cut B C
        A: write x ann
        B: write x bob
        C: chmod x 755
        together A B C
        = x ann 755
        = x!B bob",
    ),
    (
        "a link and a file of one name",
        "
        cut B
        A: link x target
        B: write x bob
        together
        = x -> target
        = x!B bob",
    ),
    (
        "a file and a link of one name",
        "
        cut B
        A: write x ann
        B: link x target
        together
        = x ann
        = x!B -> target",
    ),
    (
        "equal links are one",
        "
        cut B
        A: link x target
        B: link x target
        together
        = x -> target",
    ),
    (
        "a link turned two ways",
        "
        A: link x zero
        cut B
        A: link x one
        B: link x two
        together
        = x -> one
        = x!B -> two",
    ),
    (
        "a save over what the program loaded, while the team has moved on, overwrites nothing",
        "
        A: write x v0
        B: load x
        A: write x v1
        B: save x stale
        = x v1
        = x!B stale",
    ),
    (
        "a stale save onto a name that was removed meanwhile brings the file back",
        "
        A: write x v0
        B: load x
        A: rm x
        B: save x stale
        = x stale",
    ),
    (
        "renamed here and edited there: both names stay",
        "
        A: write x X
        cut B
        A: mv x y
        B: write x X+bob
        together
        = x X+bob
        = y X",
    ),
    (
        "renamed here, edited on both names",
        "
        A: write x X
        cut C
        A: mv x y
        B: write y X+bob
        C: write x X+carol
        together
        = x X+carol
        = y X+bob",
    ),
    (
        "renamed to two names",
        "
        A: write x X
        cut B
        A: mv x y
        B: mv x z
        together
        = y X
        = z X",
    ),
    (
        "renamed to one name by both",
        "
        A: write x X
        cut B
        A: mv x y
        B: mv x y
        together
        = y X
        = history y X X",
    ),
    (
        "two files renamed to one name",
        "
        A: write x X; write y Y
        cut B
        A: mv x z
        B: mv y z
        together
        = z X
        = z!B Y",
    ),
    (
        "renamed and removed",
        "
        A: write x X
        cut B
        A: mv x y
        B: rm x
        together
        = y X",
    ),
    (
        "removed, and renamed by one who comes late",
        "
        A: write x X
        cut B
        A: rm x
        B: mv x y
        together
        = y X",
    ),
    (
        "a file renamed over another, of which somebody saves a new version",
        "
        A: write x X; write y Y
        cut B
        A: mv x y
        B: write y Y2
        together
        = y X
        = y!B Y2",
    ),
    (
        "a file renamed over another while somebody saves what was renamed",
        "
        A: write x X; write y Y
        cut B
        A: mv x y
        B: write x X2
        together
        = x X2
        = y X",
    ),
    (
        "a file renamed over one that another removes",
        "
        A: write x X; write y Y
        cut B
        B: rm y
        A: mv x y
        together
        = y X",
    ),
    (
        "renamed away and another put in its place, against an edit",
        "
        A: write x X
        cut B
        A: mv x y
        A: write x other
        B: write x X+bob
        together
        = x other
        = x!B X+bob
        = y X",
    ),
    (
        "two swap the same two files",
        "
        A: write x X; write y Y
        cut B C
        A: xchg x y
        B: xchg x y
        C: write x X+edit
        together A B C
        = x Y
        = x!C X+edit
        = y X",
    ),
    (
        "a file moved into a folder that another makes",
        "
        A: write x X
        cut B
        A: mkdir d
        A: mv x d/x
        B: mkdir d
        B: write d/x bob
        together
        = d/
        = d/x X
        = d/x!B bob",
    ),
    (
        "saving the bytes another saved is agreeing",
        "
        A: write x v0
        cut B
        A: write x ann
        B: write x bob
        together
        C: write x bob
        = x bob",
    ),
    (
        "an extended attribute and a save are one file with both",
        "
        A: write x v0
        cut B
        B: attr x user.k v
        A: write x work
        together
        = x work user.k=v",
    ),
    (
        "two set different attributes",
        "
        A: write x v0
        A: attr x user.old o
        cut B
        A: attr x user.a 1
        B: attr x user.b 2
        together
        = x v0 user.a=1 user.b=2 user.old=o",
    ),
    (
        "two set one attribute: the later one holds",
        "
        A: write x v0
        cut B
        A: attr x user.k 1
        A: chmod x 600
        B: attr x user.k 2
        together
        = x v0 600 user.k=2",
    ),
    (
        "one sets an attribute, another removes another one",
        "
        A: write x v0
        A: attr x user.old o
        cut B
        B: attr x user.old -
        A: attr x user.new n
        together
        = x v0 user.new=n",
    ),
    (
        "a save and attributes of two",
        "
        A: write x v0
        cut B C
        A: write x work
        A: attr x user.a 1
        B: attr x user.b 2
        C: attr x user.c 3
        C: chmod x 755
        together
        = x work 755 user.a=1 user.b=2 user.c=3",
    ),
];

#[test]
fn files() {
    super::all(TABLE);
}
