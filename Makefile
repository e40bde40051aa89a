# Everything here needs only python3 >= 3.11 with venv; the first target that needs it makes .venv from the lock.
.DEFAULT_GOAL := help
PYTHON ?= python3
export PREFECT_SERVER_ANALYTICS_ENABLED = false
export DO_NOT_TRACK = 1

.PHONY: help demo test test-fast crash endurance lint lock bench bench-intake bench-waits bench-sweep
help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

.venv/ready: requirements.lock pyproject.toml
	@echo "making .venv from requirements.lock (about a minute) ..."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "python3 3.11 or newer is needed: name it with PYTHON=..."; exit 1; }
	@$(PYTHON) -m venv .venv
	@.venv/bin/pip install --quiet --quiet --disable-pip-version-check --no-deps --require-hashes --requirement requirements.lock
	@.venv/bin/pip install --quiet --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch .venv/ready

demo: .venv/ready ## break a pretend cluster and watch its repair; SCENARIO=all, PROFILE=documented, FLEET=50, KEEP=1
	@.venv/bin/runbooks demo $(if $(SCENARIO),--scenario $(SCENARIO)) $(if $(PROFILE),--profile $(PROFILE)) $(if $(FLEET),--fleet $(FLEET)) $(if $(KEEP),--keep)

test: .venv/ready ## all tests, the slow part on a Prefect server of its own
	@echo "running all tests (about half an hour; make test-fast leaves the Prefect server out) ..."
	@RUNBOOKS_READ_RETRY_DELAYS=0,0 .venv/bin/pytest -n 2 --dist loadgroup --durations=5

test-fast: .venv/ready ## the tests that need neither a Prefect server nor a process of the command
	@RUNBOOKS_READ_RETRY_DELAYS=0,0 .venv/bin/pytest -n 2 -m "not server and not command"

crash: .venv/ready ## kill the worker at every message of every scenario (hours; POINTS=200: half an hour); KILL=intake, prefect, postgresql, answers, standstill; needs PostgreSQL
	@.venv/bin/python -m tests.crash.matrix $(if $(POINTS),--points $(POINTS)) $(if $(KILL),--kill $(KILL)) $(if $(JSON),--json $(JSON))

endurance: .venv/ready ## 1,000 races of runs for one cluster, 10,000 faulty calls to each kind of ticket system (quarter of an hour)
	@RUNBOOKS_INTERLEAVINGS=1000 FAULTY_CALLS=10000 .venv/bin/pytest -n 2 --timeout 3600 --durations=5 \
		tests/tasks/test_interleavings.py tests/tickets/test_faulty_calls.py

lint: .venv/ready ## ruff and mypy --strict
	@.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy

lock: .venv/ready ## write requirements.lock anew: all versions with hashes, no index addresses
	@$(PYTHON) -m venv .venv/lock && .venv/lock/bin/pip install --quiet uv
	@.venv/lock/bin/uv pip compile pyproject.toml --extra test --universal --generate-hashes --no-emit-index-url \
		--custom-compile-command "make lock" --quiet --output-file requirements.lock

bench: ## all benchmarks, also where a target of one is missed; JSON=x.json writes x-intake.json, x-waits.json and x-sweep.json
	@$(MAKE) --no-print-directory --keep-going bench-intake bench-waits bench-sweep

bench-intake: .venv/ready ## how fast alarms are taken in, and what plain Prefect does with them (half an hour); JSON=x.json: x-intake.json
	@.venv/bin/python -m tests.bench.intake $(if $(JSON),--json $(basename $(JSON))-intake.json)

bench-waits: .venv/ready ## what runs that wait cost, beside plain Prefect (over an hour; needs PostgreSQL); QUICK=1, ONLY=storm,late, JSON=x.json: x-waits.json
	@.venv/bin/python -m tests.bench.waits $(if $(QUICK),--quick) $(if $(ONLY),--only $(ONLY)) $(if $(JSON),--json $(basename $(JSON))-waits.json)

bench-sweep: .venv/ready ## what a sweep over 100, 1,000 and 5,000 clusters costs, beside a bare script (quarter of an hour); SIZES=100,1000, JSON=x.json: x-sweep.json
	@.venv/bin/python -m tests.bench.sweep $(if $(SIZES),--sizes $(SIZES)) $(if $(JSON),--json $(basename $(JSON))-sweep.json)
