# Two commands: `make report` (set-up, then the quick batch on embedded data) and `make test` (set-up, every notebook, tests/).
PYTHON ?= python3.11
BIN    := .venv/bin
JOBS   ?= 2
# one thread per process: the seeds of a batch are processes, and threads would only fight
export OMP_NUM_THREADS = 1
export OPENBLAS_NUM_THREADS = 1
export MKL_NUM_THREADS = 1
export TOKENIZERS_PARALLELISM = false

.PHONY: setup report test lab export drift
setup: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@if git rev-parse --git-dir >/dev/null 2>&1; then git config --local include.path ../.gitconfig; fi
	@touch $@

report: setup
	$(BIN)/rlrec run params/quick.yaml --jobs $(JOBS)

test: setup
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup tests

lab: setup
	$(BIN)/jupyter lab nbs

# notebooks -> rlrec/, outputs kept, metadata cleaned
export: setup
	$(BIN)/nbdev_export
	$(BIN)/nbdev_clean
	$(BIN)/nbdev_clean --fname reports

# what is exported and clean stays as it is
drift: export
	git diff --exit-code -- nbs reports rlrec settings.ini
