//! Checkouts, what ends them, and what becomes of work that had not seen the break of its author's checkout.

const TABLE: &[super::Scenario<'_>] = &[
    (
        "one has a name to itself until it gives it back",
        "
        A: write x v0
        B: checkout x
        C! checkout x
        C! giveback x
        C! break x
        B! checkout x
        = x v0
        = held x B
        = fate B x held
        B: giveback x
        B! giveback x
        A! break x
        C: checkout x
        = x v0
        = held x C
        = fate B x given
        = fate C x held",
    ),
    (
        "of two at once the first in the order has it",
        "
        A: write x v0
        apart A B | C D
        B: checkout x
        C: checkout x
        C= x v0
        C= held x C
        together
        = x v0
        = held x B
        = fate B x held
        = fate C x void B",
    ),
    (
        "taken first, heard of late",
        "
        A: write x v0
        cut B
        B: checkout x
        C: checkout x
        B= x v0
        B= held x B
        together
        = x v0
        = held x C
        = fate B x void C",
    ),
    (
        "taken offline when nobody else does",
        "
        A: write x v0
        cut B
        B: checkout x
        wait 3d
        together
        = x v0
        = held x B",
    ),
    (
        "taken offline, and the other has given it back meanwhile",
        "
        A: write x v0
        cut B
        C: checkout x
        B: checkout x
        C: giveback x
        together
        = x v0
        = held x B
        = fate C x given",
    ),
    (
        "void once, void for ever",
        "
        A: write x v0
        apart A B | C D
        B: checkout x
        C: checkout x
        together
        B: giveback x
        = x v0
        = fate C x void B",
    ),
    (
        "given back late",
        "
        A: write x v0
        B: checkout x
        cut B
        B: giveback x
        B: write x b1
        C! checkout x
        together
        C: checkout x
        = x b1
        = held x C
        = fate B x given",
    ),
    (
        "three who come home one after the other",
        "
        A: write x v0
        cut B C D
        B: checkout x
        C: checkout x
        D: checkout x
        join A D
        join A B
        join A C
        = x v0
        = held x D
        = fate B x void D
        = fate C x void D",
    ),
    (
        "many times over",
        "
        A: write x v0
        B: checkout x
        B: giveback x
        C: checkout x
        C: giveback x
        cut D
        B: checkout x
        B: giveback x
        D: checkout x
        D: giveback x
        D: checkout x
        C: checkout x
        together
        = x v0
        = held x C
        = fate B x given
        = fate D x void C",
    ),
    (
        "names apart do not touch each other",
        "
        A: mkdir d
        A: write d/x v0; write x v0
        B: checkout x
        C: checkout d/x
        D: checkout d/y
        = d/
        = d/x v0
        = x v0
        = held x B
        = held d/x C
        = held d/y D",
    ),
    (
        "spelled in another way it is the same name",
        "
        A: write á v0
        B: checkout á
        C! checkout á
        = á v0
        = held á B",
    ),
    (
        "a name without a file",
        "
        B: checkout new
        C! checkout new
        = nothing
        = held new B
        B: write new b1
        = new b1
        = held new B",
    ),
    (
        "the file is moved away: the name stays with who has it",
        "
        A: write x v0
        B: checkout x
        C: mv x y
        = y v0
        = held x B
        C: checkout y
        B: giveback x
        = y v0
        = held y C",
    ),
    (
        "the file is removed and comes back",
        "
        A: write x v0
        B: checkout x
        B: rm x
        = nothing
        = held x B
        B: write x b1
        = x b1
        = held x B",
    ),
    (
        "a checkout overwrites nobody and is no excuse for it",
        "
        A: write x v0
        cut C
        B: checkout x
        C: write x cat
        B: write x bob
        together
        = x bob
        = x!C cat
        = held x B",
    ),
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
    (
        "a removed device holds nothing",
        "
        A: write x v0
        B: checkout x
        A: remove B
        = x v0
        = fate B x removed
        C: checkout x
        = x v0
        = held x C
        = fate B x removed",
    ),
    (
        "one that may only read holds nothing",
        "
        A: write x v0
        B: checkout x
        A: role B reader
        B! checkout x
        = fate B x removed
        A: role B editor
        = fate B x removed
        B: checkout x
        = x v0
        = held x B",
    ),
    (
        "what was void stays void when the holder goes",
        "
        A: write x v0
        apart A B | C D
        B: checkout x
        C: checkout x
        together
        A: remove B
        = x v0
        = fate B x removed
        = fate C x void B",
    ),
    (
        "taken by a removed device",
        "
        A: write x v0
        cut B
        A: remove B
        B: checkout x
        together
        = x v0
        = fate B x void
        C: checkout x
        A: take-back B
        = x v0
        = held x C
        = fate B x void",
    ),
    (
        "the removed holder's work is taken back",
        "
        A: write x v0
        B: checkout x
        cut B
        A: remove B
        B: write x b1
        together
        = x v0
        A: take-back B
        = x b1
        = fate B x removed",
    ),
    (
        "broken and removed, and the work taken back",
        "
        A: write x v0
        B: checkout x
        cut B
        A: break x
        A: remove B
        B: write x b1
        together
        = x v0
        = history x (b1) v0
        A: take-back B
        = x v0
        = x!B b1
        = fate B x broken A",
    ),
    (
        "somebody builds on what is kept aside and had not seen the break",
        "
        A: write x v0
        B: checkout x
        apart A D | B C
        A: break x
        B: write x b1
        C: write x c1
        A: remove B
        together
        = x v0
        = x!C c1
        = history x c1 (b1) v0",
    ),
    (
        "the twin of a disk whose checkout was broken",
        "
        A: write x v0
        B: checkout x
        clone B E
        E: write x e1
        A: break x
        B: write x b1
        together
        = x b1
        = x!B e1",
    ),
    (
        "a disk from before the checkout",
        "
        A: write x v0
        backup B
        B: checkout x
        cut B
        restore B
        B= x v0
        B: write x b1
        A: break x
        together
        = x v0
        = x!B b1",
    ),
    (
        "the name of a directory",
        "
        A: mkdir d
        A: write d/f f
        B: checkout d
        cut B
        B: rm d/f
        B: rmdir d
        A: break d
        together
        = d/
        = fate B d broken A",
    ),
    (
        "a directory that is moved although its name was broken moves",
        "
        A: mkdir d
        A: write d/f f
        B: checkout d
        cut B
        B: mv d e
        A: break d
        together
        = e/
        = e/f f",
    ),
    (
        "in a directory that is removed",
        "
        A: mkdir d
        A: write d/f f
        B: checkout d/f
        A: rm d/f
        A: rmdir d
        = nothing
        = held (removed)/f B",
    ),
    (
        "what locks mean",
        "
        = locks enforced
        B! locks advisory
        A: locks advisory
        = locks advisory
        A: locks enforced
        = locks enforced",
    ),
    (
        "what locks mean, said by two at once",
        "
        A: role D owner
        apart A B | C D
        A: locks enforced
        D: locks advisory
        together
        = locks advisory
        A: disown D
        = locks enforced",
    ),
    (
        "what locks mean, said late",
        "
        A: role D owner
        cut D
        D: locks advisory
        A: locks enforced
        together
        = locks advisory",
    ),
];

#[test]
fn checkouts() {
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
