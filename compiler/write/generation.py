"""The methods of a causal language model that generate: KerasHub's contract, with the model's own cached step."""

import re
from collections.abc import Iterator, Mapping

from hf2khc.write.cached_step import MASK, TOKENS, CachedStep, sequence
from hf2khc.write.members import Member
from hf2khc.write.plan import Plan
from hf2khc.write.source_text import docstring, indent, signature


def generation(plan: Plan, base: Plan, owned: Mapping[str, Member]) -> Iterator[list[str]]:
    """The methods, each a list of lines.

    Args:
        plan: with a head that is a causal language model.
        base: the plan of its backbone.
        owned: the layers that the task makes itself.
    """
    yield _COMPILE
    yield _GENERATE
    if plan.decoding is None:
        yield _generate_step([], _without_cache(plan), "", sequence(plan))
        return
    step = CachedStep(plan, base, owned)
    yield from step.methods()
    yield _generate_step(*_cached(step), sequence(plan), plan.decoding.has_states)


def _generate_step(
    seed: list[str], step: list[str], cache: str, names: tuple[str, str], has_states: bool = False
) -> list[str]:
    tokens, mask = names
    # A cache that keeps states is made up to a length.
    before, behind = ([], ["", *seed]) if has_states else (seed, [])
    body = [*docstring(_STEP_DOCS), *_START, *_FILL, *before, *_LENGTHS, *behind, "", *step, ""]
    arguments = [f"cache={cache},", *([] if has_states else ["hidden_states=hidden_states,"])] if seed else []
    body += ["token_ids = self.sampler(", *indent(["next=next,", "prompt=token_ids,", *arguments, *_SAMPLER]), ")"]
    words = re.compile(rf"\b({TOKENS}|{MASK})\b")
    made = {TOKENS: tokens, MASK: mask}
    renamed = [words.sub(lambda found: made[found[0]], line) for line in [*body, "", *_END]]
    return [signature("generate_step", ["inputs", "stop_token_ids=None"]), *indent(renamed)]


def _cached(step: CachedStep) -> tuple[list[str], list[str], str]:
    """The lines that make the cache, the step, and what the sampler hands from step to step.

    What an encoder gave rides along in the cache: a sampler that follows several samples repeats that, too.
    """
    given = step.encoder_inputs()
    lines = [f'{name} = inputs["{name}"]' for name in given]
    carried = ", ".join(["cache", *step.carried()])
    lines += step.seed([*given, TOKENS])
    taken, rest = [], "cache"
    if step.carried():
        taken, rest = [f"    {carried} = cache"], f"({carried})"
    call = f"self.{step.name}({', '.join([*step.carried(), 'prompt', 'cache', 'cache_update_index'])})"
    body = [*_STEP[:1], *taken, *_STEP[1:], f"    logits, hidden_states, cache = {call}"]
    squeezed = ["ops.squeeze(logits, axis=1),", "ops.squeeze(hidden_states, axis=1),", f"{rest},"]
    return lines, [*body, "    return (", *indent(indent(squeezed)), "    )"], rest


def _without_cache(plan: Plan) -> list[str]:
    """The step that runs the whole sequence through the model."""
    made = {TOKENS: "prompt", MASK: "mask"}
    renamed = dict(zip(sequence(plan), made, strict=True))
    entries = [
        f'"{renamed.get(name, name)}": ' + made.get(renamed.get(name, ""), f'ops.convert_to_tensor(inputs["{name}"])')
        for name, _ in plan.inputs.values()
    ]
    call = f"    logits = self({{{', '.join(entries)}}})"
    return [*_WITHOUT_CACHE, call, "    return ops.take(logits, index - 1, axis=1), None, cache"]


ARGUMENTS = {
    "stop_token_ids": (
        "list of ints. The tokens that end a text. Defaults to `None`, which generates up to the maximum length."
    ),
    "default_sampler": (
        "string or dict. The sampler of `compile()` unless it is given one, as `keras_hub.samplers.get()` takes it. "
        'Defaults to `"greedy"`.'
    ),
}
DEFAULTS = {"stop_token_ids": "None", "default_sampler": '"greedy"'}
_COMPILE = """
def compile(
    self,
    optimizer="auto",
    loss="auto",
    *,
    weighted_metrics="auto",
    sampler="auto",
    **kwargs,
):
    if sampler == "auto":
        sampler = self.default_sampler
    super().compile(
        optimizer=optimizer,
        loss=loss,
        weighted_metrics=weighted_metrics,
        sampler=sampler,
        **kwargs,
    )
""".strip().splitlines()
_GENERATE = """
def generate(
    self,
    inputs,
    max_length=None,
    stop_token_ids="auto",
    strip_prompt=False,
):
    if stop_token_ids == "auto" and (
        self.stop_token_ids or self.preprocessor is None
    ):
        stop_token_ids = self.stop_token_ids
    return super().generate(
        inputs,
        max_length=max_length,
        stop_token_ids=stop_token_ids,
        strip_prompt=strip_prompt,
    )
""".strip().splitlines()
_STEP_DOCS = """
A compilable generation function for a single batch of inputs.

Args:
    inputs: A dictionary with the inputs of the model, batched tensors.
    stop_token_ids: Tuple of id's of the end token to stop on. If all
        sequences have produced a new stop token, generation will stop.
""".strip().splitlines()
_START = ['token_ids, padding_mask = inputs["token_ids"], inputs["padding_mask"]']
_FILL = """
if stop_token_ids is not None:
    # The sampler looks for the end in the whole sequence: padding is none.
    filler = min(set(range(len(stop_token_ids) + 1)) - set(stop_token_ids))
    token_ids = ops.where(padding_mask, token_ids, filler)
""".strip().splitlines()
_LENGTHS = """
# Compute the lengths of all user inputted tokens ids.
row_lengths = ops.sum(ops.cast(padding_mask, "int32"), axis=-1)
# Start at the first index that has no user inputted id.
index = ops.min(row_lengths)
""".strip().splitlines()
_STEP = """
def next(prompt, cache, index):
    # The cache index is the index of our previous token.
    cache_update_index = index - 1
    batch_size = ops.shape(prompt)[0]
    prompt = ops.slice(prompt, [0, cache_update_index], [batch_size, 1])
""".strip().splitlines()
_WITHOUT_CACHE = """
def next(prompt, cache, index):
    # The whole sequence runs through the model for every token.
    positions = ops.arange(ops.shape(prompt)[1], dtype="int32")
    mask = ops.logical_or(
        ops.cast(padding_mask, "bool"), positions[None, :] < index
    )
    mask = ops.cast(mask, "int32")
""".strip().splitlines()
_SAMPLER = ["index=index,", "mask=padding_mask,", "stop_token_ids=stop_token_ids,", "model=self,"]
_END = """
# Compute an output padding mask with the token ids we updated.
if stop_token_ids is not None:
    # Build a mask of stop tokens outside the original prompt.
    end_locations = ops.zeros_like(padding_mask, dtype="bool")
    for stop_token_id in stop_token_ids:
        end_locations = ops.logical_or(
            end_locations, ops.equal(token_ids, stop_token_id)
        )
    end_locations = ops.logical_and(
        end_locations, ops.logical_not(ops.cast(padding_mask, "bool"))
    )
    end_locations = ops.cast(end_locations, "int32")
    # Use cumsum to get ones in all locations after end_locations.
    cumsum = ops.cast(ops.cumsum(end_locations, axis=-1), "int32")
    overflow = cumsum - end_locations
    # Our padding mask is the inverse of these overflow locations.
    padding_mask = ops.logical_not(ops.cast(overflow, "bool"))
    token_ids = ops.where(padding_mask, token_ids, inputs["token_ids"])
else:
    # Without early stopping, all locations will have been updated.
    padding_mask = ops.ones_like(token_ids, dtype="bool")
return {"token_ids": token_ids, "padding_mask": padding_mask}
""".strip().splitlines()
