//! Directories that move: the first to be published stands, and what is inside goes along.

const TABLE: &[super::Scenario<'_>] = &[
    ("the team's move stands against the returning laptop's, which is listed", "
        A: mkdir scenes; mkdir old; mkdir proj
        A: write scenes/f f
        cut D
        D: mv scenes old/scenes
        A: mv scenes proj/scenes
        together
        = old/
        = proj/
        = proj/scenes/
        = proj/scenes/f f
        = skipped scenes -> old/scenes by D"),
    ("moving it again with open eyes settles the matter", "
        A: mkdir scenes; mkdir old; mkdir proj
        cut D
        D: mv scenes old/scenes
        A: mv scenes proj/scenes
        together
        D: mv proj/scenes old/scenes
        = old/
        = old/scenes/
        = proj/"),
    ("a move that lost is settled by saying so", "
        A: mkdir d
        cut B
        B: mv d mine
        A: mv d theirs
        together
        = theirs/
        = skipped d -> mine by B
        C: settle d
        = theirs/"),
    ("who lost and moves it once more offline has still lost", "
        A: mkdir d
        cut B
        B: mv d one
        B: mv one two
        A: mv d theirs
        together
        = theirs/
        = skipped one -> two by B"),
    ("two moves by one who was away end at the second place", "
        A: mkdir m
        A: write m/f f
        cut D
        D: mv m one
        D: mv one two
        together
        = two/
        = two/f f"),
    ("a third builds on the move of one who was away", "
        cut C D
        D: mkdir m
        join C D
        C: mv m moved
        together
        = moved/"),
    ("a file saved into a directory that moves meanwhile goes along", "
        A: mkdir d
        cut B
        A: mv d e
        B: write d/f f
        together
        = e/
        = e/f f"),
    ("a file edited inside a directory that one moves who comes late", "
        A: mkdir d; mkdir p
        A: write d/f v0
        cut B
        B: mv d p/d
        A: write d/f v1
        together
        = p/
        = p/d/
        = p/d/f v1"),
    ("moved into a directory that another removes: that one is back", "
        A: mkdir p; mkdir d
        cut B
        A: rmdir p
        B: mv d p/d
        together
        = p/
        = p/d/"),
    ("a directory removed by one who comes late, after another moved something in", "
        A: mkdir p; mkdir d
        cut B
        B: rmdir p
        A: mv d p/d
        together
        = p/
        = p/d/"),
    ("two directories moved to one name", "
        A: mkdir a; mkdir b
        A: write a/f a; write b/f b
        cut B
        A: mv a n
        B: mv b n
        together
        = n/
        = n/f a
        = n!B/
        = n!B/f b"),
    ("a directory moved to a name that became a file's", "
        A: mkdir d
        cut B
        A: write n file
        B: mv d n
        together
        = n file
        = n!B/"),
    ("moved to a name at which another makes a directory", "
        A: mkdir d
        A: write d/f f
        cut B
        A: mkdir n
        A: write n/g g
        B: mv d n
        together
        = n/
        = n/g g
        = n!B/
        = n!B/f f"),
    ("moved over an empty directory, in which another works: both stay", "
        A: mkdir d; mkdir e
        A: write d/f f
        cut B
        A: mv d e
        B: write e/g g
        together
        = e/
        = e/f f
        = e!A/
        = e!A/g g"),
    ("moved over an empty directory", "
        A: mkdir d; mkdir e
        A: write d/f f
        B: mv d e
        = e/
        = e/f f"),
    ("a name that a directory left makes another directory", "
        A: mkdir a
        A: write a/f f
        A: mv a b
        B: mkdir a
        = a/
        = b/
        = b/f f
        B: rmdir a
        B: mkdir a
        B: write a/g g
        = a/
        = a/g g
        = b/
        = b/f f"),
    ("a name that a directory left, taken by two at once, is one directory", "
        A: mkdir a
        A: mv a b
        cut B
        A: mkdir a
        A: write a/x x
        B: mkdir a
        B: write a/y y
        together
        = a/
        = a/x x
        = a/y y
        = b/"),
    ("one who missed that a name was left again works in the directory that left it", "
        A: mkdir a
        A: mv a b
        cut B
        A: mkdir a
        A: mv a c
        A: mkdir a
        A: write a/x x
        B: mkdir a
        B: write a/y y
        together
        = a/
        = a/x x
        = b/
        = c/
        = c/y y"),
    ("both give it the same new name: no quarrel", "
        A: mkdir d
        A: write d/f f
        cut B
        A: mv d e
        B: mv d e
        together
        = e/
        = e/f f"),
    ("moved here and renamed there: the first stands whole", "
        A: mkdir d; mkdir p
        cut B
        A: mv d p/d
        B: mv d e
        together
        = p/
        = p/d/
        = skipped d -> e by B"),
    ("of two laptops the first to come back moves it", "
        A: mkdir d
        cut B C
        C: mv d cat
        B: mv d bob
        together A B C
        = bob/
        = skipped d -> cat by C"),
    ("moved into a directory that another renames", "
        A: mkdir p; mkdir d
        cut B
        A: mv p q
        B: mv d p/d
        together
        = q/
        = q/d/"),
    ("moved out before its parent is removed, while another works inside", "
        A: mkdir p; mkdir p/d
        cut B
        A: mv p/d d
        A: rmdir p
        B: write p/d/f f
        together
        = d/
        = d/f f"),
    ("moved out before its parent is removed, while another works beside it", "
        A: mkdir p; mkdir p/d
        cut B
        A: mv p/d d
        A: rmdir p
        B: mkdir p/x
        together
        = d/
        = p/
        = p/x/"),
    ("a moved directory and one made at its old name by one who had not seen it", "
        A: mkdir d
        A: write d/f f
        cut B
        A: mv d e
        B: rm d/f; rmdir! d
        B: mkdir d
        B: write d/g g
        together
        = e/
        = e/g g"),
    ("a swap of directories", "
        A: mkdir d; mkdir e
        A: write d/f d; write e/f e
        B: xchg d e
        = d/
        = d/f e
        = e/
        = e/f d"),
    ("a swap of a directory and a file is one operation", "
        A: mkdir d; write x X
        A: write d/f f
        B: xchg d x
        = d X
        = x/
        = x/f f"),
    ("a swap against a move that was first does not happen at all", "
        A: mkdir d; write x X
        cut B C
        B: mv d e
        C: xchg d x
        together A B C
        = e/
        = x X
        = skipped d -> x by C"),
    ("both swap the same two directories: no quarrel", "
        A: mkdir d; mkdir e
        A: write d/f d; write e/f e
        cut B
        A: xchg d e
        B: xchg d e
        together
        = d/
        = d/f e
        = e/
        = e/f d"),
    ("a swap of a directory and a file of which another saves a new version", "
        A: mkdir d; write x X
        cut B
        A: xchg d x
        B: write x X2
        together
        = d X
        = x/
        = x!B X2"),
    ("many moves that cross and close no cycle", "
        A: mkdir a; mkdir a/b; mkdir a/b/c; mkdir a/b/c/d; mkdir a/b/c/d/e; mkdir a/b/c/d/e/f; mkdir a/b/c/d/e/f/g
        cut B
        A: mv a/b/c/d/e/f f
        A: mv a/b/c/d f/g/d
        A: mv a/b f/g/d/e/b
        B: mv a/b/c/d/e/f/g g
        B: mv a/b/c/d/e g/e
        B: mv a/b/c g/e/f/c
        B: mv a g/e/f/c/d/a
        together
        = f/
        = f/c/
        = g/
        = g/d/
        = g/d/a/
        = g/e/
        = g/e/b/"),
];

#[test]
fn moves() {
    super::all(TABLE);
}
