//! Moves that would put a directory into itself: skipped whole, kept, listed, and made when that becomes safe.

const TABLE: &[super::Scenario<'_>] = &[
    (
        "each into the other: the first stands",
        "
        A: mkdir a; mkdir b
        cut B
        A: mv a b/a
        B: mv b a/b
        together
        = b/
        = b/a/
        = skipped b -> b/a/b by B",
    ),
    (
        "each into the other, with files inside, loses none",
        "
        A: mkdir a; mkdir b
        A: write a/f a; write b/f b
        cut B
        A: mv a b/a
        B: mv b a/b
        B: write a/b/g g
        together
        = b/
        = b/f b
        = b/g g
        = b/a/
        = b/a/f a
        = skipped b -> b/a/b by B",
    ),
    (
        "three in a ring: the last one is skipped",
        "
        A: mkdir a; mkdir b; mkdir c
        cut B C
        A: mv a b/a
        B: mv b c/b
        C: mv c a/c
        together A B C
        = c/
        = c/b/
        = c/b/a/
        = skipped c -> c/b/a/c by C",
    ),
    (
        "a ring through deep places, and what was made there stays",
        "
        A: mkdir a; mkdir a/b; mkdir a/b/c; mkdir d; mkdir d/e; mkdir d/e/f
        cut B
        A: mv d a/b/c/d
        B: mkdir d/e/f/g; mkdir d/e/f/g/h
        B: mv a d/e/f/g/h/a
        A: write a/j hello
        together
        = a/
        = a/j hello
        = a/b/
        = a/b/c/
        = a/b/c/d/
        = a/b/c/d/e/
        = a/b/c/d/e/f/
        = a/b/c/d/e/f/g/
        = a/b/c/d/e/f/g/h/
        = skipped a -> a/b/c/d/e/f/g/h/a by B",
    ),
    (
        "a move that was skipped is made when an earlier one makes it safe",
        "
        A: mkdir a; mkdir b; mkdir x
        apart C D | A | B
        C: mv a x/a
        A: mv a b/a
        B: mv b a/b
        join A B
        A= b/
        A= b/a/
        A= x/
        A= skipped b -> b/a/b by B
        together
        = x/
        = x/a/
        = x/a/b/
        = skipped a -> x/a/b/a by A",
    ),
    (
        "a move that was made is skipped when an earlier one closes the ring",
        "
        A: mkdir a; mkdir b
        apart C D | A B
        C: mv b a/b
        A: mv a b/a
        A= b/
        A= b/a/
        together
        = a/
        = a/b/
        = skipped a -> a/b/a by A",
    ),
    (
        "moved again with open eyes it is listed no more",
        "
        A: mkdir a; mkdir b
        cut B
        A: mv a b/a
        B: mv b a/b
        together
        B: mv b c
        = c/
        = c/a/",
    ),
    (
        "taken apart, and then the way that was skipped is gone for free",
        "
        A: mkdir a; mkdir b
        cut B
        A: mv a b/a
        B: mv b a/b
        together
        C: mv b/a a
        = a/
        = b/
        = skipped b -> a/b by B
        C: mv b a/b
        = a/
        = a/b/",
    ),
    (
        "a removed directory keeps its place in the look for rings",
        "
        A: mkdir a; mkdir d
        A: write a/f f
        cut B
        A: mv d a/d
        A: rmdir a/d
        B: mv a d/a
        together
        = a/
        = a/f f
        = a/d/
        = skipped a -> a/d/a by B",
    ),
    (
        "a swap that would close a ring does not happen at all",
        "
        A: mkdir a; mkdir b; mkdir b/c
        cut B
        A: mv b a/b
        B: xchg a b/c
        together
        = a/
        = a/b/
        = a/b/c/
        = skipped a -> a/b/c by B
        = skipped a/b/c -> a by B",
    ),
    (
        "one who comes late twice into a ring",
        "
        A: mkdir a; mkdir b; mkdir c
        cut B
        A: mv a b/a
        B: mv b a/b
        B: mv c a/b/c
        together
        = b/
        = b/a/
        = b/c/
        = skipped b -> b/a/b by B",
    ),
    (
        "two rings at once",
        "
        A: mkdir a; mkdir b; mkdir c; mkdir d
        cut B
        A: mv a b/a
        A: mv c d/c
        B: mv b a/b
        B: mv d c/d
        together
        = b/
        = b/a/
        = d/
        = d/c/
        = skipped b -> b/a/b by B
        = skipped d -> d/c/d by B",
    ),
];

#[test]
fn cycles() {
    super::all(TABLE);
}
