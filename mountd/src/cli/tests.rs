//! Tests of what the command line accepts.

use clap::CommandFactory;

use super::*;

fn parse(words: &[&str]) -> Result<Cli, clap::Error> {
    Cli::try_parse_from([&["atelier"], words].concat())
}

#[test]
fn the_definition_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn the_verbs_of_this_version_are_offered_and_no_others() {
    let command = Cli::command();
    let mut offered: Vec<&str> = command
        .get_subcommands()
        .filter(|c| !c.is_hide_set())
        .map(clap::Command::get_name)
        .collect();
    offered.sort_unstable();
    assert_eq!(
        offered.join(" "),
        "completions conflicts demo doctor export gc history invite join lock ls-locks members mount restore \
         snapshot snapshots status sync unlock unmount verify"
    );
}

#[test]
fn every_query_takes_json_and_the_data_dir_stands_anywhere() {
    for words in [
        &["status", "--json"][..],
        &["status", "/p", "--json"],
        &["history", "/p/f", "--json"],
        &["snapshots", "/p", "--json"],
        &["restore", "/p/f", "--version", "3fa9", "--json"],
        &["restore", "/p/f", "--at", "2026-11-23", "--to", "/p/g"],
        &["snapshot", "/p", "first cut"],
        &["conflicts", "/p", "--json"],
        &["members", "/p", "--json"],
        &["verify", "/p", "--repair", "--json"],
        &["sync", "/p", "--timeout", "5s", "--json"],
        &["export", "/p", "/d", "--json"],
        &["gc", "/p", "--dry-run", "--keep-all", "30d", "--keep-daily", "365d", "--json"],
        &["doctor", "--json"],
        &["--data-dir", "/d", "unmount", "/p"],
        &["unmount", "/p", "--data-dir", "/d"],
        &["members", "/p", "remove", "ab12"],
        &["members", "/p", "take-back", "ab12", "--dry-run"],
        &["conflicts", "/p", "settle", "a/folder"],
        &["members", "/p", "role", "ab12", "reader"],
        &["invite", "/p", "--role", "reader", "--expires", "7d", "--uses", "3"],
        &["join", "atelier1x", "/p", "--peer", "/ip4/10.0.0.1/tcp/1", "--no-mdns"],
        &["mount", "/p", "--drive", "film", "--user", "anna", "--foreground", "--keep", "opened"],
        &["mount", "/p", "--listen", "/ip4/0.0.0.0/tcp/1", "--listen", "/ip6/::/tcp/1"],
        &["mount", "/p", "--key-store", "passphrase", "--show-virtual", "--allow-other"],
        &["demo", "/d", "--keep"],
        &["completions", "bash"],
    ] {
        assert!(parse(words).is_ok(), "{words:?}: {}", parse(words).unwrap_err());
    }
}

#[test]
fn what_makes_no_sense_is_a_usage_error() {
    for words in [
        &[][..],
        &["dance"],
        &["mount"],
        &["mount", "/p", "--listen", "10.0.0.1:80"],
        &["mount", "/p", "--key-store", "nowhere"],
        &["invite", "/p", "--uses", "0"],
        &["invite", "/p", "--role", "king"],
        &["invite", "/p", "--expires", "soon"],
        &["sync", "/p", "--timeout", "60"],
        &["join", "atelier1x"],
        &["members", "/p", "role", "ab12"],
        &["completions", "tcsh"],
    ] {
        assert!(parse(words).is_err_and(|e| e.use_stderr()), "{words:?}");
    }
}
