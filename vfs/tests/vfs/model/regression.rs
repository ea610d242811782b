//! Sequences of operations that once failed.

use vfs::fs::RenameMode;

use super::machine::{Machine, Setup};
use super::operation::{Access, Company, Offset, Operation as Do, Place, Theirs};

const ALONE: Setup = Setup { company: Company::Alone, sync_publishes: false };
const TOGETHER: Setup = Setup { company: Company::Together, sync_publishes: false };

fn at(dir: &'static str, name: &'static str) -> Place {
    Place { dir, name }
}

fn run(setup: Setup, operations: impl IntoIterator<Item = Do>) {
    let mut machine = Machine::new(setup);
    operations.into_iter().for_each(|operation| machine.step(operation));
    machine.end();
}

/// The machine itself works: a save, an edit, a crash, another member's edit.
#[test]
fn an_ordinary_day_passes() {
    for setup in [ALONE, TOGETHER] {
        run(
            setup,
            [
                Do::Create { slot: 0, at: at("", "a"), exclusive: true },
                Do::Write { slot: 0, at: Offset::At(0), len: 9_000, fill: 1 },
                Do::Release { slot: 0 },
                Do::Pass { ms: 200 },
                Do::Sync,
                Do::Open { slot: 0, at: at("", "a"), access: Access::Both },
                Do::Write { slot: 0, at: Offset::At(100), len: 10, fill: 2 },
                Do::Fsync { slot: 0 },
                Do::Kill,
            ],
        );
    }
}

#[test]
fn a_directory_does_not_change_places_with_what_lies_in_it() {
    let mode = RenameMode::Exchange;
    let (d, e, a) = (at("", "d"), at("d", "e"), at("d/e", "a"));
    for (from, to) in [(d, e), (e, d), (d, a), (a, d)] {
        run(
            ALONE,
            [
                Do::Mkdir { at: d },
                Do::Mkdir { at: e },
                Do::Create { slot: 0, at: a, exclusive: true },
                Do::Rename { from, to, mode },
            ],
        );
    }
}

#[test]
fn a_link_that_has_changed_places_can_be_removed() {
    let (link, file) = (at("", "a"), at("", "b"));
    for then in [
        Do::Unlink { at: file },
        Do::Rename { from: file, to: at("", "e"), mode: RenameMode::Replace },
    ] {
        run(
            ALONE,
            [
                Do::Symlink { at: link, len: 3 },
                Do::Create { slot: 0, at: file, exclusive: true },
                Do::Release { slot: 0 },
                Do::Rename { from: link, to: file, mode: RenameMode::Exchange },
                then,
            ],
        );
    }
}

#[test]
fn a_link_that_others_moved_away_and_back_can_be_removed() {
    let (link, away) = (at("", "a"), at("", "b"));
    run(
        TOGETHER,
        [
            Do::Symlink { at: link, len: 3 },
            Do::SealAll,
            Do::Sync,
            Do::Their(Theirs::Rename(link, away)),
            Do::Their(Theirs::Rename(away, link)),
            Do::Sync,
            Do::Unlink { at: link },
        ],
    );
}

#[test]
fn a_power_cut_does_not_take_back_what_was_published_since_the_fsync() {
    let (tied, file) = (at("", "a"), at("", "b"));
    run(
        ALONE,
        [
            // Something waits, so that the log is not emptied.
            Do::Create { slot: 1, at: tied, exclusive: true },
            Do::Create { slot: 0, at: file, exclusive: true },
            Do::Write { slot: 0, at: Offset::At(0), len: 1, fill: 0 },
            Do::Fsync { slot: 0 },
            Do::Truncate { slot: 0, at: Offset::At(2) },
            Do::Release { slot: 0 },
            Do::Pass { ms: 60 },
            Do::PowerLoss { kept: 0 },
        ],
    );
}

#[test]
fn a_power_cut_does_not_bring_back_a_directory_that_has_changed_places() {
    let (file, dir) = (at("", "b"), at("", "d"));
    for kept in [0, 93, 255] {
        run(
            ALONE,
            [
                Do::Create { slot: 0, at: file, exclusive: true },
                Do::Mkdir { at: dir },
                Do::Rename { from: file, to: dir, mode: RenameMode::Exchange },
                Do::PowerLoss { kept },
            ],
        );
    }
}

#[test]
fn a_directory_that_replaces_one_of_ours_replaces_nothing_of_others() {
    let (dir, name) = (at("", "d"), at("", "doc.blend"));
    run(
        TOGETHER,
        [
            Do::Their(Theirs::Save(name)),
            Do::Mkdir { at: dir },
            Do::Mkdir { at: name },
            Do::Sync,
            Do::Rename { from: dir, to: name, mode: RenameMode::Replace },
        ],
    );
}

#[test]
fn a_file_that_is_being_written_is_listed_although_others_removed_its_name() {
    for dir in ["", "d"] {
        let (file, other) = (at(dir, "doc.blend"), at(dir, "a"));
        run(
            TOGETHER,
            [
                Do::Mkdir { at: at("", "d") },
                Do::Create { slot: 0, at: file, exclusive: false },
                Do::Release { slot: 0 },
                Do::SealAll,
                Do::Sync,
                Do::Open { slot: 1, at: file, access: Access::Both },
                Do::Write { slot: 1, at: Offset::At(0), len: 1, fill: 0 },
                Do::Their(Theirs::Remove(file)),
                Do::Sync,
                Do::Rmdir { at: at("", "d") },
                Do::Rename { from: file, to: other, mode: RenameMode::Replace },
            ],
        );
    }
}

#[test]
fn a_directory_made_again_shows_what_others_put_into_it_meanwhile() {
    let dir = at("", "d");
    run(
        TOGETHER,
        [
            Do::Mkdir { at: dir },
            Do::SealAll,
            Do::Sync,
            Do::Rmdir { at: dir },
            Do::Their(Theirs::Save(at("d", "a"))),
            Do::Sync,
            Do::Mkdir { at: dir },
        ],
    );
}

#[test]
fn what_others_made_official_does_not_change_places_unseen() {
    let (ours, other) = (at("", "doc.blend"), at("", "a"));
    run(
        TOGETHER,
        [
            Do::Their(Theirs::Save(ours)),
            Do::Create { slot: 0, at: ours, exclusive: true },
            Do::Create { slot: 0, at: other, exclusive: true },
            Do::Open { slot: 1, at: ours, access: Access::Both },
            Do::Sync,
            Do::Rename { from: other, to: ours, mode: RenameMode::Exchange },
            Do::Write { slot: 1, at: Offset::At(0), len: 1, fill: 0 },
            Do::Release { slot: 1 },
        ],
    );
}
