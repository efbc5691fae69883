# pgsluice. `make` alone lists what there is.

CARGO ?= cargo
# What scripts/setup.sh put under target/ for the client tests, if it did.
export PATH := $(CURDIR)/target/venv/bin:$(PATH)
export NODE_PATH := $(CURDIR)/target/node/node_modules

FUZZ_SECONDS ?= 60
CHAOS_ROUNDS ?= 500

.DEFAULT_GOAL := help
.PHONY: help run demo test chaos test-quick lint test-corpora test-servers conformance tools golden fuzz bench setup setup-test setup-servers setup-bench setup-conformance setup-tools

help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: setup ## a throw-away PostgreSQL with some tables, and the proxy in front on 127.0.0.1:6432
	$(CARGO) run --profile trial --quiet -- dev

demo: setup ## the same schema changes directly and through the proxy, measured
	$(CARGO) run --release --quiet -- demo

test: setup-test lint ## everything: format, lints, tests against a real server, real clients
	$(CARGO) test --no-fail-fast
	# Once more without io_uring, which many systems forbid.
	PGSLUICE_TEST_IO=epoll $(CARGO) test --no-fail-fast --test bytes --test malformed --test wire --test hardening

test-quick: ## the tests that need no server
	$(CARGO) test --lib --test config --test tidy

lint: ## format and lints
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --quiet -- -D warnings

test-corpora: setup-test ## every migration history in every way of sending, directly and proxied (needs ../shared/corpora)
	PGSLUICE_ALL_CORPORA=1 $(CARGO) test --test corpora -- --nocapture

chaos: setup-test ## schema changes that die at random moments, CHAOS_ROUNDS (500) of them
	PGSLUICE_CHAOS_ROUNDS=$(CHAOS_ROUNDS) $(CARGO) test --test chaos -- --nocapture

conformance: setup-conformance ## suites that others wrote, directly and proxied (SUITES="regress isolation" for some)
	$(CARGO) build --quiet
	python3 tests/conformance/run.py $(SUITES)

tools: setup-tools ## real migration tools beside an application, directly and proxied (TOOLS="alembic rails" for some)
	$(CARGO) build --quiet
	target/venv/bin/python tests/tools/run.py --check $(TOOLS)

test-servers: setup-servers ## PostgreSQL 10 to 19, every parity script in every way of sending
	PGSLUICE_ALL_WAYS=1 $(CARGO) test --test servers --test random_alters --test lock_sets --test unfinished -- --include-ignored --test-threads=1

golden: ## write the golden files anew; look at the difference before you commit it
	UPDATE_GOLDENS=1 $(CARGO) test

fuzz: setup ## look for bytes that break the readers, FUZZ_SECONDS (60) for each target
	@command -v cargo-fuzz >/dev/null || $(CARGO) install cargo-fuzz --locked
	for target in $(notdir $(wildcard fuzz/corpus/*)); do \
		mkdir -p fuzz/target/found/$$target && RUSTC_BOOTSTRAP=1 $(CARGO) fuzz run --sanitizer none $$target \
			fuzz/target/found/$$target fuzz/corpus/$$target -- -max_total_time=$(FUZZ_SECONDS) -timeout=20 || exit 1; \
	done

bench: setup-bench ## the relay beside direct and other proxies, stalls, backfills, cost per statement
	$(CARGO) bench --bench relay
	$(CARGO) bench --bench stall
	$(CARGO) bench --bench online
	$(CARGO) bench --bench backfill
	$(CARGO) bench --bench waits
	$(CARGO) bench --bench ddl
	$(CARGO) bench --bench statement

setup: ## install what a build and a throw-away server need, if it is missing
	@sh scripts/setup.sh build server

setup-test: ## as setup, and the clients, servers (10, 12, 15, 18, 19) and migration tools that the tests drive
	@sh scripts/setup.sh build server clients some-servers some-tools

setup-servers: ## as setup, and PostgreSQL 10 to 19 in target/servers
	@sh scripts/setup.sh build server servers

setup-bench: ## as setup, and the programs that the benches compare with
	@sh scripts/setup.sh build server bench

setup-conformance: ## as setup, and what the suites of others are built and run with
	@sh scripts/setup.sh build server conformance

setup-tools: ## as setup, and the migration tools of make tools
	@sh scripts/setup.sh build server clients tools
