//! What people do about conflict copies, and that it lasts.

const TABLE: &[super::Scenario<'_>] = &[
    (
        "saving over the official file leaves the copy a copy",
        "
        A: write x v0
        cut C
        C: write x bob
        B: write x ann
        together
        B: write x ann2
        = x ann2
        = x!C bob",
    ),
    (
        "removing the official file leaves the copy a copy",
        "
        A: write x v0
        cut C
        C: write x bob
        B: write x ann
        together
        B: rm x
        = x!C bob
        D: write x new
        = x new
        = x!C bob",
    ),
    (
        "copying over the official file leaves the copy a copy",
        "
        A: write y cp
        cut C
        C: write x bob
        B: write x ann
        together
        A: cp y x
        = x cp
        = x!C bob
        = y cp",
    ),
    (
        "removing the copy ends it",
        "
        cut C
        C: write x bob
        B: write x ann
        together
        A: rm x!C
        = x ann
        = history x bob ann",
    ),
    (
        "a copy that was removed does not come back with one who was away",
        "
        cut C
        C: write x bob
        B: write x ann
        together
        cut D
        A: rm x!C
        D: write x dora
        together
        = x dora",
    ),
    (
        "renaming the copy makes it a file of its own",
        "
        cut C
        C: write x bob
        B: write x ann
        together
        A: mv x!C y
        = x ann
        = y bob",
    ),
    (
        "moving the copy over the original makes it the official one",
        "
        cut C
        C: write x bob
        B: write x ann
        together
        A: mv x!C x
        = x bob
        = history x bob bob ann",
    ),
    (
        "moving the copy into a folder",
        "
        A: mkdir d
        cut C
        C: write x bob
        B: write x ann
        together
        A: mv x!C d/x
        = d/
        = d/x bob
        = x ann",
    ),
    (
        "moving the original over the copy",
        "
        cut C
        C: write x bob
        B: write x ann
        together
        A: mv x x!C
        = \"x (conflict C #)\" ann",
    ),
    (
        "editing the copy makes it a file of its own under the copy's name",
        "
        cut C
        C: write x bob
        B: write x ann
        together
        A: write x!C fixed
        = x ann
        = \"x (conflict C #)\" fixed",
    ),
    (
        "changing the copy's mode is an edit",
        "
        cut C
        C: write x bob
        B: write x ann
        together
        A: chmod x!C 755
        = x ann
        = \"x (conflict C #)\" bob 755",
    ),
    (
        "swapping the copy and the original",
        "
        cut C
        C: write x bob
        B: write x ann
        together
        A: xchg x x!C
        = x bob
        = \"x (conflict C #)\" ann",
    ),
    (
        "saving the copy's bytes over the original ends the conflict",
        "
        cut C
        C: write x bob
        B: write x ann
        together
        A: cp x!C x
        = x bob",
    ),
    (
        "two remove the same copy",
        "
        cut C
        C: write x bob
        B: write x ann
        together
        cut D
        D: rm x!C
        A: rm x!C
        together
        = x ann",
    ),
    (
        "one removes the copy, another edits it: the edit stays",
        "
        cut C
        C: write x bob
        B: write x ann
        together
        cut D
        D: write x!C fixed
        A: rm x!C
        together
        = x ann
        = \"x (conflict C #)\" fixed",
    ),
    (
        "one moves the copy over the original, another removes it",
        "
        cut C
        C: write x bob
        B: write x ann
        together
        cut D
        D: rm x!C
        A: mv x!C x
        together
        = x bob",
    ),
    (
        "one moves the copy over the original, another gives it a name",
        "
        cut C
        C: write x bob
        B: write x ann
        together
        cut D
        D: mv x!C y
        A: mv x!C x
        together
        = x bob
        = y bob",
    ),
    (
        "one moves the copy over the original, while another goes on saving that",
        "
        cut C
        C: write x bob
        B: write x ann
        together
        cut D
        D: write x more
        A: mv x!C x
        together
        = x bob
        = x!D more",
    ),
    (
        "the original goes on, and one who comes late moves the copy over what he knew",
        "
        cut C
        C: write x bob
        B: write x ann
        together
        cut D
        D: mv x!C x
        A: write x more
        together
        = x more
        = x!D bob",
    ),
    (
        "two give the copy two names",
        "
        cut C
        C: write x bob
        B: write x ann
        together
        cut D
        D: mv x!C y
        A: mv x!C z
        together
        = x ann
        = y bob
        = z bob",
    ),
    (
        "the copy's own author goes on with it",
        "
        cut C
        C: write x bob
        B: write x ann
        together
        C: write x!C bob2
        C: write \"x (conflict C #)\" bob3
        = x ann
        = \"x (conflict C #)\" bob3",
    ),
    (
        "dealt with by one who was away, while the others went on",
        "
        cut C
        C: write x bob
        B: write x ann
        together
        cut D
        D: rm x!C
        A: write x ann2
        B: write x ann3
        together
        = x ann3",
    ),
    (
        "original and copy removed: nothing is left",
        "
        cut C
        C: write x bob
        B: write x ann
        together
        D: rm x
        D: rm x!C
        = nothing",
    ),
    (
        "the original removed, then the copy renamed to its name",
        "
        cut C
        C: write x bob
        B: write x ann
        together
        D: rm x
        D: mv x!C x
        = x bob",
    ),
    (
        "a copy dropped and the same bytes saved again are shown again",
        "
        A: write x v0
        B: load x
        A: write x v1
        B: save x mine
        A: rm x!B
        B: save x other
        = x v1
        = x!B other",
    ),
    (
        "a directory beside a file ends when the file is renamed",
        "
        cut B
        A: write n file
        B: mkdir n
        B: write n/kid kid
        together
        A: mv n m
        = m file
        = n!B/
        = n!B/kid kid
        A: mv n!B n
        = m file
        = n/
        = n/kid kid",
    ),
];

#[test]
fn resolving() {
    super::all(TABLE);
}
