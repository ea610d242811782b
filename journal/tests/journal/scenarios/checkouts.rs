//! Checkouts: who has a name to itself, and what ends that. Breaks are in [`super::breaks`].

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
        "what locks mean is what was said last, not what was heard last",
        "
        A: role D owner
        cut D
        D: locks advisory
        A: locks enforced
        together
        = locks enforced",
    ),
];

#[test]
fn checkouts() {
    super::all(TABLE);
}
