//! The rules of the code base that a compiler does not check.
//!
//! Leaves out taste. A rule stands here only if breaking it by accident has a price: an arrow that turns the layers
//! into a knot, a clock in a pure module, a file nobody can hold in their head, a test that hopes instead of waiting.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::harness::program;

/// Which crates of ours each crate may use.
const ARROWS: [(&str, &[&str]); 6] = [
    ("cas", &[]),
    ("journal", &["cas"]),
    ("net", &["journal", "cas"]),
    ("vfs", &["journal", "cas"]),
    ("mountd", &["vfs", "net", "journal", "cas"]),
    ("tests", &["mountd", "vfs", "net", "journal", "cas"]),
];

/// Modules that take time, randomness and I/O as arguments. A module includes what is below it.
const PURE: [(&str, &[&str]); 4] = [
    ("cas", &["id", "chunker", "manifest", "format"]),
    (
        "journal",
        &[
            "id",
            "name",
            "op",
            "entry",
            "codec",
            "signed",
            "chain",
            "order",
            "date",
            "member",
            "register",
            "placement",
            "view",
            "past",
            "lock",
            "conflict",
            "fold",
            "replica",
            "hlc",
        ],
    ),
    ("net", &["limits", "wire", "sync", "fetch", "locks"]),
    ("vfs", &["errno", "attr", "drafts", "names", "past"]),
];

/// What a pure module must not even name: it makes the same call give another answer tomorrow.
const IMPURE: [&str; 10] = [
    "tokio::",
    "libp2p_stream",
    "fuser::",
    "std::fs",
    "fs::File",
    "std::net::Tcp",
    "SystemTime::now",
    "Instant::now",
    "getrandom::",
    "std::thread",
];

/// Its order of iteration differs from run to run: forbidden where the order could reach a hash, a message or a
/// decision that devices must take alike. (Drafts are one device's own business.)
const HASH_ORDERED: [&str; 2] = ["HashMap", "HashSet"];

/// Lines of a file that are not tests.
const FILE_LINES_MAX: usize = 700;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).to_owned()
}

struct Source {
    krate: String,
    path: PathBuf,
    text: String,
}

impl Source {
    fn shown(&self) -> String {
        self.path.strip_prefix(root()).unwrap_or(&self.path).display().to_string()
    }

    fn is_test_file(&self) -> bool {
        let inside = |dir: &str| self.path.components().any(|part| part.as_os_str() == dir);
        let crate_of_tests = self.krate == "tests";
        crate_of_tests
            || self.path.file_stem().is_some_and(|stem| stem == "tests")
            || inside("tests")
    }

    /// The text without its `#[cfg(test)] mod ... { ... }` blocks, comments emptied, line numbers kept.
    fn product(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut in_tests = false;
        let mut cfg_test = false;
        for line in self.text.lines() {
            if in_tests {
                in_tests = line != "}";
                lines.push(String::new());
                continue;
            }
            if cfg_test && line.starts_with("mod ") && line.ends_with('{') {
                in_tests = true;
                lines.push(String::new());
                cfg_test = false;
                continue;
            }
            cfg_test = line == "#[cfg(test)]" || (cfg_test && line.starts_with("#["));
            let comment = line.trim_start().starts_with("//");
            lines.push(if comment { String::new() } else { line.to_owned() });
        }
        lines
    }

    /// Path of the module inside its crate: `a/b.rs` is `a::b`.
    fn module(&self) -> String {
        let inside = self.path.strip_prefix(root().join(&self.krate).join("src"));
        let inside = inside.unwrap_or(&self.path).with_extension("");
        inside
            .components()
            .map(|part| part.as_os_str().to_string_lossy())
            .collect::<Vec<_>>()
            .join("::")
    }
}

fn sources() -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    for (krate, _) in ARROWS {
        for path in files_below(&root().join(krate), "rs")? {
            let text =
                fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            sources.push(Source { krate: krate.to_owned(), path, text });
        }
    }
    ensure!(sources.len() > 20, "only {} source files found: the rules see nothing", sources.len());
    Ok(sources)
}

fn files_below(dir: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                dirs.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn report(rule: &str, offences: Vec<String>) -> Result<()> {
    ensure!(offences.is_empty(), "{rule}:\n  {}", offences.join("\n  "));
    Ok(())
}

#[test]
fn manifests_keep_the_arrows() -> Result<()> {
    let mut offences = Vec::new();
    for (krate, allowed) in ARROWS {
        let manifest = fs::read_to_string(root().join(krate).join("Cargo.toml"))?;
        let mut in_dependencies = false;
        for line in manifest.lines() {
            if line.starts_with('[') {
                in_dependencies = line.contains("dependencies");
                continue;
            }
            let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
            let ours = ARROWS.iter().any(|(known, _)| *known == name);
            if in_dependencies && ours && !allowed.contains(&name) {
                offences.push(format!("{krate} -> {name}"));
            }
        }
    }
    report("these arrows are not in the design", offences)
}

#[test]
fn use_lines_keep_the_arrows() -> Result<()> {
    let mut offences = Vec::new();
    for source in sources()?
        .iter()
        .filter(|source| source.path.starts_with(root().join(&source.krate).join("src")))
    {
        let allowed = ARROWS
            .iter()
            .find(|(krate, _)| *krate == source.krate)
            .map_or(&[][..], |found| found.1);
        for (number, line) in source.product().iter().enumerate() {
            let used = line.trim_start().trim_start_matches("pub ").strip_prefix("use ");
            let first = used
                .and_then(|used| used.split(['.', ':', ' ', ';', '{']).next())
                .unwrap_or_default();
            let ours = ARROWS.iter().any(|(known, _)| *known == first);
            if ours && first != source.krate && !allowed.contains(&first) {
                offences.push(format!("{}:{}: {}", source.shown(), number + 1, line.trim()));
            }
        }
    }
    report("these lines use a crate against the arrows of the design", offences)
}

#[test]
fn journal_uses_only_the_ids_of_cas() -> Result<()> {
    let mut offences = Vec::new();
    for source in
        sources()?.iter().filter(|source| source.krate == "journal" && !source.is_test_file())
    {
        for (number, line) in source.product().iter().enumerate() {
            let uses_more = line.match_indices("cas::").any(|(at, found)| {
                let before = line.get(..at).unwrap_or_default();
                let after = line.get(at + found.len()..).unwrap_or_default();
                let whole_word =
                    !before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
                whole_word && !after.starts_with("id")
            });
            if uses_more {
                offences.push(format!("{}:{}: {}", source.shown(), number + 1, line.trim()));
            }
        }
    }
    report("the journal knows contents by their ids and nothing else of cas", offences)
}

#[test]
fn files_stay_small() -> Result<()> {
    let mut offences = Vec::new();
    for source in sources()? {
        let lines = if source.is_test_file() {
            source.text.lines().count()
        } else {
            let product = source.product();
            let all = source.text.lines().count();
            let tests = source.text.lines().zip(&product).filter(|(line, kept)| {
                kept.is_empty() && !line.is_empty() && !line.trim_start().starts_with("//")
            });
            all - tests.count()
        };
        if lines > FILE_LINES_MAX && !source.is_test_file() {
            offences.push(format!("{}: {lines} lines", source.shown()));
        }
    }
    report(
        &format!("these files have more than {FILE_LINES_MAX} lines that are not tests"),
        offences,
    )
}

#[test]
fn every_module_says_what_it_is_for() -> Result<()> {
    let mut offences = Vec::new();
    for source in sources()? {
        let head = source.text.lines().find(|line| !line.is_empty() && !line.starts_with("#!["));
        // What a file of tests is for, its name says.
        let words = if source.path.ends_with("tests.rs") { 0 } else { 20 };
        if !head.is_some_and(|line| line.starts_with("//! ") && line.len() > words) {
            offences.push(format!("{}: {:?}", source.shown(), head.unwrap_or("")));
        }
    }
    report("these modules do not open with `//!` and their purpose", offences)
}

#[test]
fn no_module_is_called_mod() -> Result<()> {
    let named_mod = |source: &Source| source.path.file_name().is_some_and(|name| name == "mod.rs");
    let offences =
        sources()?.iter().filter(|source| named_mod(source)).map(Source::shown).collect();
    report("`foo.rs` + `foo/`, never `foo/mod.rs`", offences)
}

#[test]
fn pure_modules_name_no_clock_disk_network_or_hash_order() -> Result<()> {
    let mut offences = Vec::new();
    let mut seen = 0;
    for source in sources()?.iter().filter(|source| !source.is_test_file()) {
        let module = source.module();
        let top = module.split("::").next().unwrap_or_default();
        let pure =
            PURE.iter().any(|(krate, modules)| *krate == source.krate && modules.contains(&top));
        if !pure {
            continue;
        }
        seen += 1;
        for (number, line) in source.product().iter().enumerate() {
            let hashes = if source.krate == "vfs" { &[][..] } else { &HASH_ORDERED };
            for word in IMPURE.iter().chain(hashes).filter(|word| line.contains(**word)) {
                offences.push(format!("{}:{}: {word}", source.shown(), number + 1));
            }
        }
    }
    ensure!(seen >= 10, "only {seen} pure modules found: the list is out of date");
    report("pure modules take time, randomness and I/O as arguments", offences)
}

#[test]
fn nothing_is_left_undone_or_switched_off() -> Result<()> {
    // Put together here, so that this file does not offend itself.
    let everywhere = [
        ["#[ig", "nore"].concat(),
        ["to", "do!("].concat(),
        ["unimpl", "emented!("].concat(),
        ["FIX", "ME"].concat(),
        ["db", "g!("].concat(),
    ];
    let sleeps = [["thread::", "sleep"].concat(), ["time::", "sleep"].concat()];
    let mut offences = Vec::new();
    for source in sources()? {
        let waits = source.shown() == "tests/src/harness/wait.rs";
        let product = source.product();
        for (number, line) in source.text.lines().enumerate() {
            let in_test = source.is_test_file()
                || product
                    .get(number)
                    .is_some_and(|kept| kept.is_empty() && !line.trim().is_empty());
            let comment = line.trim_start().starts_with("//");
            let sleeping =
                in_test && !waits && !comment && sleeps.iter().any(|word| line.contains(word));
            if sleeping || everywhere.iter().any(|word| line.contains(word)) {
                offences.push(format!("{}:{}: {}", source.shown(), number + 1, line.trim()));
            }
        }
    }
    report("unfinished, switched off, or sleeping in a test", offences)
}

#[test]
fn links_in_documents_lead_somewhere() -> Result<()> {
    let mut offences = Vec::new();
    let mut links = 0;
    for document in files_below(&root(), "md")? {
        let text = fs::read_to_string(&document)?;
        for (at, _) in text.match_indices("](") {
            let rest = text.get(at + 2..).unwrap_or_default();
            let target = rest.split([')', ' ', '\n']).next().unwrap_or_default();
            let path = target.split('#').next().unwrap_or_default();
            if target.contains("://") || target.starts_with("mailto:") || path.is_empty() {
                continue;
            }
            links += 1;
            let from = document.parent().unwrap_or(Path::new("."));
            if !from.join(path).exists() {
                offences.push(format!("{}: {target}", document.display()));
            }
        }
    }
    println!("{links} links");
    report("these links lead nowhere", offences)
}

#[test]
fn licences_and_sources_are_the_allowed_ones() -> Result<()> {
    let allowed = allowed_licences()?;
    let mut cargo = Command::new(option_env!("CARGO").unwrap_or("cargo"));
    cargo.current_dir(root()).args(["metadata", "--format-version", "1", "--locked", "--offline"]);
    let metadata: Value = serde_json::from_str(&program::ok(&mut cargo)?)?;
    let packages = metadata["packages"].as_array().context("no packages in cargo's metadata")?;
    ensure!(packages.len() > 50, "only {} packages found", packages.len());
    let mut offences = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or("?");
        let source = package["source"].as_str();
        let ours = ARROWS.iter().any(|(krate, _)| *krate == name);
        if !source.map_or(ours, |source| source.starts_with("registry+")) {
            offences.push(format!("{name} comes from {source:?}"));
        }
        let licence = package["license"].as_str().unwrap_or("none");
        if !is_allowed(licence, &allowed) {
            offences.push(format!("{name} is licensed {licence}"));
        }
    }
    report("not allowed by deny.toml", offences)
}

fn allowed_licences() -> Result<Vec<String>> {
    let text = fs::read_to_string(root().join("deny.toml"))?;
    let list = text.split("\nallow = [").nth(1).and_then(|rest| rest.split(']').next());
    let list = list.context("no list of licences in deny.toml")?;
    Ok(list.split('"').skip(1).step_by(2).map(str::to_owned).collect())
}

/// Whether an SPDX expression can be met with the allowed licences. `/` is the old way to write `OR`.
fn is_allowed(expression: &str, allowed: &[String]) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let verdict = either(&tokens, &mut at, allowed);
    verdict && at == tokens.len()
}

fn either(tokens: &[&str], at: &mut usize, allowed: &[String]) -> bool {
    let mut verdict = both(tokens, at, allowed);
    while tokens.get(*at) == Some(&"OR") {
        *at += 1;
        verdict |= both(tokens, at, allowed);
    }
    verdict
}

fn both(tokens: &[&str], at: &mut usize, allowed: &[String]) -> bool {
    let mut verdict = one(tokens, at, allowed);
    while tokens.get(*at) == Some(&"AND") {
        *at += 1;
        verdict &= one(tokens, at, allowed);
    }
    verdict
}

fn one(tokens: &[&str], at: &mut usize, allowed: &[String]) -> bool {
    let Some(token) = tokens.get(*at) else { return false };
    *at += 1;
    if *token == "(" {
        let verdict = either(tokens, at, allowed);
        *at += 1;
        return verdict;
    }
    let mut name = (*token).to_owned();
    if let (Some(&"WITH"), Some(exception)) = (tokens.get(*at), tokens.get(*at + 1)) {
        name = format!("{name} WITH {exception}");
        *at += 2;
    }
    allowed.contains(&name)
}

#[test]
fn licence_expressions_are_read_as_spdx_does() {
    let allowed = ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned);
    let cases: BTreeMap<&str, bool> = [
        ("MIT", true),
        ("GPL-2.0-only", false),
        ("GPL-2.0-only OR MIT", true),
        ("GPL-2.0-only/MIT", true),
        ("GPL-2.0-only AND MIT", false),
        ("(GPL-2.0-only OR MIT) AND ISC", true),
        ("MIT AND (GPL-2.0-only AND ISC)", false),
        ("Apache-2.0 WITH LLVM-exception", true),
        ("Apache-2.0", false),
        ("", false),
    ]
    .into();
    for (expression, expected) in cases {
        assert_eq!(is_allowed(expression, &allowed), expected, "{expression}");
    }
}

#[test]
fn nothing_names_a_path_of_one_machine() -> Result<()> {
    let words = ["/wo", "rk/"].concat();
    let home = ["/ro", "ot/"].concat();
    let mut offences = Vec::new();
    for extension in ["rs", "toml", "md", "sh"] {
        for path in files_below(&root(), extension)? {
            let text = fs::read_to_string(&path)?;
            for (number, line) in text.lines().enumerate() {
                if line.contains(&words) || line.contains(&home) {
                    offences.push(format!("{}:{}", path.display(), number + 1));
                }
            }
        }
    }
    report("paths of one machine", offences)
}
