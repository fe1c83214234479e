# Two commands do everything: `make demo` and `make test`. Each sets up .venv by itself.
PYTHON ?= $(firstword $(foreach name,python3.11 python3.10 python3.9 python3,$(shell $(name) -c 'import sys; sys.exit(not (3, 9) <= sys.version_info < (3, 12))' 2>/dev/null && command -v $(name))))
BIN := .venv/bin
DEMO := demo_run

.PHONY: demo test test-slow lint bench ablations clean

demo: .venv/runtime
	$(BIN)/python main.py --mode=plan --dataset_cfg=demo
	$(BIN)/python main.py --mode=train --dataset_cfg=demo --model_dir=$(DEMO)
	$(BIN)/python main.py --mode=eval --model_dir=$(DEMO)
	$(BIN)/python -m hparams.demo $(DEMO)/held_out
	$(BIN)/python main.py --mode=predict --model_dir=$(DEMO) $(DEMO)/held_out
	$(BIN)/python main.py --mode=export --model_dir=$(DEMO) --overwrite
	$(BIN)/python main.py --mode=preview --dataset_cfg=demo --preview_file=$(DEMO)/preview.png
	@echo "See $(DEMO)/report.html, $(DEMO)/preview.png and the SavedModel in $(DEMO)/saved_model."

test: .venv/dev
	$(BIN)/python -m pytest

test-slow: .venv/dev
	$(BIN)/python -m pytest -m slow -n 1

lint: .venv/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/dev
	for script in benchmarks/*.py benchmarks/ablations/table_3_counts.py; do PYTHONPATH=. $(BIN)/python $$script; done

ablations: .venv/dev
	for script in benchmarks/ablations/table_*.py; do PYTHONPATH=. $(BIN)/python $$script; done

clean:
	rm -rf .venv $(DEMO)

.venv/python:
	@test -n "$(PYTHON)" || { echo "Needs Python 3.9, 3.10 or 3.11; name one with PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip  # older ones search for an hour
	@touch $@

.venv/runtime: .venv/python requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

.venv/dev: .venv/python requirements.txt requirements-onnx.txt requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@ .venv/runtime
