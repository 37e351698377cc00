"""The methods of a causal language model that generate: KerasHub's contract, with the model's own cached step."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from hf2khc.ir.graph import Node
from hf2khc.write.analysis import Analysis
from hf2khc.write.body import Body
from hf2khc.write.cache import UPDATE_INDEX, cache_of_layer
from hf2khc.write.members import Member, members
from hf2khc.write.plan import KEYS, Plan
from hf2khc.write.render import Render
from hf2khc.write.scope import Scope
from hf2khc.write.source_text import docstring, indent, signature

TOKENS, MASK = "token_ids", "padding_mask"


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
        yield _generate_step([], _without_cache(plan), _sequence(plan))
        return
    yield _call_with_cache(plan, base, owned)
    yield _build_cache(plan, base)
    yield _generate_step(_SEED, _WITH_CACHE, _sequence(plan))


def _call_with_cache(plan: Plan, base: Plan, owned: Mapping[str, Member]) -> list[str]:
    assert plan.head is not None and plan.decoding is not None
    graph = plan.program.main
    hidden = next(iter(plan.head.outputs.values()))
    graph = graph.replaced(outputs=[*graph.outputs, hidden])
    analysis = Analysis(replace(plan, program=replace(plan.program, graphs={**plan.program.graphs, graph.name: graph})))
    below = {n: replace(m, owner="self.backbone") for n, m in members(Analysis(base), base.program.main).items()}
    by_name = {str(member.node.attrs.get("name")): member for member in below.values()}
    again = {n.name: by_name[str(n.attrs["name"])] for n in graph if str(n.attrs.get("name")) in by_name}
    scope = Scope(analysis, graph, owner="self.", lent=base.by_source, lender="self.backbone")
    render = Render(analysis, graph, scope, {**owned, **below, **again}, training=False, decodes=True)
    render.cache = cache_of_layer(plan)
    variables = {node.name: plan.inputs[node.name][0] for node in graph.inputs}
    masks = [name for name in variables.values() if name != TOKENS]
    taken = {"cache", UPDATE_INDEX, "updated_cache", "next_cache"}
    body = Body(analysis, graph, render, variables, taken=taken, outputs=(*plan.outputs, "hidden_states"))
    lines = body.lines()
    logits, states = body.returned()
    lines = [*_masks(plan, masks), *lines, f"return {logits}, {states}, cache"]
    return [signature("call_with_cache", [TOKENS, "cache", UPDATE_INDEX]), *indent([*docstring(_DOCS), *lines])]


def _masks(plan: Plan, masks: list[str]) -> list[str]:
    assert plan.decoding is not None
    axis = plan.decoding.shape.index(next(d for d in plan.decoding.shape if str(d) == KEYS)) + 1
    if not masks:
        return []
    shape = f"(ops.shape({TOKENS})[0], ops.shape(cache)[{axis}])"
    lines = ["# Tokens are padded on the right: nothing attends to what stands behind."]
    return lines + [f'{mask} = ops.ones({shape}, dtype="int32")' for mask in masks]


def _build_cache(plan: Plan, base: Plan) -> list[str]:
    assert plan.decoding is not None
    analysis = Analysis(plan)
    scope = Scope(analysis, plan.program.main, owner="self.", lent=base.by_source, lender="self.backbone")
    sizes = {KEYS: "max_length", "batch": "batch_size"}
    dims = [sizes.get(str(dim)) or scope.static(dim) for dim in plan.decoding.shape]
    layers = [_count(scope, plan.program.main[name]) for name in plan.decoding.layers]
    dims.insert(1, " + ".join(layers))
    lines = ['"""Build an empty cache for use with `call_with_cache()`."""', f"batch_size = ops.shape({TOKENS})[0]"]
    lines += [f"max_length = ops.shape({TOKENS})[1]", f"shape = [{', '.join(dims)}]"]
    lines += ["cache = ops.zeros(shape, dtype=self.compute_dtype)", "# Seed the cache."]
    lines += [f"_, hidden_states, cache = self.call_with_cache({TOKENS}, cache, 0)", "return hidden_states, cache"]
    return [signature("_build_cache", [TOKENS]), *indent(lines)]


def _count(scope: Scope, node: Node) -> str:
    return scope.static(node.attrs["count"]) if node.op == "loop" else "1"


def _sequence(plan: Plan) -> tuple[str, str]:
    """The names of the tokens that are generated, and of their mask."""
    names = {name for name, _ in plan.inputs.values()}
    return (f"decoder_{TOKENS}", f"decoder_{MASK}") if f"decoder_{TOKENS}" in names else (TOKENS, MASK)


def _generate_step(seed: list[str], step: list[str], names: tuple[str, str]) -> list[str]:
    tokens, mask = names
    body = [*docstring(_STEP_DOCS), *_START, *seed, *_LENGTHS, "", *step, ""]
    arguments = ["cache=cache,", "hidden_states=hidden_states,"] if seed else []
    body += ["token_ids = self.sampler(", *indent(["next=next,", "prompt=token_ids,", *arguments, *_SAMPLER]), ")"]
    renamed = [
        line.replace(f'"{TOKENS}"', f'"{tokens}"').replace(f'"{MASK}"', f'"{mask}"') for line in [*body, "", *_END]
    ]
    return [signature("generate_step", ["inputs", "stop_token_ids=None"]), *indent(renamed)]


def _without_cache(plan: Plan) -> list[str]:
    """The step that runs the whole sequence through the model."""
    made = {TOKENS: "prompt", MASK: "mask"}
    renamed = dict(zip(_sequence(plan), made, strict=True))
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
_DOCS = """
Forward pass with a cache.

Keys and values of the tokens seen so far are kept, and those of the given
tokens are added to them, so that no token is computed twice.

Args:
    token_ids: int tensor of shape `(batch_size, length)`.
    cache: float tensor, the keys and values of every layer.
    cache_update_index: int, or int tensor. Where the given tokens start in
        the whole sequence.

Returns:
    A tuple of the logits of the given tokens, the hidden states that they
    are computed from, and the cache.
""".strip().splitlines()
_STEP_DOCS = """
A compilable generation function for a single batch of inputs.

Args:
    inputs: A dictionary with the inputs of the model, batched tensors.
    stop_token_ids: Tuple of id's of the end token to stop on. If all
        sequences have produced a new stop token, generation will stop.
""".strip().splitlines()
_START = ['token_ids, padding_mask = inputs["token_ids"], inputs["padding_mask"]']
_SEED = [
    "# Create and seed cache with a single forward pass.",
    "hidden_states, cache = self._build_cache(token_ids)",
]
_LENGTHS = """
# Compute the lengths of all user inputted tokens ids.
row_lengths = ops.sum(ops.cast(padding_mask, "int32"), axis=-1)
# Start at the first index that has no user inputted id.
index = ops.min(row_lengths)
""".strip().splitlines()
_WITH_CACHE = """
def next(prompt, cache, index):
    # The cache index is the index of our previous token.
    cache_update_index = index - 1
    batch_size = ops.shape(prompt)[0]
    prompt = ops.slice(prompt, [0, cache_update_index], [batch_size, 1])
    logits, hidden_states, cache = self.call_with_cache(
        prompt, cache, cache_update_index
    )
    return (
        ops.squeeze(logits, axis=1),
        ops.squeeze(hidden_states, axis=1),
        cache,
    )
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
else:
    # Without early stopping, all locations will have been updated.
    padding_mask = ops.ones_like(token_ids, dtype="bool")
return {"token_ids": token_ids, "padding_mask": padding_mask}
""".strip().splitlines()
