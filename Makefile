# Commands for a fresh machine: `make demo`, `make demo-maze`, `make test`. All set up .venv first.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo demo-maze report test test-fast doctest lint types wheel clean

# The main job on simulated hopper-medium-replay: data, return model, teacher, students, evaluation.
demo: .venv/ready
	$(BIN)/python main.py --config=configs/hopper_mr.py:all,size=demo,source=simulated \
		--workdir=runs/demo --resume

# Long plans: the small Maze2d, made here; teacher, return model, students, open and closed loop.
demo-maze: .venv/ready
	$(BIN)/python main.py --config=configs/maze2d_umaze.py:all,size=demo,source=simulated \
		--workdir=runs/demo-maze --resume

# Tables of docs/results.md and docs/report.html from the raw returns in results/.
report: .venv/ready
	$(BIN)/python -m ractd_jax.report.page

test: .venv/ready-dev
	$(BIN)/python -m pytest -m "" --numprocesses=auto --dist=worksteal

test-fast: .venv/ready-dev
	$(BIN)/python -m pytest --numprocesses=auto --dist=worksteal

# The examples in the docstrings.
doctest: .venv/ready-dev
	$(BIN)/python -m pytest --doctest-modules ractd_jax --numprocesses=auto --dist=worksteal

lint: .venv/ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/ready-dev
	$(BIN)/basedpyright

# The wheel, built, installed and used in a clean folder.
wheel: .venv/ready-dev
	$(BIN)/python -m tools.check_wheel --reuse

.venv/ready: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("ractd_jax needs Python 3.11 or newer, $(PYTHON) is " + sys.version.split()[0] + "; name another: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

.venv/ready-dev: .venv/ready requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

clean:
	rm -rf .venv runs/demo runs/demo-maze
