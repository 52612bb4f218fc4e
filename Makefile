# Two commands for a fresh machine: `make demo` and `make test`. Both set up .venv first.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint clean

# The main job on simulated hopper-medium-replay: data, return model, teacher, students, evaluation.
demo: .venv/ready
	$(BIN)/python main.py --config=configs/hopper_mr.py:all,size=demo,source=simulated \
		--workdir=runs/demo --resume

test: .venv/ready-dev
	$(BIN)/python -m pytest --numprocesses=auto --dist=worksteal

lint: .venv/ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.venv/ready: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit("ractd_jax needs Python 3.11 or newer, $(PYTHON) is " + sys.version.split()[0] + "; name another: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

.venv/ready-dev: .venv/ready requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

clean:
	rm -rf .venv runs/demo
