//! The notation of scenarios. One line, one step; `#` begins a remark.
//!
//! ```text
//! A: write x v0; mkdir d     one entry of device A, which sees what A sees. Actions:
//!                            write PATH TEXT | load PATH | save PATH TEXT (over what was loaded) | rm PATH | mv A B
//!                            cp A B | xchg A B | link PATH TARGET | chmod PATH MODE | mkdir PATH | rmdir PATH
//!                            attr PATH NAME VALUE (- removes it)
//!                            rmdir! PATH (although it is not empty) | dance PATH TEXT BACKUP | snap NAME
//!                            checkout PATH | giveback PATH | break PATH | locks POLICY
//!                            squat COPY TEXT (a file of that very name) | settle PATH (moves that lost)
//!                            remove D | disown D | role D ROLE | call D NAME | invite TICKET ROLE USES
//!                            admit D TICKET
//! A! write x v0              the same, and the journal refuses it
//! A: take-back D             lets count what D did that its removal had not seen
//! cut B C                    each alone from now on
//! apart A C | B D            groups; who is not named is alone
//! join A C B                 C, then B come back to A's group: pull, say what is late, push
//! together [B ..]            everybody comes back, in this order, to the group of the first (A)
//! wait 3d                    ms, s, h, d, y
//! clock B +10y               B's clock is off by that from now on
//! backup B, restore B        B's disk is copied, and comes back
//! restart B                  B starts again
//! clone B E                  B's disk lives twice, as B and, alone, as E
//! mark NAME                  this moment, for `@NAME`
//! = PATH TEXT [MODE] [N=V]      what everybody who is connected with A shows, all of it: files,
//! = PATH/ [MODE]             directories,
//! = PATH -> TARGET           links;
//! = nothing                  not a thing
//! = skipped A -> B by D      `conflicts` lists this move
//! = held PATH D              D has it checked out
//! = fate D PATH WORDS        of D's last checkout of it: held, given, broken D, removed, void D, void (it had no right)
//! = locks POLICY             enforced or advisory
//! = member D WORDS           role, then any of: removed forked overused ignored (only the named members are looked at)
//! = history PATH V V ..      texts, newest first; (V) does not count, - is a removal
//! B= PATH TEXT               what B shows
//! @NAME PATH TEXT            what was shown at that moment, or in the snapshot of that name
//! ```
//!
//! `x!B` is the conflict copy of `x` by B, `x!!B` one that had to take a long name, and in an action `x!B=text` the one
//! that says `text`. Names with spaces stand in quotes.

/// One step of a scenario.
#[derive(Debug)]
pub enum Step {
    Act { device: char, actions: Vec<Vec<String>> },
    Refused { device: char, actions: Vec<Vec<String>> },
    TakeBack { by: char, whom: char },
    Cut(Vec<char>),
    Apart(Vec<Vec<char>>),
    Join(Vec<char>),
    Together(Vec<char>),
    Wait(u64),
    Clock { device: char, skew_ms: i64 },
    Backup(char),
    Restore(char),
    Restart(char),
    Clone { device: char, twin: char },
    Mark(String),
    Expect { of: Subject, lines: Vec<Vec<String>> },
}

/// Whose tree, or of when.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Subject {
    Everybody,
    Device(char),
    Then(String),
}

/// The words of a line, `;` and `|` among them as words of their own.
fn words(line: &str) -> Vec<String> {
    let (mut out, mut word, mut quoted) = (Vec::new(), String::new(), false);
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            '#' if !quoted && word.is_empty() => break,
            ' ' | ';' if !quoted => {
                if !word.is_empty() {
                    out.push(std::mem::take(&mut word));
                }
                if c == ';' {
                    out.push(";".to_owned());
                }
            }
            _ => word.push(c),
        }
    }
    if !word.is_empty() {
        out.push(word);
    }
    out
}

fn letters(words: &[String]) -> Vec<char> {
    words.iter().map(|word| letter(word)).collect()
}

fn letter(word: &str) -> char {
    let mut chars = word.chars();
    match (chars.next(), chars.next()) {
        (Some(c @ 'A'..='Z'), None) => c,
        _ => panic!("{word} is no device"),
    }
}

fn span_ms(text: &str) -> i64 {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || "+-".contains(c));
    let count: i64 = text[..text.len() - unit.len()].parse().unwrap();
    let ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "y" => 365 * 86_400_000,
        _ => panic!("{text} is no time"),
    };
    count * ms
}

/// The steps of a scenario.
pub fn steps(text: &str) -> Vec<Step> {
    let mut out: Vec<Step> = Vec::new();
    for line in text.lines() {
        let words = words(line);
        let Some((first, rest)) = words.split_first() else { continue };
        let subject = match first.as_str() {
            "=" => Some(Subject::Everybody),
            text if text.len() == 2 && text.ends_with('=') => {
                Some(Subject::Device(letter(&text[..1])))
            }
            text => text.strip_prefix('@').map(|name| Subject::Then(name.to_owned())),
        };
        if let Some(subject) = subject {
            match out.last_mut() {
                Some(Step::Expect { of, lines }) if *of == subject => lines.push(rest.to_vec()),
                _ => out.push(Step::Expect { of: subject, lines: vec![rest.to_vec()] }),
            }
            continue;
        }
        out.push(step(first, rest));
    }
    out
}

fn step(first: &str, rest: &[String]) -> Step {
    let one = || rest.first().unwrap_or_else(|| panic!("{first} what?")).as_str();
    match first {
        "cut" => Step::Cut(letters(rest)),
        "apart" => Step::Apart(rest.split(|word| word == "|").map(letters).collect()),
        "join" => Step::Join(letters(rest)),
        "together" => Step::Together(letters(rest)),
        "wait" => Step::Wait(span_ms(one()).unsigned_abs()),
        "clock" => Step::Clock { device: letter(one()), skew_ms: span_ms(&rest[1]) },
        "backup" => Step::Backup(letter(one())),
        "restore" => Step::Restore(letter(one())),
        "restart" => Step::Restart(letter(one())),
        "clone" => Step::Clone { device: letter(one()), twin: letter(&rest[1]) },
        "mark" => Step::Mark(one().to_owned()),
        text if text.ends_with(':') || text.ends_with('!') => {
            let device = letter(&text[..1]);
            if one() == "take-back" {
                return Step::TakeBack { by: device, whom: letter(&rest[1]) };
            }
            let actions = rest.split(|word| word == ";").map(<[String]>::to_vec).collect();
            match text.ends_with(':') {
                true => Step::Act { device, actions },
                false => Step::Refused { device, actions },
            }
        }
        _ => panic!("no step {first} {rest:?}"),
    }
}
