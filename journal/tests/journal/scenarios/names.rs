//! Names: spellings, endings, lengths, and the names of copies.

const TABLE: &[super::Scenario<'_>] = &[
    ("two spellings of one name are one file", "
        cut B
        A: write e\u{301} one
        B: write \u{e9} two
        together
        = e\u{301} one
        = \u{e9}!B two"),
    ("a file is saved under another spelling and keeps its own", "
        A: write e\u{301} one
        B: write \u{e9} two
        = e\u{301} two"),
    ("removed under another spelling", "
        A: write e\u{301} one
        B: rm \u{e9}
        = nothing"),
    ("renamed onto another spelling of a name that is there", "
        A: write e\u{301} one; write x X
        B: mv x \u{e9}
        = e\u{301} X"),
    ("two spellings of one directory are one", "
        cut B
        A: mkdir e\u{301}
        A: write e\u{301}/a a
        B: mkdir \u{e9}
        B: write \u{e9}/b b
        together
        = e\u{301}/
        = e\u{301}/a a
        = e\u{301}/b b"),
    ("names that differ in case are two", "
        cut B
        A: write Readme ann
        B: write README bob
        together
        = README bob
        = Readme ann"),
    ("a copy keeps its ending", "
        cut B
        A: write scene.blend ann
        B: write scene.blend bob
        together
        = scene.blend ann
        = scene.blend!B bob"),
    ("an ending of two parts is kept whole", "
        cut B
        A: write a.tar.gz ann; write b.TAR.xz ann; write .tar.gz ann; write c.b.gz ann
        B: write a.tar.gz bob; write b.TAR.xz bob; write .tar.gz bob; write c.b.gz bob
        together
        = .tar.gz ann
        = .tar.gz!B bob
        = a.tar.gz ann
        = a.tar.gz!B bob
        = b.TAR.xz ann
        = b.TAR.xz!B bob
        = c.b.gz ann
        = c.b.gz!B bob"),
    ("dots that begin no ending", "
        cut B
        A: write .bashrc ann; write end. ann; write \"Mr. Bean\" ann; write x.anendingthatistoolong ann
        B: write .bashrc bob; write end. bob; write \"Mr. Bean\" bob; write x.anendingthatistoolong bob
        together
        = .bashrc ann
        = .bashrc!B bob
        = end. ann
        = end.!B bob
        = \"Mr. Bean\" ann
        = \"Mr. Bean!B\" bob
        = x.anendingthatistoolong ann
        = x.anendingthatistoolong!B bob"),
    ("the longest names have copies, too", "
        cut B
        A: write LONG ann; write UMLAUTS ann
        B: write LONG bob; write UMLAUTS bob
        together
        = LONG ann
        = LONG!B bob
        = UMLAUTS ann
        = UMLAUTS!B bob"),
    ("two longest names that begin alike have two copies' names", "
        cut B
        A: write LONG ann; write LONG2 ann
        B: write LONG bob; write LONG2 bob
        together
        = LONG ann
        = LONG!B bob
        = LONG2 ann
        = LONG2!B bob"),
    ("a directory's copy keeps its ending", "
        cut B
        A: write assets.v2 file
        B: mkdir assets.v2
        together
        = assets.v2 file
        = assets.v2!B/"),
    ("a copy gives way to a file of its very name, and has it back afterwards", "
        cut B
        A: write x ann
        B: write x bob
        together
        C: squat x!B real
        = x ann
        = x!!B bob
        = \"x (conflict B #)\" real
        C: rm \"x (conflict B #)\"
        = x ann
        = x!B bob"),
    ("a file of a copy's name that one made who comes late", "
        cut B
        A: write x ann
        B: write x bob
        together
        cut D
        D: squat x!B real
        together
        = x ann
        = x!!B bob
        = \"x (conflict B #)\" real"),
    ("a copy that had to take a long name is dealt with like any other", "
        cut B
        A: write x ann
        B: write x bob
        together
        C: squat x!B real
        D: mv x!!B y
        = x ann
        = y bob
        = \"x (conflict B #)\" real"),
    ("a copy of what was a copy", "
        cut B
        A: write x ann
        B: write x bob
        together
        C: write x!B fixed
        cut D
        D: write \"x (conflict B #)\" dora
        A: write \"x (conflict B #)\" again
        together
        = x ann
        = \"x (conflict B #)\" again
        = \"x (conflict B #)!D\" dora"),
    ("two copies by one hand have two names", "
        A: write x v0
        B: load x
        A: write x v1
        B: save x one
        B: save x two
        = x v1
        = x!B one
        = x!B two"),
    ("spaces, brackets and quotes in names", "
        cut B
        A: write \"a (1).txt\" ann; write \"it's.txt\" ann
        B: write \"a (1).txt\" bob; write \"it's.txt\" bob
        together
        = \"a (1).txt\" ann
        = \"a (1).txt!B\" bob
        = it's.txt ann
        = it's.txt!B bob"),
];

#[test]
fn names() {
    // Names of 255 bytes are no reading.
    let long = |tail: &str| format!("{}{tail}.blend", "x".repeat(255 - 6 - tail.len()));
    let table: Vec<(&str, String)> = TABLE
        .iter()
        .map(|(name, text)| {
            let text = text.replace("LONG2", &long("2")).replace("LONG", &long(""));
            (*name, text.replace("UMLAUTS", &"\u{fc}".repeat(127)))
        })
        .collect();
    let table: Vec<super::Scenario<'_>> =
        table.iter().map(|(name, text)| (*name, text.as_str())).collect();
    super::all(&table);
}
