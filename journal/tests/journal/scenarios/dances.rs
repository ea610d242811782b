//! The ways in which programs save, against each other and against others' work.

const TABLE: &[super::Scenario<'_>] = &[
    (
        "a save that keeps a backup",
        "
        A: write s.blend v0
        A: dance s.blend v1 s.blend1
        A: dance s.blend v2 s.blend1
        = s.blend v2
        = s.blend1 v1",
    ),
    (
        "two such saves: the document conflicts, its backup does not",
        "
        A: write s.blend v0
        cut B
        A: dance s.blend a1 s.blend1
        A: dance s.blend a2 s.blend1
        B: dance s.blend b1 s.blend1
        together
        = s.blend a2
        = s.blend!B b1
        = s.blend1 a1",
    ),
    (
        "two such saves where a backup was before",
        "
        A: write s.blend v0
        A: dance s.blend v1 s.blend1
        cut B
        A: dance s.blend a s.blend1
        B: dance s.blend b s.blend1
        together
        = s.blend a
        = s.blend!B b
        = s.blend1 v1",
    ),
    (
        "such a save against a plain one",
        "
        A: write s.blend v0
        cut B
        A: write s.blend ann
        B: dance s.blend bob s.blend1
        together
        = s.blend ann
        = s.blend!B bob
        = s.blend1 v0",
    ),
    (
        "such a save against a removal",
        "
        A: write s.blend v0
        cut B
        A: rm s.blend
        B: dance s.blend bob s.blend1
        together
        = s.blend bob
        = s.blend1 v0",
    ),
    (
        "such a save against a rename",
        "
        A: write s.blend v0
        cut B
        A: mv s.blend t.blend
        B: dance s.blend bob s.blend1
        together
        = s.blend bob
        = s.blend1 v0
        = t.blend v0",
    ),
    (
        "three such saves",
        "
        A: write s.blend v0
        cut B C
        A: dance s.blend ann s.blend1
        B: dance s.blend bob s.blend1
        C: dance s.blend cat s.blend1
        together
        = s.blend ann
        = s.blend!B bob
        = s.blend!C cat
        = s.blend1 v0",
    ),
    (
        "a backup somebody keeps by hand is no program's",
        "
        A: write s v0; write s1 mine
        cut B
        A: write s1 kept
        B: dance s bob s1
        together
        = s bob
        = s1 kept",
    ),
    (
        "a temporary file renamed over the document, against a save",
        "
        A: write x v0
        cut B
        A: write x~ new
        A: mv x~ x
        B: write x bob
        together
        = x new
        = x!B bob",
    ),
    (
        "a save by temporary file that comes late",
        "
        A: write x v0
        cut B
        B: write x~ new
        B: mv x~ x
        A: write x ann
        together
        = x ann
        = x!B new",
    ),
    (
        "both save by temporary file",
        "
        A: write x v0
        cut B
        A: write x~ ann
        A: mv x~ x
        B: write x~ bob
        B: mv x~ x
        together
        = x ann
        = x!B bob",
    ),
    (
        "removed and written anew, against a save",
        "
        A: write x v0
        cut B
        A: rm x
        A: write x new
        B: write x bob
        together
        = x new
        = x!B bob",
    ),
    (
        "copied aside before the save, by two",
        "
        A: write x v0
        cut B
        A: cp x x~
        A: write x ann
        B: cp x x~
        B: write x bob
        together
        = x ann
        = x!B bob
        = x~ v0",
    ),
    (
        "such a save of a conflict copy",
        "
        A: write s v0
        cut B
        A: write s ann
        B: write s bob
        together
        C: dance s!B fixed s1
        = s ann
        = \"s (conflict B #)\" fixed
        = s1 bob",
    ),
    (
        "a stale program saves with a backup",
        "
        A: write s v0
        B: load s
        A: dance s v1 s1
        B: save s stale
        = s v1
        = s!B stale
        = s1 v0",
    ),
    (
        "two names exchanged, against a save of one",
        "
        A: write a va; write b vb
        cut A
        B: write a bob
        wait 1s
        A: xchg a b
        together B A
        = a bob
        = a!A vb
        = b va",
    ),
];

#[test]
fn dances() {
    super::all(TABLE);
}
