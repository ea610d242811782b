//! Late work: what nobody had when its author came back counts as published then, whatever clocks said.

const TABLE: &[super::Scenario<'_>] = &[
    (
        "a clock that is years behind does not make late work official",
        "
        clock B -10y
        A: write x v0
        cut B
        B: write x bob
        A: write x ann
        together
        = x ann
        = x!B bob",
    ),
    (
        "a clock that is years ahead changes nothing either",
        "
        clock B +10y
        A: write x v0
        cut B
        B: write x bob
        A: write x ann
        together
        = x ann
        = x!B bob",
    ),
    (
        "with the team's clock years behind it is the same",
        "
        clock A -10y
        A: write x v0
        cut B
        B: write x bob
        A: write x ann
        together
        = x ann
        = x!B bob",
    ),
    (
        "a save on a link that seemed open does not displace the team",
        "
        A: write x v0
        cut D
        D: write x dead
        A: write x team
        wait 7d
        B: write x team2
        together
        = x team2
        = x!D dead",
    ),
    (
        "between groups that were busy within themselves time decides",
        "
        A: write x v0
        apart A B | C D
        C: write x train
        A: write x studio
        together
        = x train
        = x!A studio",
    ),
    (
        "carried home by another",
        "
        A: write x v0
        apart A C | B D
        B: write x bob
        A: write x ann
        cut B
        join A D
        = x bob
        = x!A ann
        together
        = x bob
        = x!A ann",
    ),
    (
        "nobody carried it home",
        "
        A: write x v0
        apart A C D | B
        B: write x bob
        A: write x ann
        together
        = x ann
        = x!B bob",
    ),
    (
        "late twice, each time for itself",
        "
        A: write x v0
        cut B
        B: write x b1
        A: write x a1
        together
        cut B
        B: write x b2
        A: write x a2
        together
        = x a2
        = x!B b1
        = x!B b2",
    ),
    (
        "late work on names nobody else touched",
        "
        A: write x v0
        cut B
        B: write y bob; mkdir d
        B: write d/f f
        A: write x ann
        together
        = d/
        = d/f f
        = x ann
        = y bob",
    ),
    (
        "a late removal of what nobody changed removes it",
        "
        A: write x v0
        cut B
        B: rm x
        A: write y ann
        together
        = y ann",
    ),
    (
        "late and early work of one device on one file",
        "
        A: write x v0
        B: write x early
        cut B
        B: write x late
        A: write x ann
        together
        = x ann
        = x!B late",
    ),
    (
        "two who were away, one after the other",
        "
        A: write x v0
        cut B C
        B: write x bob
        C: write x cat
        join A C
        join A B
        together
        = x cat
        = x!B bob",
    ),
    (
        "what the first to come back built on is not in question",
        "
        A: write x v0
        cut B C
        B: write x bob
        join A B
        A: write x ann
        C: write x cat
        together
        = x ann
        = x!C cat",
    ),
    (
        "the team waits for one who is away and finds his work untouched",
        "
        A: write x v0
        cut B
        B: write x b1
        B: write x b2
        wait 30d
        together
        = x b2",
    ),
    (
        "two lonely ones meet before they come home",
        "
        A: write x v0
        cut B C
        B: write x bob
        C: write x cat
        join B C
        A: write x ann
        together
        = x bob
        = x!A ann
        = x!C cat",
    ),
    (
        "one who forgot that others had its work calls it late, and what they built on it stays official",
        "
        A: write x v0
        apart A | B C D
        B: write x b1
        cut B
        restart B
        C: write x c
        join A B
        A= x b1
        together
        = x c",
    ),
];

#[test]
fn late() {
    super::all(TABLE);
}
