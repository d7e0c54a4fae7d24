# Needs python 3.11 to 3.13, git and make. All else is installed into this folder, once: see `make help`.

.DEFAULT_GOAL := help
.PHONY: help up test e2e faults lint docs docs-serve reference figures pictures release clean

# The first of these that is new enough; 3.14 has no wheels yet for some of the pinned versions.
PYTHON ?= $(firstword $(foreach python,python3 python3.13 python3.12 python3.11,$(shell \
	$(python) -c 'import sys; (3, 11) <= sys.version_info < (3, 14) and print("$(python)")' 2>/dev/null)))
# A package index to find torch in besides pip's own, such as https://download.pytorch.org/whl/cpu for the small build.
TORCH_INDEX ?=

VENV := .venv/bin
LABEL_STUDIO := .venv-label-studio
MOTO := .venv-moto
UV := $(VENV)/uv pip install --quiet
NETWORK := Check that this machine reaches the package index and has 5 GB free, then run make again.

help:
	@echo 'make up       install what is missing, then start Label Studio with the model connected (Ctrl-C stops it)'
	@echo 'make test     all tests but the slow ones; the end-to-end ones start the real servers'
	@echo 'make e2e      all end-to-end tests, and all slow ones: the stack of docker-compose.yml, back-ups, the tutorial'
	@echo 'make faults   break everything, ROUNDS=50 times at random moments, and see what it cost (docs/faults.md)'
	@echo 'make lint     ruff, mypy, the order of the layers, and checks of the container files'
	@echo 'make pictures follow docs/tutorial.md in the real Label Studio, and take its pictures and those of the README anew'
	@echo 'make bench-X  run benchmarks/X.py, which says what it takes (QUICK=1, DATA="DIR DIR")'
	@echo 'make figures  draw docs/figures anew, from the code and the weights'
	@echo 'make docs     the documentation as a site, into build/site; make docs-serve shows it while you write'
	@echo 'make reference  writes the pages of docs/ that are made from the code: commands, metrics, formats, benchmarks'
	@echo 'make release  VERSION=1.2.0: sets the version, closes the changelog, builds the wheel, names the images'
	@echo 'make clean    remove everything that was installed or built; data in .ris stays'

up: .venv/.installed $(LABEL_STUDIO)/.installed
	@exec $(VENV)/ris up

test: .venv/.installed-dev $(LABEL_STUDIO)/.installed $(MOTO)/.installed
	$(VENV)/pytest -n 2 --dist worksteal -m "not e2e and not slow"
	$(VENV)/pytest -m "e2e and not slow"

e2e: .venv/.installed-dev $(LABEL_STUDIO)/.installed
	$(VENV)/pytest -m "e2e or slow"

faults: .venv/.installed-dev
	RIS_FAULTS=$(or $(ROUNDS),1) $(VENV)/pytest -n 2 --dist loadfile tests/faults

lint: .venv/.installed-dev
	$(VENV)/ruff check
	$(VENV)/ruff format --check
	$(VENV)/mypy
	$(VENV)/lint-imports --no-logo --no-cache
	$(VENV)/hadolint Dockerfile
	@"$$($(VENV)/python -c 'import compose, pathlib; print(pathlib.Path(compose.__file__).with_name("docker-compose"))')" \
		--env-file .env.example config --quiet && echo 'docker-compose.yml: valid'

pictures: .venv/.installed-dev $(LABEL_STUDIO)/.installed
	E2E_PICTURES=$(CURDIR)/docs/pictures $(VENV)/pytest tests/e2e/test_tutorial.py

bench-%: .venv/.installed-dev
	QUICK=$(QUICK) DATA="$(DATA)" $(VENV)/python benchmarks/$*.py

figures: .venv/.installed-dev
	$(VENV)/python scripts/figures.py

# The variable: mkdocs-material else advertises what comes after it. Not --quiet: then warnings stop nothing.
docs: .venv/.installed-dev
	@NO_MKDOCS_2_WARNING=1 $(VENV)/mkdocs build --strict
	@echo 'The site is in build/site: open build/site/index.html, or publish the folder.'

docs-serve: .venv/.installed-dev
	@NO_MKDOCS_2_WARNING=1 $(VENV)/mkdocs serve --strict

reference: .venv/.installed-dev
	@PYTHONPATH=scripts $(VENV)/python -m reference

release: .venv/.installed-dev
	@$(VENV)/python scripts/release.py "$(VERSION)"

clean:
	rm -rf .venv $(LABEL_STUDIO) $(MOTO) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# pip installs torch, since it may know of a small CPU build that uv can't see; uv, far quicker, installs the rest.
.venv/.torch: constraints.txt
	@test -n "$(PYTHON)" || { echo 'Python 3.11, 3.12 or 3.13 is needed, and python3 here is' \
		"$$(python3 -V 2>/dev/null || echo missing). Install one, or name it: make up PYTHON=/path/to/python." >&2; exit 1; }
	@scripts/step 'Environment for ris' 'On Debian, python3-venv may be missing: apt install python3-venv.' \
		$(PYTHON) -m venv .venv
	@scripts/step 'Torch and uv' '$(NETWORK)' \
		$(VENV)/pip install --disable-pip-version-check -c constraints.txt \
		$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) uv torch
	@touch $@

.venv/.installed: .venv/.torch pyproject.toml
	@scripts/step 'ris and its sample photos' '$(NETWORK)' $(UV) -c constraints.txt -e '.[samples]'
	@touch $@

# ultralytics alone: it asks for torchvision, which a CPU build of torch from elsewhere has no match for. The one test
# that runs it, in a process of its own, does without.
.venv/.installed-dev: .venv/.torch pyproject.toml
	@scripts/step 'ris with its tests and tools' '$(NETWORK)' $(UV) -c constraints.txt -e '.[samples,dev]'
	@scripts/step 'ultralytics, to read what is exported for it' '$(NETWORK)' $(UV) --no-deps ultralytics==8.4.190
	@touch .venv/.installed $@

$(LABEL_STUDIO)/.installed: constraints-label-studio.txt | .venv/.torch
	@scripts/step 'Environment for Label Studio' '$(NETWORK)' \
		$(VENV)/uv venv --quiet --allow-existing --python $(VENV)/python $(LABEL_STUDIO)
	@scripts/step 'Label Studio' '$(NETWORK)' \
		$(UV) --python $(LABEL_STUDIO)/bin/python -c constraints-label-studio.txt label-studio
	@touch $@

$(MOTO)/.installed: constraints-moto.txt | .venv/.torch
	@scripts/step 'Environment for the S3 that tests talk to' '$(NETWORK)' \
		$(VENV)/uv venv --quiet --allow-existing --python $(VENV)/python $(MOTO)
	@scripts/step 'That S3' '$(NETWORK)' $(UV) --python $(MOTO)/bin/python -c constraints-moto.txt 'moto[server]'
	@touch $@
