//! Breaks of checkouts, and what becomes of work that had not seen the break of its author's checkout.

const TABLE: &[super::Scenario<'_>] = &[
    (
        "broken: what the holder saved before stays",
        "
        A: write x v0
        B: checkout x
        B: write x b1
        A: break x
        = x b1
        = fate B x broken A
        C: checkout x
        = x b1
        = held x C",
    ),
    (
        "broken: late work stands beside what stood there",
        "
        A: write x v0
        B: checkout x
        cut B
        B: write x b1
        A: break x
        B= x b1
        B= held x B
        together
        = x v0
        = x!B b1
        = fate B x broken A
        = history x b1 v0",
    ),
    (
        "broken: beside what others made of it",
        "
        A: write x v0
        B: checkout x
        cut B
        B: write x b1
        A: break x
        C: checkout x
        C: write x c1
        together
        C: write x c2
        = x c2
        = x!B b1
        = held x C",
    ),
    (
        "broken: all the late saves are one copy",
        "
        A: write x v0
        B: checkout x
        cut B
        A: break x
        B: write x b1
        B: write x b2
        B: write x b3
        together
        = x v0
        = x!B b3
        = history x b3 b2 b1 v0",
    ),
    (
        "broken: work in a busy group that had not heard of it",
        "
        A: write x v0
        B: checkout x
        apart A C | B D
        A: break x
        B: write x b1
        together
        = x v0
        = x!B b1",
    ),
    (
        "broken: what came before the break in the order is official",
        "
        A: write x v0
        B: checkout x
        apart A C | B D
        B: write x b1
        A: break x
        together
        = x b1
        = fate B x broken A",
    ),
    (
        "broken: before and after",
        "
        A: write x v0
        B: checkout x
        apart A C | B D
        B: write x b1
        A: break x
        B: write x b2
        together
        = x b1
        = x!B b2",
    ),
    (
        "broken: the holder goes on with what it has seen",
        "
        A: write x v0
        B: checkout x
        cut B
        B: write x b1
        A: break x
        together
        B: write x b2
        = x b2
        = x!B b1
        B: rm x!B
        = x b2",
    ),
    (
        "broken: what builds on the copy is the copy",
        "
        A: write x v0
        B: checkout x
        cut B
        B: write x b1
        B: load x
        A: break x
        together
        B: save x b2
        = x v0
        = x!B b2
        A: write x a1
        = x a1
        = x!B b2",
    ),
    (
        "broken: what somebody else builds on the copy is one, too",
        "
        A: write x v0
        B: checkout x
        apart A C | B D
        A: break x
        B: write x b1
        D: write x d1
        together
        = x v0
        = x!D d1",
    ),
    (
        "broken: the copy is taken over",
        "
        A: write x v0
        B: checkout x
        cut B
        B: write x b1
        A: break x
        together
        A: mv x!B x
        = x b1",
    ),
    (
        "broken: a removal that had not seen it removes nothing",
        "
        A: write x v0
        B: checkout x
        cut B
        B: rm x
        A: break x
        together
        = x v0",
    ),
    (
        "broken: removed and written anew",
        "
        A: write x v0
        B: checkout x
        cut B
        B: rm x
        B: write x b1
        A: break x
        together
        = x v0
        = x!B b1",
    ),
    (
        "broken: a rename takes the work along and leaves what stood there",
        "
        A: write x v0
        B: checkout x
        cut B
        B: write x b1
        B: mv x y
        A: break x
        together
        = x v0
        = y b1",
    ),
    (
        "broken: a rename onto the name",
        "
        A: write x v0; write y w0
        B: checkout x
        cut B
        B: mv y x
        A: break x
        together
        = x v0
        = x!B w0",
    ),
    (
        "broken: away and back",
        "
        A: write x v0
        B: checkout x
        cut B
        B: mv x y
        B: write y b1
        B: mv y x
        A: break x
        together
        = x v0
        = x!B b1",
    ),
    (
        "broken: a save dance",
        "
        A: write x v0
        B: checkout x
        cut B
        B: dance x b1 x1
        B: dance x b2 x1
        A: break x
        together
        = x v0
        = x!B b2
        = x1 b1",
    ),
    (
        "broken: an exchange",
        "
        A: write x v0; write y w0
        B: checkout x
        cut B
        B: xchg x y
        A: break x
        together
        = x v0
        = x!B w0
        = y v0
        = history y v0 w0",
    ),
    (
        "broken: a change of mode is no quarrel",
        "
        A: write x v0
        B: checkout x
        cut B
        B: chmod x 755
        A: break x
        together
        = x v0 755
        B: write x b1
        = x b1 755",
    ),
    (
        "broken: a change of mode by another does not let it through",
        "
        A: write x v0
        B: checkout x
        cut B
        B: write x b1
        A: break x
        A: chmod x 755
        together
        = x v0 755
        = x!B b1",
    ),
    (
        "broken: the same content is the same",
        "
        A: write x v0
        B: checkout x
        cut B
        B: write x same
        A: break x
        A: write x same
        together
        = x same",
    ),
    (
        "broken: brought back to what it was",
        "
        A: write x v0
        A: write x v1
        B: checkout x
        cut B
        B: write x v0
        A: break x
        A: write x a1
        together
        = x a1
        = x!B v0",
    ),
    (
        "broken: what was removed is given up to late work",
        "
        A: write x v0
        B: checkout x
        cut B
        B: write x b1
        A: break x
        A: rm x
        together
        = x b1",
    ),
    (
        "broken: nothing stood there",
        "
        B: checkout new
        cut B
        B: write new b1
        A: break new
        together
        = new b1",
    ),
    (
        "broken: other names are not touched",
        "
        A: write x v0; write y w0
        B: checkout x; checkout y
        cut B
        B: write x b1; write y b2
        A: break x
        together
        = x v0
        = x!B b1
        = y b2
        = held y B",
    ),
    (
        "broken: a copy that was dealt with without knowing stays",
        "
        A: write x v0
        cut C
        C: write x c1
        A: write x a1
        together
        B: checkout x
        cut B
        B: rm x!C
        A: break x
        together
        = x a1
        = x!C c1",
    ),
    (
        "broken: taken anew by who had it",
        "
        A: write x v0
        B: checkout x
        cut B
        B: write x b1
        A: break x
        together
        B: checkout x
        B: write x b2
        = x b2
        = x!B b1
        = held x B",
    ),
    (
        "broken twice",
        "
        A: write x v0
        B: checkout x
        A: break x
        B: checkout x
        cut B
        B: write x b1
        A: break x
        together
        = x v0
        = x!B b1
        = fate B x broken A",
    ),
    (
        "broken by two at once",
        "
        A: role D owner
        A: write x v0
        B: checkout x
        apart A B | C D
        A: break x
        B: write x b1
        D: break x
        together
        = x b1
        = fate B x broken A",
    ),
    (
        "broken by two, and the work had seen only the one that came too late",
        "
        A: role D owner
        A: write x v0
        B: checkout x
        apart A C | B D
        A: break x
        D: break x
        B: write x b1
        together
        = x v0
        = x!B b1
        = fate B x broken A",
    ),
    (
        "a break on its way to somebody who has given it back",
        "
        A: write x v0
        B: checkout x
        apart A C | B D
        B: giveback x
        A: break x
        B: write x b1
        together
        = x b1
        = fate B x given",
    ),
    (
        "given back when it was broken already",
        "
        A: write x v0
        B: checkout x
        apart A C | B D
        A: break x
        B: giveback x
        B: write x b1
        together
        = x v0
        = x!B b1
        = fate B x broken A",
    ),
    (
        "a late break of what was given back",
        "
        A: write x v0
        B: checkout x
        cut A
        A: break x
        B: giveback x
        C: checkout x
        B: write y b1
        together
        = x v0
        = y b1
        = held x C
        = fate B x given",
    ),
    (
        "a late break and work that went on",
        "
        A: write x v0
        B: checkout x
        cut A
        A: break x
        B: write x b1
        together C
        A= x b1
        = fate B x broken A
        B: write x b2
        = x b2",
    ),
    (
        "an owner breaks its own",
        "
        A: write x v0
        A: checkout x
        A: break x
        A: write x a1
        = x a1
        = fate A x broken A",
    ),
    (
        "a break by one who is removed for it",
        "
        A: role D owner
        A: write x v0
        B: checkout x
        cut B
        B: write x b1
        D: break x
        together
        = x v0
        = x!B b1
        = fate B x broken D
        A: disown D
        = x b1
        = held x B
        = fate B x held",
    ),
    (
        "a break by one who was an owner no more",
        "
        A: role D owner
        A: write x v0
        B: checkout x
        cut D
        A: role D editor
        D: break x
        together
        = x v0
        = held x B
        = member D editor ignored",
    ),
];

#[test]
fn breaks() {
    super::all(TABLE);
}

/// What holds for every scenario finds work that displaces what stood there, also where the scenario itself would not.
#[cfg(debug_assertions)]
#[test]
fn a_break_that_is_forgotten_is_noticed() {
    use journal::canary::{self, Canary};
    let text = "
        A: write x v0
        B: checkout x
        cut B
        B: write x b1
        A: break x
        together";
    let story = || std::panic::catch_unwind(|| super::play(text));
    assert!(story().is_ok());
    canary::set(Some(Canary::BreakForgotten));
    let noticed = story().is_err();
    canary::set(None);
    assert!(noticed);
}
