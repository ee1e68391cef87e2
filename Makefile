# Needs Python 3.11+, make and PyPI; everything else goes into .venv. `make help` lists the targets.
#
#   PYTHON=...        the interpreter .venv is made with (default: the first of python3, python3.13 ... that is new enough)
#   TEST_PROCESSES=4  how many processes run the tests; each starts servers of its own, and mostly waits
#   SEEDS=10000 SEED=7 how many seeds `make simulation` runs; or the one seed it replays
#   SCENARIO=soak     which long run with real kills `make faults` does (default: all of them, some hours)
#   REDEMPTIONS=1000 ERASE_ROUNDS=1000 CRASH_POINTS=200 how long `make faults-races` races
#   EVENTS=1000000 LETTERS=5000 how much `make operators` replays and mends
#   ARGS='...'        more arguments for `rewardpoints dev` (make run), pytest (make test) or the benchmark (make bench)

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?=
TEST_PROCESSES ?= 4
ARGS ?=

APACHE_KAFKA_TESTS := tests/events \
  tests/e2e/test_orders.py tests/e2e/test_redemptions.py tests/e2e/test_apache_kafka.py tests/e2e/test_lag_command.py \
  tests/e2e/test_secure_kafka.py tests/e2e/test_worker_processes.py
FAULTS := worker-kills mongodb-kills bad-records soak broker-kills
RESULTS := docs/reliability
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
# One stamp for what is installed: `dev` holds everything `run` needs, so its stamp satisfies both.
MADE := $(VENV)/.made
RUN_STAMP := $(VENV)/.installed-run
DEV_STAMP := $(VENV)/.installed-dev

.PHONY: help run test bench console-screenshots simulation faults faults-races operators test-apache-kafka lint format types check
.PHONY: promtool constraints clean

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name what; do \
	  printf '  make %-18s %s\n' "$$name" "$$what"; \
	done

run: $(RUN_STAMP) ## start everything on this machine: servers, worker, API (ARGS='--port 8080')
	@exec $(BIN)/rewardpoints dev $(ARGS)

test: $(DEV_STAMP) ## run every test (ARGS='-k redeem')
	@$(BIN)/python -m pytest -n $(TEST_PROCESSES) $(ARGS)

# Java 17 and Maven with a repository it reaches are asked for when it runs; without them it says what is missing.
test-apache-kafka: $(DEV_STAMP) ## run the tests of Kafka on Apache Kafka 4, where Java and Maven have it
	@missing=$$($(BIN)/python -m tests.apache_kafka) && status=0 || status=$$?; \
	case $$status in \
	  0) REWARDPOINTS_TEST_KAFKA=apache $(BIN)/python -m pytest -n $(TEST_PROCESSES) $(APACHE_KAFKA_TESTS) $(ARGS);; \
	  75) echo "SKIPPED test-apache-kafka: $$missing";; \
	  *) exit $$status;; \
	esac

simulation: $(DEV_STAMP) ## run SEEDS=10000 simulated runs with faults, or replay one: SEED=7
	@$(BIN)/python -m tests.simulation $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),10000))

# One minute between the kills of brokers, ten times, is what the figures in docs/reliability.md come from.
faults: $(DEV_STAMP) ## kill real processes for long: SCENARIO=soak, worker-kills, mongodb-kills, bad-records, broker-kills
	@for scenario in $(or $(SCENARIO),$(FAULTS)); do \
	  case $$scenario in \
	    soak) REWARDPOINTS_TEST_KAFKA=apache $(BIN)/python -m tests.faults soak --results $(RESULTS) $(ARGS);; \
	    broker-kills) REWARDPOINTS_TEST_BROKER_KILLS=10 REWARDPOINTS_TEST_BROKER_KILL_PAUSE_SECONDS=60 \
	      REWARDPOINTS_TEST_KAFKA=apache $(BIN)/python -m pytest -rs tests/e2e/test_apache_kafka.py \
	      -k a_broker_killed_under_load --junit-xml=.cache/broker-kills.xml $(ARGS);; \
	    *) $(BIN)/python -m tests.faults $$scenario $(ARGS);; \
	  esac; \
	done

RACES := tests/faults/test_redemptions_at_once.py tests/faults/test_erase_races.py tests/faults/test_unpublished.py \
  tests/faults/test_connections.py

faults-races: $(DEV_STAMP) ## run the races and broken connections of tests/faults in their long form (most of an hour)
	@REWARDPOINTS_TEST_REDEMPTIONS=$(or $(REDEMPTIONS),1000) REWARDPOINTS_TEST_ERASE_ROUNDS=$(or $(ERASE_ROUNDS),1000) \
	  REWARDPOINTS_TEST_CRASH_POINTS=$(or $(CRASH_POINTS),200) REWARDPOINTS_TEST_CONNECTION_FAULTS=1 \
	  $(BIN)/python -m pytest $(RACES) $(ARGS)

# Only unpacked: nothing is installed or started, and no rights are needed but for a list of packages that is too old.
promtool: ## fetch promtool, which checks the alert rules, from Debian's package prometheus, where apt-get has it
	@if command -v promtool >/dev/null || [ -x .cache/promtool/usr/bin/promtool ]; then exit; fi; \
	if ! command -v apt-get >/dev/null; then echo 'SKIPPED promtool: there is no apt-get'; exit; fi; \
	mkdir -p .cache/promtool; cd .cache/promtool; \
	{ apt-get -qq download prometheus || { apt-get -qq update && apt-get -qq download prometheus; }; } 2>/dev/null \
	  && dpkg -x prometheus_*.deb . || echo 'SKIPPED promtool: apt-get cannot download the package prometheus'

operators: $(DEV_STAMP) ## replay EVENTS=1000000 beside live traffic, mend LETTERS=5000 dead letters (an hour; much memory)
	@REWARDPOINTS_TEST_REPLAY_EVENTS=$(or $(EVENTS),1000000) REWARDPOINTS_TEST_DEAD_LETTERS=$(or $(LETTERS),5000) \
	  $(BIN)/python -m pytest tests/faults/test_replay_at_size.py \
	  tests/e2e/test_dead_letters.py::test_six_kinds_of_dead_letters_mended_in_bulk $(ARGS)

# Published figures come from a machine that does nothing else. A quick run is kept in .cache/bench and not published.
bench: $(DEV_STAMP) ## measure against what the servers allow (half an hour; ARGS='--quick', ARGS='ingest --kafka apache')
	@$(BIN)/python -m bench $(ARGS)
	@$(BIN)/python -m bench report

# Needs a Chromium, as the browser tests of `make test` do; it says so where there is none.
console-screenshots: $(DEV_STAMP) ## take the screenshots of docs/console.md again
	@$(BIN)/python -m tests.console docs/console

lint: $(DEV_STAMP) ## ruff: rules and format
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check

format: $(DEV_STAMP) ## let ruff repair what it can
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

types: $(DEV_STAMP) ## mypy, strict
	@$(BIN)/mypy

check: lint types test test-apache-kafka ## what CI runs

constraints: $(MADE) ## renew constraints.txt: exact versions for every supported Python
	@$(PIP) install -q uv
	@{ \
	  echo '# Made by `make constraints`: the exact versions that are installed and tested, for Python 3.11 and later.'; \
	  $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --extra dev \
	    --no-header --no-annotate --no-emit-index-url --no-emit-find-links pyproject.toml; \
	} > constraints.new
	@mv constraints.new constraints.txt

clean: ## remove .venv and every cache; what `make run` stored (.rewardpoints) stays
	@rm -rf $(VENV) .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	@find rewardpoints tests bench -name __pycache__ -type d -prune -exec rm -rf {} +

$(MADE):
	@found=''; \
	for candidate in $(if $(PYTHON),'$(PYTHON)',python3 python3.13 python3.12 python3.11 python); do \
	  if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found="$$candidate"; break; fi; \
	done; \
	if [ -z "$$found" ]; then echo 'Python 3.11 or later is needed; name one with make PYTHON=/path/to/python' >&2; exit 1; fi; \
	rm -rf $(VENV); \
	if ! "$$found" -m venv $(VENV); then \
	  rm -rf $(VENV); echo "$$found cannot make a virtual environment; on Debian: apt install python3-venv" >&2; exit 1; \
	fi
	@touch $@

$(RUN_STAMP): $(MADE) pyproject.toml constraints.txt
	@if [ $(DEV_STAMP) -nt pyproject.toml ] && [ $(DEV_STAMP) -nt constraints.txt ]; then :; else \
	  echo 'installing into $(VENV)'; $(PIP) install -q -c constraints.txt -e '.[embedded]'; \
	fi
	@touch $@

$(DEV_STAMP): $(MADE) pyproject.toml constraints.txt
	@echo 'installing into $(VENV)'
	@$(PIP) install -q -c constraints.txt -e '.[dev]'
	@touch $@
