//! Whatever bytes come from a peer or a disk: decoded or refused, never a panic, never more memory than they take.
//!
//! The random part is the same in every run; `FUZZ_CASES` (a factor) and `FUZZ_SEED` change it (`make fuzz`).

use anyhow::{Context, Result, anyhow, bail, ensure};
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};
use tests::fuzz::{TARGETS, Target, corpus, corpus_dir, mutate, target};

fn number(name: &str, default: u32) -> u32 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// The stored and good inputs as they are, then changed ones. A failing input is kept in the corpus, so that it is tried
/// first from then on.
fn run(name: &str) -> Result<()> {
    let target = target(name).with_context(|| format!("no target {name}"))?;
    let mut inputs = corpus(target);
    inputs.extend((target.seeds)());
    ensure!(!inputs.is_empty(), "{name} has no seeds");
    for (index, input) in inputs.iter().enumerate() {
        eprintln!("{name}: input {index} of the corpus and the seeds");
        (target.run)(input);
    }
    let cases = target.cases.saturating_mul(number("FUZZ_CASES", 1));
    let mut seed = [7; 32];
    seed[..4].copy_from_slice(&number("FUZZ_SEED", 0).to_le_bytes());
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let found = runner.run(&mutate::edits(), |(which, edits)| {
        (target.run)(&mutate::apply(&inputs, which, &edits));
        Ok(())
    });
    if let Err(TestError::Fail(why, (which, edits))) = found {
        let input = mutate::apply(&inputs, which, &edits);
        bail!("{name}: {why}\ninput kept as {}", keep(target, &input));
    }
    found.map_err(|error| anyhow!("{name}: {error}"))
}

fn keep(target: &Target, input: &[u8]) -> String {
    let dir = corpus_dir(target);
    let file = dir.join(&blake3::hash(input).to_hex()[..16]);
    match std::fs::create_dir_all(&dir).and_then(|()| std::fs::write(&file, input)) {
        Ok(()) => file.display().to_string(),
        Err(error) => format!("(not kept: {error}) {input:02x?}"),
    }
}

macro_rules! each {
    ($($name:ident)*) => {
        $(#[test] fn $name() -> Result<()> { run(stringify!($name)) })*

        #[test]
        fn every_target_is_run() {
            let all: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(all, [$(stringify!($name)),*]);
        }
    };
}

each! {
    entry journal_message join_message lock_message chunk_messages ticket names manifest stored_chunk pack_parts packs log session
    fold
}
