//! Three ways and more, and again and again.

const TABLE: &[super::Scenario<'_>] = &[
    (
        "three saves: one official, two copies",
        "
        A: write x v0
        cut B C
        A: write x ann
        B: write x bob
        C: write x cat
        together
        = x ann
        = x!B bob
        = x!C cat",
    ),
    (
        "four creations",
        "
        cut B C D
        A: write x ann
        B: write x bob
        C: write x cat
        D: write x dora
        together D C B A
        = x dora
        = x!A ann
        = x!B bob
        = x!C cat",
    ),
    (
        "a second conflict beside the first leaves its name alone",
        "
        cut B
        A: write x ann
        B: write x bob
        together
        cut C
        A: write x ann2
        C: write x cat
        together
        = x ann2
        = x!B bob
        = x!C cat",
    ),
    (
        "the same two once more",
        "
        cut B
        A: write x ann
        B: write x bob
        together
        cut B
        A: write x ann2
        B: write x bob2
        together
        = x ann2
        = x!B bob
        = x!B bob2",
    ),
    (
        "equal copies of two are one, and removing it removes both",
        "
        A: write x v0
        cut B C
        A: write x ann
        B: write x same
        C: write x same
        together
        = x ann
        = x!B same
        D: rm x!B
        = x ann",
    ),
    (
        "many saves by one who is away are one copy",
        "
        A: write x v0
        cut B
        B: write x b1
        A: write x a1
        B: write x b2
        A: write x a2
        B: write x b3
        A: write x a3
        together
        = x a3
        = x!B b3
        = history x b3 b2 b1 a3 a2 a1 v0",
    ),
    (
        "work of a third on top of what lost is the copy",
        "
        A: write x v0
        apart A D | B C
        A: write x ann
        B: write x b1
        C: write x c2
        together
        = x ann
        = x!C c2",
    ),
    (
        "work of a third on top of what won is no conflict",
        "
        A: write x v0
        cut B
        A: write x ann
        C: write x cat
        B: write x bob
        together
        = x cat
        = x!B bob",
    ),
    (
        "an older content brought back is a change like any other",
        "
        A: write x v0
        cut B
        A: write x v1
        A: write x v0
        B: write x bob
        together
        = x v0
        = x!B bob",
    ),
    (
        "an older content brought back by one who comes late",
        "
        A: write x v0
        A: write x v1
        cut B
        B: write x v0
        A: write x v2
        together
        = x v2
        = x!B v0",
    ),
    (
        "to and fro between two contents",
        "
        A: write x one
        cut B
        A: write x two
        A: write x one
        B: write x two
        B: write x one
        together
        = x one",
    ),
    (
        "two rounds of creating and removing what the other made",
        "
        A: mkdir d
        cut B
        A: write d/c hello
        B: write d/d goodbye
        together
        A: write d/e hello
        A: write d/f goodbye
        cut B
        A: rm d/f
        B: rm d/e
        together
        = d/
        = d/c hello
        = d/d goodbye",
    ),
    (
        "a directory made by three, moved by two, removed by one",
        "
        cut B C
        A: mkdir d
        B: mkdir d
        C: mkdir d
        together
        cut B C
        A: mv d e
        B: mv d f
        C: rmdir d
        together
        = e/
        = skipped d -> f by B",
    ),
    (
        "three rename one file",
        "
        A: write x X
        cut B C
        A: mv x a
        B: mv x b
        C: mv x c
        together
        = a X
        = b X
        = c X",
    ),
    (
        "a copy and a third who edits, a fourth who removes",
        "
        A: write x v0
        cut B C D
        A: write x ann
        B: rm x
        C: write x cat
        D: chmod x 755
        together
        = x ann 755
        = x!C cat",
    ),
    (
        "a copy keeps its name when another is dealt with",
        "
        A: write x v0
        C: load x
        B: write x off
        C: save x one
        C: save x two
        = x off
        = x!C one
        = x!C two
        A: rm x!C=one
        = x off
        = x!C two",
    ),
    (
        "conflicts upon conflicts, then all are dealt with",
        "
        A: write x v0
        cut B C
        A: write x ann
        B: write x bob
        C: write x cat
        together
        cut B C
        A: write x!B=bob fixed
        B: rm x!C
        C: mv x!B=bob x
        together
        = x bob
        = \"x (conflict B #)\" fixed",
    ),
    (
        "away and back, and the same saved from memory",
        "
        A: write y t
        A: load y
        A: mv y z
        A: mv z y
        A: save y t
        = y t",
    ),
    (
        "away and back, and another saved from memory meanwhile",
        "
        A: write y t
        cut B
        B: write y u
        A: load y
        A: mv y z
        A: mv z y
        A: save y t
        A= y t
        together
        = y t
        = y!B u",
    ),
    (
        "away and back over what another saved meanwhile, and an older save from memory",
        "
        A: write y t
        A: load y
        cut B
        B: write y u
        A: mv y z
        together
        A: mv z y
        A= y t
        A: save y v
        = y t
        = y!A v",
    ),
];

#[test]
fn repeated() {
    super::all(TABLE);
}
