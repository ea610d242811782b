# Every habit is one command. `make ci` is what .ci/run runs.

CARGO ?= cargo
# Errors of tests carry their whole chain; a backtrace of each would bury it.
export RUST_LIB_BACKTRACE ?= 0
# Where tests that skip themselves say so; shown at the end, since runners hide the output of passing tests.
SKIPS := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)/skipped.txt
NEXTEST_PROFILE := $(if $(CI),ci,default)

.PHONY: check fmt clippy deny test addon fsx model lock-model fuzz sim sim-night canaries bench bench-sync bench-mount \
	bench-scale bench-journal bench-locks doc ci

check: fmt clippy deny

fmt:
	$(CARGO) fmt --all -- --check

clippy:
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

# Licences, sources and banned crates are also checked by the tests (tidy), from the same deny.toml; cargo-deny adds
# the security advisories, for which it must reach their database.
deny:
	@if ! $(CARGO) deny --version >/dev/null 2>&1; then \
		echo "SKIPPED: cargo deny: not installed (the tests check licences and sources themselves)"; \
		exit 0; \
	fi; \
	$(CARGO) deny --locked check bans licenses sources || exit 1; \
	if $(CARGO) deny --locked fetch db >/dev/null 2>&1; then \
		$(CARGO) deny --locked check advisories; \
	else \
		echo "SKIPPED: cargo deny check advisories: the advisory database cannot be reached"; \
	fi

# The program is built first, with the same features as the tests: they run the real one. All crates of all platforms are
# fetched before, because the tests look at every licence and do so offline.
test:
	@mkdir -p $(dir $(SKIPS)) && rm -f $(SKIPS)
	$(CARGO) fetch --locked
	$(CARGO) build --locked --workspace --bins --tests
	@status=0; \
	if $(CARGO) nextest --version >/dev/null 2>&1; then \
		ATELIER_SKIPS=$(SKIPS) $(CARGO) nextest run --locked --workspace --profile $(NEXTEST_PROFILE) || status=$$?; \
	else \
		ATELIER_SKIPS=$(SKIPS) $(CARGO) test --locked --workspace --bins --lib --tests -- --test-threads=2 || status=$$?; \
	fi; \
	if [ -s $(SKIPS) ]; then echo "Tests that could not run here:"; sort $(SKIPS); fi; \
	exit $$status

# The Blender add-on alone, against a pretended daemon; `make test` runs these, too.
addon:
	python3 -B -m unittest discover -s blender/tests

# The random operations of the conformance tests, ten times as many: a matter of half an hour.
fsx:
	$(CARGO) build --locked --workspace --bins --tests
	ATELIER_FSX_OPS=1000000 $(CARGO) test --locked -p tests --test runner -- --nocapture fsx_finds

# More of the random sequences that `make test` runs 10,000 of: MODEL_CASES in each of four parts.
MODEL_CASES ?= 100000
model:
	$(CARGO) build --locked -p vfs --tests
	MODEL_CASES=$(MODEL_CASES) $(CARGO) nextest run --locked --profile model -p vfs programs_see_a_posix_tree

# The lock tables, with LOCK_MODEL_MORE more claims, pauses and faults than in `make test`: minutes, and gigabytes.
LOCK_MODEL_MORE ?= 1
lock-model:
	LOCK_MODEL_MORE=$(LOCK_MODEL_MORE) $(CARGO) test --locked --release -p net --lib -- locks::tests::model --nocapture --test-threads=1

# Every decoder and the fold over FUZZ_CASES times as many inputs as `make test`; another FUZZ_SEED gives others.
FUZZ_CASES ?= 50
FUZZ_SEED ?= $(shell date +%j)
fuzz:
	$(CARGO) build --locked --workspace --bins --tests
	FUZZ_CASES=$(FUZZ_CASES) FUZZ_SEED=$(FUZZ_SEED) $(CARGO) test --locked -p tests --test runner -- fuzz::

# Whole clusters from one seed, for SIM_MINUTES; the next seeds are other ones: SIM_SEEDS=A..B.
SIM_MINUTES ?= 5
SIM_SEEDS ?= 0..1000000000
sim:
	$(CARGO) run --locked --release -p tests --bin sim -- run --seeds $(SIM_SEEDS) --minutes $(SIM_MINUTES)

# 10^9 events.
sim-night:
	$(CARGO) run --locked --release -p tests --bin sim -- run --seeds $(SIM_SEEDS) --events 1000000000

# Every bug that the simulator must find, and how many seeds it survives.
canaries:
	$(CARGO) run --locked -p tests --bin sim -- canaries $(CANARIES)

bench: bench-mount bench-sync

# Against rsync and Syncthing, two hosts on this machine (root).
bench-sync:
	$(CARGO) build --locked --release --workspace --bins
	$(CARGO) run --locked --release -p tests --bin bench -- sync $(BENCH)

# Against the native file system, a plain FUSE pass-through and gocryptfs (root, for cold caches).
bench-mount:
	$(CARGO) build --locked --release --workspace --bins
	$(CARGO) run --locked --release -p tests --bin bench -- mount $(BENCH)

# Large files, directories and drives, beside the native file system (root, for cold caches; 30 GB of disk).
bench-scale:
	$(CARGO) build --locked --release --workspace --bins
	$(CARGO) run --locked --release -p tests --bin bench -- scale $(BENCH)

# A journal of a million entries: taking them in, starting, folding them anew.
bench-journal:
	$(CARGO) build --locked --release -p tests --bin bench
	$(CARGO) run --locked --release -p tests --bin bench -- journal $(BENCH)

bench-locks:
	$(CARGO) build --locked --release --workspace --bins
	$(CARGO) run --locked --release -p tests --bin bench -- locks $(BENCH)

doc:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps

ci: check test
