# The course's commands. Each one sets up what it needs in $(VENV) and then runs; `make` alone lists them.
#   make course          on a fresh machine that has only python3 (3.11 or newer, with venv and pip)
#   make test PYTHON=python3.12 VENV=/tmp/venv WORKERS=4
#   make course ARGS="3_text_prompts -p shots 4 --profile full"

PYTHON  ?= python3
VENV    ?= .venv
ARGS    ?=
CORES   := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
# Processes side by side, one notebook or test file each, with one thread each: on small models this beats one process with
# many threads, and equal thread counts keep the stored outputs equal. A notebook takes about 1 GB, hence at most four.
WORKERS ?= $(shell [ $(CORES) -lt 4 ] && echo $(CORES) || echo 4)
ONE_THREAD := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE
# glibc gives large buffers back to the system at once and PyTorch asks for them again at every step: keep them instead.
export MALLOC_MMAP_THRESHOLD_ := 1073741824
export MALLOC_TRIM_THRESHOLD_ := 2147483648

BIN      := $(VENV)/bin
# The environment is rebuilt when one of these files or the folder of the checkout changes, and only then.
RECIPE   := pyproject.toml requirements/constraints.txt
KEY      := $(shell (pwd; cat $(RECIPE)) | cksum | cut -d' ' -f1)
STAMP    := $(VENV)/.vlmcourse-$(KEY)
NOTEBOOKS := $(wildcard notebooks)
FILES    := .

.PHONY: help install course test lab lint format notebooks-refresh lock clean
.DEFAULT_GOAL := help

help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 20

install: $(STAMP) ## make the virtual environment and install the package into it (the others do it themselves)

$(STAMP): $(RECIPE)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo \
	  "make: $(PYTHON) is missing or older than Python 3.11; name another one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@echo "Installing into $(VENV): the first time this takes minutes, most of them for PyTorch ..."
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV) || { echo \
	  "make: $(PYTHON) could not make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements/constraints.txt -e '.[notebooks,test]'
	@rm -f $(VENV)/.vlmcourse-*
	@touch $@

course: $(STAMP) ## run every notebook, in parallel, and build the pages in build/course (goes on where it was interrupted)
	@$(BIN)/python -m vlmcourse.course run $(ARGS)

# One pytest run for unit tests and notebooks, so that no worker waits while the other finishes. loadscope keeps the cells of a
# notebook (and the tests of a file) on one worker, which nbval needs; nbval compares every stored output strictly.
test: lint ## lint, unit tests, and every notebook against its stored outputs
	@$(ONE_THREAD) $(BIN)/python -m pytest -q -n $(WORKERS) --dist loadscope \
	  --nbval --nbval-current-env --nbval-cell-timeout 300 --nbval-sanitize-with tests/nbval-sanitize.cfg \
	  tests $(NOTEBOOKS) $(ARGS)

lab: $(STAMP) ## open the course in JupyterLab
	@$(BIN)/python -m jupyterlab --notebook-dir=. $(ARGS)

lint: $(STAMP) ## check style and format of code and notebooks
	@$(BIN)/python -m ruff check --quiet .
	@$(BIN)/python -m ruff format --check --quiet . || { $(BIN)/python -m ruff format --check .; echo "make: run 'make format'" >&2; exit 1; }

format: $(STAMP) ## rewrite code and notebooks in the format that lint asks for
	@$(BIN)/python -m ruff check --fix-only --quiet $(FILES)
	@$(BIN)/python -m ruff format --quiet $(FILES)

# formatted first: a cell that changes after its run would need another run
notebooks-refresh: FILES = $(NOTEBOOKS)
notebooks-refresh: format ## execute the notebooks in place and renew their stored outputs and the README's map (ARGS=names)
	@$(ONE_THREAD) $(BIN)/python -m vlmcourse.course notebooks refresh --jobs $(WORKERS) $(ARGS)

lock: $(STAMP) ## write the versions of the environment to requirements/constraints.txt
	@{ echo "# Versions of one environment in which all tests pass, written by 'make lock'; pyproject.toml has the allowed ranges."; \
	  $(BIN)/python -m pip freeze --exclude-editable | grep -E '^[A-Za-z0-9_.-]+==' | grep -viE '^(nvidia|cuda|triton|pip|setuptools)'; \
	} > requirements/constraints.tmp && mv requirements/constraints.tmp requirements/constraints.txt

clean: ## remove results and caches (the virtual environment stays)
	rm -rf build .pytest_cache .ruff_cache
	find vlmcourse tests -name __pycache__ -type d -prune -exec rm -rf {} +
