//! Directories: made twice, removed while somebody works inside, back where they were.

const TABLE: &[super::Scenario<'_>] = &[
    (
        "a directory made twice is one, with what both put inside",
        "
        cut B
        A: mkdir d
        A: write d/a a
        B: mkdir d
        B: write d/b b
        together
        = d/
        = d/a a
        = d/b b",
    ),
    (
        "inside a directory made twice files conflict as anywhere",
        "
        cut B
        A: mkdir d
        A: write d/x ann
        B: mkdir d; write d/x bob
        together
        = d/
        = d/x ann
        = d/x!B bob",
    ),
    (
        "a whole path made twice",
        "
        cut B
        A: mkdir a; mkdir a/b; mkdir a/b/c
        B: mkdir a; mkdir a/b
        B: write a/b/f f
        together
        = a/
        = a/b/
        = a/b/c/
        = a/b/f f",
    ),
    (
        "a directory and a file of one name",
        "
        cut B
        A: mkdir n
        A: write n/kid kid
        B: write n file
        together
        = n/
        = n/kid kid
        = n!B file",
    ),
    (
        "a file and a directory of one name",
        "
        cut B
        A: write n file
        B: mkdir n
        B: write n/kid kid
        together
        = n file
        = n!B/
        = n!B/kid kid",
    ),
    (
        "a directory beside a file stays a copy when the file goes, until it is given the name",
        "
        cut B
        A: write n file
        B: mkdir n
        B: write n/kid kid
        together
        = n file
        = n!B/
        = n!B/kid kid
        A: rm n
        = n!B/
        = n!B/kid kid
        C: mv n!B n
        = n/
        = n/kid kid
        C: mv n m
        = m/
        = m/kid kid",
    ),
    (
        "a directory beside a file, given the name by two",
        "
        cut B
        A: write n file
        B: mkdir n
        together
        A: rm n
        cut B
        A: mv n!B n
        B: mv n!B n
        together
        = n/",
    ),
    (
        "a directory beside a file, given the name by one and another by another",
        "
        cut B
        A: write n file
        B: mkdir n
        together
        A: rm n
        cut B
        B: mv n!B m
        A: mv n!B n
        together
        = n/
        = skipped n -> m by B",
    ),
    (
        "a directory beside a file keeps its copy's name when another makes it, too",
        "
        cut B C
        A: write n file
        B: mkdir n
        C: mkdir n
        C: write n/c c
        join A B
        = n file
        = n!B/
        together
        = n file
        = n!B/
        = n!B/c c",
    ),
    (
        "a directory given its name while another puts a file there",
        "
        cut B
        A: write n file
        B: mkdir n
        together
        A: rm n
        cut B
        B: mv n!B n
        A: write n new
        together
        = n new
        = n!B/",
    ),
    (
        "a directory and a link of one name",
        "
        cut B
        A: mkdir n
        B: link n target
        together
        = n/
        = n!B -> target",
    ),
    (
        "removed while somebody puts a file inside: it is back",
        "
        A: mkdir d
        cut B
        A: rmdir d
        B: write d/f f
        together
        = d/
        = d/f f",
    ),
    (
        "a removal that comes late to a file inside is void",
        "
        A: mkdir d
        cut B
        B: rmdir d
        A: write d/f f
        together
        = d/
        = d/f f",
    ),
    (
        "a removal stays void when what was put inside is gone again",
        "
        A: mkdir d
        cut B
        A: rmdir d
        B: write d/f f
        B: rm d/f
        together
        = d/",
    ),
    (
        "a removal that has seen it all stands",
        "
        A: mkdir d
        cut B
        A: rmdir d
        B: write d/f f
        together
        C: rm d/f
        C: rmdir d
        = nothing",
    ),
    (
        "a directory made inside counts as much as a file",
        "
        A: mkdir d
        cut B
        A: rmdir d
        B: mkdir d/e
        together
        = d/
        = d/e/",
    ),
    (
        "a file moved inside counts as much as a new one",
        "
        A: mkdir d; write x X
        cut B
        A: rmdir d
        B: mv x d/x
        together
        = d/
        = d/x X",
    ),
    (
        "a link inside counts, too",
        "
        A: mkdir d
        cut B
        A: rmdir d
        B: link d/l target
        together
        = d/
        = d/l -> target",
    ),
    (
        "a whole tree comes back for one file deep inside",
        "
        A: mkdir a; mkdir a/b; mkdir a/b/c
        A: write a/b/c/e e
        cut B
        A: rm a/b/c/e
        A: rmdir a/b/c
        A: rmdir a/b
        A: rmdir a
        B: write a/b/c/f f
        together
        = a/
        = a/b/
        = a/b/c/
        = a/b/c/f f",
    ),
    (
        "an edit of a file in a removed tree brings back just its path",
        "
        A: mkdir a; mkdir a/b; mkdir a/z
        A: write a/b/e e; write a/g g
        cut B
        B: rm a/b/e; rm a/g; rmdir! a/b; rmdir! a/z; rmdir! a
        A: write a/b/e e2
        together
        = a/
        = a/b/
        = a/b/e e2",
    ),
    (
        "removing files in a tree that another removed whole brings nothing back",
        "
        A: mkdir a; mkdir a/b; mkdir a/b/c
        A: write a/b/c/e e; write a/b/c/f f
        cut B C
        B: rm a/b/c/e; rm a/b/c/f; rmdir! a/b/c
        C: rm a/b/c/e
        C: rm a/b/c/f
        together A B C
        = a/
        = a/b/",
    ),
    (
        "removed and made again, while another renders into it: one directory",
        "
        A: mkdir out
        cut C
        A: rmdir out
        A: mkdir out
        C: write out/frame px
        together
        = out/
        = out/frame px",
    ),
    (
        "removed and made again by two is the same directory",
        "
        A: mkdir d
        A: rmdir d
        cut B
        A: mkdir d
        A: write d/a a
        B: mkdir d
        B: write d/b b
        together
        = d/
        = d/a a
        = d/b b",
    ),
    (
        "removed by both",
        "
        A: mkdir d
        cut B
        A: rmdir d
        B: rmdir d
        together
        = nothing",
    ),
    (
        "back, but its name is a file's by now: it carries a suffix until the name is free",
        "
        A: mkdir n
        cut B
        A: rmdir n
        A: write n file
        B: write n/kid kid
        together
        = n file
        = n!A/
        = n!A/kid kid
        A: rm n
        = n/
        = n/kid kid",
    ),
    (
        "a directory with a suffix is given another name",
        "
        A: mkdir n
        cut B
        A: rmdir n
        A: write n file
        B: write n/kid kid
        together
        C: mv n!A m
        = n file
        = m/
        = m/kid kid",
    ),
    (
        "a directory with a suffix is worked in like any other, and removed",
        "
        A: mkdir n
        cut B
        A: rmdir n
        A: write n file
        B: write n/kid kid
        together
        C: write n!A/more more
        = n file
        = n!A/
        = n!A/kid kid
        = n!A/more more
        D: rm n!A/kid
        D: rm n!A/more
        D: rmdir n!A
        = n file",
    ),
    (
        "back, but another directory was moved to its name",
        "
        A: mkdir n; mkdir other
        cut B
        A: rmdir n
        A: mv other n
        B: write n/kid kid
        together
        = n/
        = n!A/
        = n!A/kid kid",
    ),
    (
        "the name of a directory that is back goes to it when the file moves away",
        "
        A: mkdir n
        cut B
        A: rmdir n
        A: write n file
        B: write n/kid kid
        together
        A: mv n m
        = m file
        = n/
        = n/kid kid",
    ),
    (
        "of two modes of a directory the later one holds",
        "
        A: mkdir d
        cut B
        A: chmod d 700
        B: chmod d 711
        together
        = d/ 711",
    ),
    (
        "a mode does not keep a removed directory alive",
        "
        A: mkdir d
        cut B
        A: rmdir d
        B: chmod d 700
        together
        = nothing",
    ),
    (
        "a mode set before goes with a directory that is back",
        "
        A: mkdir d
        A: chmod d 700
        cut B
        A: rmdir d
        B: write d/f f
        together
        = d/ 700
        = d/f f",
    ),
    (
        "a directory that shows something lives, whatever was decided about it",
        "
        A: mkdir d
        A: write d/f f
        B: rmdir! d
        = d/
        = d/f f
        A: rm d/f
        = nothing",
    ),
    (
        "a file put inside by one who had not seen the directory is nowhere",
        "
        cut B
        A: mkdir d
        B: mkdir e
        together
        = d/
        = e/",
    ),
    (
        "a file's name becomes a directory's, against an edit of the file",
        "
        A: write n v0
        cut B
        A: rm n
        A: mkdir n
        B: write n edit
        together
        = n/
        = n!B edit",
    ),
    (
        "a directory's name becomes a file's, and nobody minds",
        "
        A: mkdir n
        cut B
        A: rmdir n
        A: write n file
        together
        = n file",
    ),
    (
        "removed, while another renames it: it lives under the new name",
        "
        A: mkdir d
        cut B
        A: rmdir d
        B: mv d e
        together
        = e/",
    ),
    (
        "renamed, while another who comes late removes the old name",
        "
        A: mkdir d
        cut B
        A: mv d e
        B: rmdir d
        together
        = e/",
    ),
    (
        "conflicts inside a directory that is back under a suffix keep their names",
        "
        A: mkdir n
        A: write n/x v0
        cut B C
        A: rm n/x; rmdir! n
        A: write n file
        B: write n/x bob
        C: write n/x cat
        together A B C
        = n file
        = n!A/
        = n!A/x bob
        = n!A/x!C cat",
    ),
];

#[test]
fn directories() {
    super::all(TABLE);
}
