# The two commands that matter: `make demo` (the main job on a real model) and `make test`.
# Every target sets up what it needs: a virtual environment in .venv with the pinned constraints.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := lf_export tests benchmarks recipes calibration docs
STAMP := $(VENV)/.stamp

.PHONY: demo test wheel-test image-test check docs site format clean

demo: $(STAMP)-demo
	$(BIN)/lf-export run recipes/quickstart.yaml

test: $(STAMP)-dev
	$(BIN)/python tests/fetch_chromium.py
	$(BIN)/python -m pytest

# The tests against the installed wheel, with the source gone.
wheel-test: $(STAMP)-dev
	$(BIN)/python tests/installed.py

# The Dockerfile built and its image used, without a Docker engine: needs root, buildah and debootstrap.
image-test: $(STAMP)-dev
	$(BIN)/python tests/docker/build_and_run.py

check: $(STAMP)-dev
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/generate.py --check
	$(BIN)/python calibration/generate.py --check

docs: $(STAMP)-dev
	$(BIN)/python docs/generate.py

# The documentation as a site, in build/site/.
site: $(STAMP)-docs
	$(BIN)/python docs/site_pages.py build/site-docs
	$(BIN)/zensical build --strict --config-file build/site-docs.toml

format: $(STAMP)-dev
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

clean:
	rm -rf $(VENV) runs build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# A torch that is already in constraints.txt is installed first, by itself: a package that asks for "any torch"
# would otherwise take a CUDA build of several gigabytes.
$(VENV)/bin/pip:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"

$(STAMP)-demo: pyproject.toml constraints.txt | $(VENV)/bin/pip
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[gguf]'
	touch $@

$(STAMP)-dev: $(STAMP)-demo
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[gguf,gptq,onnx,endpoint,grammar,sign,try,ray]' --group dev
	touch $@

$(STAMP)-docs: pyproject.toml constraints.txt | $(VENV)/bin/pip
	$(BIN)/pip install --quiet --constraint constraints.txt --group docs
	touch $@
