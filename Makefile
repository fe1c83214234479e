# Two commands do everything: `make demo` and `make test`. Each sets up .venv by itself, with PYTHON=python3.13 for that one.
PYTHON ?= $(firstword $(foreach name,python3.11 python3.10 python3.9 python3.13 python3.12 python3,$(shell $(name) -c 'import sys; sys.exit(not (3, 9) <= sys.version_info < (3, 14))' 2>/dev/null && command -v $(name))))
VERSION := $(if $(PYTHON),$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null))
VENV ?= .venv
BIN := $(VENV)/bin
DEMO := demo_run

.PHONY: demo test test-slow matrix lint docs bench ablations clean

demo: $(VENV)/runtime
	$(BIN)/python main.py --mode=plan --dataset_cfg=demo
	$(BIN)/python main.py --mode=train --dataset_cfg=demo --model_dir=$(DEMO)
	$(BIN)/python main.py --mode=eval --model_dir=$(DEMO)
	$(BIN)/python -m hparams.demo $(DEMO)/held_out
	$(BIN)/python main.py --mode=predict --model_dir=$(DEMO) $(DEMO)/held_out
	$(BIN)/python main.py --mode=export --model_dir=$(DEMO) --overwrite
	$(BIN)/python main.py --mode=preview --dataset_cfg=demo --preview_file=$(DEMO)/preview.png
	@echo "See $(DEMO)/report.html, $(DEMO)/preview.png and the SavedModel in $(DEMO)/saved_model."

test: $(VENV)/dev
	$(BIN)/python -m pytest

test-slow: $(VENV)/dev
	$(BIN)/python -m pytest -m slow -n 1

# Fresh environments with every supported TensorFlow; ONLY="tensorflow-cpu==2.15 tensorflow==2.21" for some of them.
matrix: $(VENV)/python$(VERSION)
	$(BIN)/python -m tests.environments.matrix $(if $(ONLY),--only $(ONLY)) $(if $(WRITE),--write)

lint: $(VENV)/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	$(BIN)/python -m pytest -m docs tests/docs

bench: $(VENV)/dev
	for script in $(filter-out %/environments.py %/check_published.py %/own_photos.py %/gpu.py,$(wildcard benchmarks/*.py)) benchmarks/ablations/table_3_counts.py; do PYTHONPATH=. $(BIN)/python $$script; done

ablations: $(VENV)/dev
	for script in benchmarks/ablations/table_*.py; do PYTHONPATH=. $(BIN)/python $$script; done

clean:
	rm -rf $(VENV) $(DEMO) site

# The stamp names the version, so that another PYTHON makes the environment anew.
$(VENV)/python$(VERSION):
	@test -n "$(VERSION)" || { echo "Needs Python 3.9 to 3.13; name one with PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip  # older ones search for an hour
	@touch $@

$(VENV)/runtime: $(VENV)/python$(VERSION) requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/dev: $(VENV)/python$(VERSION) requirements.txt requirements-onnx.txt requirements-heif.txt requirements-docs.txt requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@ $(VENV)/runtime
