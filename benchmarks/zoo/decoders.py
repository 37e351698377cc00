"""Generates greedily with every causal language model of the zoo, and with transformers; `make decoders` runs it.

    python -m benchmarks.zoo.decoders [--only llama,qwen3] [--fresh] [--workers 2] [--minutes 60]

Each is converted and loaded on torch as a user loads it; four prompts of other lengths in one batch are continued by 64
tokens, fewer where the model has fewer positions, and compared token for token with what `generate` of transformers
makes of each prompt by itself. Results: benchmarks/results/decoders.json, quoted in docs/coverage.md.
"""

# First, as it sets what torch and keras read when they are imported.
from benchmarks.zoo.run import chosen, command_line, work_through  # isort: skip

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

import hf2khc
from benchmarks.zoo import results
from benchmarks.zoo.corpus import zoo
from benchmarks.zoo.one import recorded
from benchmarks.zoo.specs import Spec, build
from hf2khc.driver.head import CAUSAL_LM
from hf2khc.package import import_package, load_preset

AUTO_CLASS = "AutoModelForCausalLM"
LINES = results.LINES.with_name("decoders.jsonl")
PROMPTS, NEW = (9, 4, 7, 2), 64
# Tokens below are often special.
FIRST_TOKEN = 3
LONGEST = 600  # seconds for a model: without a cache transformers is slow as well


def generated(spec: Spec, backends: Sequence[str]) -> dict[str, Any]:
    """Convert a spec and generate with it and with transformers.

    Returns:
        JSON-able: status `equal`, `differs`, `not-causal`, `fixed-length` (the package takes one length alone, at which
        nothing can be generated), or that of a conversion that failed; how many new tokens were compared in all rows,
        how many are equal up to the first that differs, how many are distinct, and why there is no cache.
    """
    return recorded(spec, lambda package: _compared(spec, package))


def _compared(spec: Spec, package: Path) -> dict[str, Any]:
    model = build(spec)
    done = hf2khc.convert(model, package, backends=("torch",), check=False)
    head, cacheless = done.compiled.plan.head, done.compiled.cacheless
    if head is None or head.task != CAUSAL_LM:
        # BERT and its kind attend to both sides unless their config says otherwise; Moshi has a second output.
        return {"status": "not-causal", "cacheless": cacheless}
    fixed = [note for note in done.report.notes if note.startswith("fixed length")]
    if fixed:
        return {"status": "fixed-length", "cacheless": cacheless, "fixed": str(fixed[0])[:200]}
    new = min(NEW, _positions(model) - max(PROMPTS))
    vocabulary = model.config.get_text_config().vocab_size
    tokens = np.random.default_rng(0).integers(FIRST_TOKEN, vocabulary, (len(PROMPTS), max(PROMPTS) + new))
    mask = np.arange(tokens.shape[1]) < np.array(PROMPTS)[:, None]
    theirs = [_continued(model, row[:length], new) for row, length in zip(tokens, PROMPTS, strict=True)]
    ours = _package_tokens(package, tokens * mask, mask)
    pairs = [(found[n : n + new], row) for found, row, n in zip(ours, theirs, PROMPTS, strict=True)]
    equal = sum(_equal(a, b) for a, b in pairs)
    return {
        "status": "equal" if equal == new * len(PROMPTS) else "differs", "compared": new * len(PROMPTS), "equal": equal,
        "distinct": len({int(token) for row in theirs for token in row}), "cacheless": cacheless,
    }  # fmt: skip


def _positions(model: PreTrainedModel) -> int:
    """How many positions a model has; where its config does not say, any number."""
    config = model.config.get_text_config()
    named = (getattr(config, name, None) for name in ("max_position_embeddings", "max_target_positions"))
    return next((int(number) for number in named if number), sys.maxsize)


@torch.no_grad()
def _continued(model: PreTrainedModel, prompt: np.ndarray, new: int) -> np.ndarray:
    """What transformers generates behind a prompt."""
    given = torch.from_numpy(prompt[None])
    found = model.generate(
        given, attention_mask=torch.ones_like(given), max_new_tokens=new, min_new_tokens=new, do_sample=False,
        eos_token_id=None, pad_token_id=0, use_cache=True, forced_bos_token_id=None, forced_eos_token_id=None,
    )  # fmt: skip
    return found[0, len(prompt) :].numpy()


def _package_tokens(package: Path, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
    import_package(package)
    task = load_preset(package)
    task.compile(sampler="greedy")
    given = {"token_ids": tokens.astype("int32"), "padding_mask": mask.astype("int32")}
    missing = set(task.input) - set(given)
    if missing:
        raise ValueError(f"the task takes {', '.join(sorted(missing))} as well")
    return np.asarray(task.generate(given, stop_token_ids=None)["token_ids"])


def _equal(ours: np.ndarray, theirs: np.ndarray) -> int:
    """How many tokens are equal before the first that differs."""
    differing = np.nonzero(ours != theirs)[0]
    return int(differing[0]) if differing.size else len(theirs)


def main() -> int:
    """The command line; 1 where some token differs."""
    parser = command_line("python -m benchmarks.zoo.decoders", __doc__)
    parser.set_defaults(limit_seconds=LONGEST)
    options = parser.parse_args()
    whole = zoo()
    causal = {name: spec for name, spec in whole.specs.items() if spec.auto_class == AUTO_CLASS}
    found = [spec for spec in chosen(options.only, whole) if spec.name in causal]
    corpus = dataclasses.replace(whole, specs=causal, lines=LINES, result=results.DECODERS)
    records = work_through(found, options, None, corpus, generated)
    whole.write_page()
    return int(any(record["status"] == "differs" for record in records))


if __name__ == "__main__":
    sys.exit(main())
