# make demo: set up and run the main job on built-in data. make test: set up and run the tests. make bench: measure speed.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
RUN := runs/demo
PHANTOMS := runs/phantoms

.PHONY: demo test test-fast bench lint typecheck audit fuzz setup clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(INSTALL) setuptools
	$(INSTALL) --no-build-isolation -e ".[dev]"  # built with the setuptools of constraints.txt, not with the newest
	touch $@

demo: $(READY)
	rm -rf $(RUN) $(PHANTOMS)
	$(BIN)/tpseg phantoms $(PHANTOMS)
	$(BIN)/tpseg data check $(PHANTOMS)/tasks.yaml
	$(BIN)/tpseg train --config small,demo --data $(PHANTOMS)/tasks.yaml --out $(RUN)
	$(BIN)/tpseg evaluate $(RUN) --data $(PHANTOMS)/tasks.yaml
	$(BIN)/tpseg predict $(RUN) $(PHANTOMS)/skin_lesion/images --task skin_lesion --out $(RUN)/predictions --overlay
	$(BIN)/tpseg report $(RUN)
	@echo
	@echo "Done. Open the report:  $(RUN)/report.html"
	@echo "Masks and overlays:     $(RUN)/predictions/"
	@echo "With your own images (a folder with images/ and masks/):"
	@echo "  . $(BIN)/activate"
	@echo "  tpseg data split FOLDER --task my_lesion --modality ultrasound   # writes tasks.yaml beside FOLDER"
	@echo "  tpseg data check tasks.yaml"
	@echo "  tpseg train --config small --data tasks.yaml --out runs/mine     # with a GPU and SAM 2 weights: --config default"

test: $(READY)
	$(BIN)/python -m pytest

test-fast: $(READY)
	$(BIN)/python -m pytest -m "not slow and not long"

bench: $(READY)
	$(BIN)/python -m benchmarks $(OPTIONS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

typecheck: $(READY)
	$(BIN)/mypy

audit: $(READY)
	.ci/audit

fuzz: $(READY)
	$(BIN)/python -m tests.fuzz --seconds 60

clean:
	rm -rf .venv runs
