# Every command of the project. Each one makes what it needs first: system tools, then .venv from the lock.

BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
TESTS := scripts/tests.sh
PRODUCT := blockstore engine sra_frontend
SEED ?= 1
STATES ?= 20000
HISTORIES ?= 10000
KILLS ?= 200
RPO_SECONDS ?= 600
export PATH := $(CURDIR)/$(BIN):$(PATH):/usr/sbin:/sbin

.DEFAULT_GOAL := help
.PHONY: help demo drill test lint types imports unit tidy interop system scale rpo kills sim sim-sampled fuzz crash crash-sampled bench docs format \
	tools venv lock clean

help: ## show this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "  make %-14s %s\n", $$1, $$2 }'

demo: tools venv ## two daemons, a real image, an increment, two kills, a promotion
	$(BIN)/leeward demo

drill: tools venv ## test copy, planned move, disaster, split brain, failback: every image compared at every step
	$(BIN)/leeward demo --drill

test: tools lint types imports unit tidy interop system sim-sampled fuzz crash-sampled ## everything CI runs, some 20 minutes on 2 cores
	@echo "make test: all passed"

lint: venv ## ruff (rules and format), codespell
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

types: venv ## mypy --strict
	$(BIN)/mypy --strict

imports: venv ## the import contract: who may import whom (docs/architecture.md)
	@$(BIN)/lint-imports --no-logo

unit: tools venv ## pure parts, formats and stores, on both cores
	$(TESTS) tests/unit tests/golden tests/suites -- -n 2

tidy: tools venv ## the rules of the house
	$(TESTS) tests/tidy

interop: tools venv ## real NBD clients against our server
	$(TESTS) tests/interop

system: tools venv ## real daemons, real kills
	$(TESTS) tests/system -- --seed $(SEED) -n 2 --dist loadfile -m "not slow"

scale: tools venv ## tebibytes and 16 volumes, 500 points and 30 kills: promotions, pauses, retention, verify, with their figures
	$(TESTS) tests/system -- --seed $(SEED) -m slow -k "not rpo_under" -s --timeout 3000

rpo: tools venv ## a promised RPO of 2 s under three loads, 10 minutes each: RPO_SECONDS=600
	$(TESTS) tests/system -- -m slow -k rpo_under -s --rpo-seconds $(RPO_SECONDS) --timeout 3000

kills: tools venv ## 200 SIGKILLs of either daemon under load; KILLS=200 SEED=1
	$(TESTS) tests/system -- -k kills_at_random --kills $(KILLS) --seed $(SEED) --timeout 3000

sim: tools venv ## two sites on a virtual clock, 10,000 histories of 200 steps: HISTORIES=10000 SEED=1
	$(TESTS) tests/sim -- --histories $(HISTORIES) --seed $(SEED) -n 2

sim-sampled: tools venv ## 1,000 of those histories, as in make test
	$(TESTS) tests/sim -- --histories 1000 --seed $(SEED) -n 2

fuzz: tools venv ## rubbish at every door
	$(TESTS) tests/fuzz -- --seed $(SEED)

crash: tools venv ## every legal disk state after a kill or a power cut: STATES=20000 of them, SEED=1
	$(TESTS) tests/crash -- --crash-states $(STATES) --seed $(SEED)

crash-sampled: tools venv ## 2,000 of those states, as in make test
	$(TESTS) tests/crash -- --crash-states 2000 --seed $(SEED) -n 2

bench: tools venv ## speed as ratios against nbdcopy, qemu-img, rsync, nbdkit, qemu-nbd; BENCH="-k copy --size 512"
	@mkdir -p build/bench
	$(PYTEST) benchmarks -q --benchmark-only --benchmark-json build/bench/results.json $(BENCH)

docs: venv ## write the generated pages anew; build all into build/docs, with warnings as errors
	$(BIN)/python docs/generate.py
	$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet -b html docs build/docs
	@echo "build/docs/index.html"

format: venv ## let ruff put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

venv: ## .venv from requirements.lock, hashes checked
	@scripts/venv.sh

tools: ## the system tools that tests need, through apt when root
	@scripts/system-tools.sh

lock: ## write requirements.lock and constraints.txt anew; UPGRADE=--upgrade for newest versions
	scripts/lock.sh $(UPGRADE)

clean: ## remove everything that was made
	rm -rf .venv build .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks .import_linter_cache
	find $(PRODUCT) tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
