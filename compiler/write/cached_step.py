"""The methods of a language model that run it from any position on, with the keys and values of what came before."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from hf2khc.ir.graph import Graph, Node
from hf2khc.write.analysis import Analysis
from hf2khc.write.body import Body
from hf2khc.write.cache import UPDATE_INDEX, cache_of_layer, index_of_layer
from hf2khc.write.cache_method import BUILD_CACHE, SIZES
from hf2khc.write.construction import range_text
from hf2khc.write.cross_cache import BUILD, CROSS
from hf2khc.write.cross_method import with_graph
from hf2khc.write.members import Member, members
from hf2khc.write.plan import Plan
from hf2khc.write.render import Render
from hf2khc.write.scope import Scope
from hf2khc.write.source_text import docstring, indent, signature

TOKENS, MASK = "token_ids", "padding_mask"
# What an encoder gives, as KerasHub calls it.
ENCODED = "encoder_hidden_states"


def sequence(plan: Plan) -> tuple[str, str]:
    """The names of the tokens that are generated, and of their mask."""
    names = {name for name, _ in plan.inputs.values()}
    return (f"decoder_{TOKENS}", f"decoder_{MASK}") if f"decoder_{TOKENS}" in names else (TOKENS, MASK)


class CachedStep:
    """The methods: the step itself, an encoder that runs once before it, and a cache for it.

    Args:
        plan: with a head that is a language model, and with a cached step.
        base: the plan of its backbone.
        owned: the layers that the task makes itself.
    """

    def __init__(self, plan: Plan, base: Plan, owned: Mapping[str, Member]):
        assert plan.head is not None and plan.decoding is not None
        self.plan, self.base, self.owned, self.decoding = plan, base, owned, plan.decoding
        hidden = [value for value in plan.head.outputs.values() if value != self.decoding.encoded]
        graph = plan.program.main
        self.graph = graph.replaced(outputs=[*graph.outputs, hidden[0]])
        if self.decoding.encoded:
            given = Node(self.decoding.encoded, "input", type=graph[self.decoding.encoded].type)
            self.graph = self.graph.replaced([*(n for n in self.graph if n.name != given.name), given]).pruned()

    @property
    def name(self) -> str:
        return "call_decoder_with_cache" if self.decoding.encoded else "call_with_cache"

    @property
    def built(self) -> str:
        """What `_build_cache` returns where no layer keeps a state."""
        once = 1 + bool(self.decoding.once)
        return ", ".join([*self.carried()[:once], "hidden_states", "cache"])

    def seed(self, given: Sequence[str]) -> list[str]:
        """The lines of `generate_step` that make the cache, given the arguments for it."""
        if self.decoding.has_states:
            comment = "# Create and seed cache with all tokens but the last one of the prompt."
            return [comment, f"cache = self._build_cache({', '.join([*given, 'index - 1'])})"]
        comment = "# Create and seed cache with a single forward pass."
        return [comment, f"{self.built} = self._build_cache({', '.join(given)})"]

    def methods(self) -> Iterator[list[str]]:
        """Each a list of lines."""
        if self.decoding.encoded:
            yield self._call_encoder()
        yield self._call_with_cache()
        yield self._build_cache()

    def carried(self) -> list[str]:
        """What every step is given beside tokens and cache: nothing, or what an encoder gave and its masks."""
        if not self.decoding.encoded:
            return []
        masks = [name for name in self._named(self.graph).values() if name not in sequence(self.plan)]
        return [ENCODED, *([CROSS] if self.decoding.once else []), *(name for name in masks if name != ENCODED)]

    def encoder_inputs(self) -> list[str]:
        """The inputs of the model that are no part of the sequence that is generated."""
        if not self.decoding.encoded:
            return []
        return [name for name, _ in self.plan.inputs.values() if name not in sequence(self.plan)]

    def _named(self, graph: Graph) -> dict[str, str]:
        """The variables of inputs that are read, or whose sizes are."""
        given = {self.decoding.encoded: ENCODED}
        names = {n.name: given.get(n.name) or self.plan.inputs[n.name][0] for n in graph.inputs}
        ours = sequence(self.plan)
        return {n: name for n, name in names.items() if name in ours or graph.uses(n)}

    def _call_encoder(self) -> list[str]:
        graph = self.plan.program.main
        graph = graph.replaced(outputs=[self.decoding.encoded]).pruned()
        variables = {n.name: self.plan.inputs[n.name][0] for n in graph.inputs}
        lines, (result,) = self._body(graph, variables, (ENCODED,), decodes=False)
        lines = [*docstring(_ENCODER_DOCS), *lines, f"return {result}"]
        return [signature("call_encoder", self.encoder_inputs()), *indent(lines)]

    def _call_with_cache(self) -> list[str]:
        tokens, _ = sequence(self.plan)
        variables = self._named(self.graph)
        names = (*self.plan.outputs, "hidden_states")
        lines, (logits, states) = self._body(self.graph, variables, names, decodes=True)
        read = {n for n in variables if self.graph.uses(n)} | self.decoding.whole
        masks = [name for n, name in variables.items() if n in read and name not in (tokens, *self.carried())]
        cache = f"({sequence(self.plan)[1]}, cache)" if self._has_mask else "cache"
        lines = [*self._masks(masks), *lines, f"return {logits}, {states}, {cache}"]
        arguments = [*self.carried(), tokens, "cache", UPDATE_INDEX]
        return [signature(self.name, arguments), *indent([*docstring(_docs(arguments)), *lines])]

    def _body(
        self, graph: Graph, variables: Mapping[str, str], outputs: Sequence[str], decodes: bool
    ) -> tuple[list[str], list[str]]:
        analysis = with_graph(Analysis(self.plan), graph)
        found = members(Analysis(self.base), self.base.program.main)
        below = {name: replace(member, owner="self.backbone") for name, member in found.items()}
        by_name = {str(member.node.attrs.get("name")): member for member in below.values()}
        again = {n.name: by_name[str(n.attrs["name"])] for n in graph if str(n.attrs.get("name")) in by_name}
        scope = Scope(analysis, graph, owner="self.", lent=self.base.by_source, lender="self.backbone")
        layers = {**self.owned, **below, **again}
        render = Render(analysis, graph, scope, layers, training=False, decodes=decodes)
        render.cache = cache_of_layer(self.plan)
        render.cross = f"{CROSS}[{index_of_layer(self.plan)}]" if self.decoding.once else ""
        taken = {"cache", UPDATE_INDEX, "updated_cache", "next_cache"}
        body = Body(analysis, graph, render, dict(variables), taken=taken, outputs=tuple(outputs))
        return body.lines(), list(body.returned())

    def _masks(self, masks: Collection[str]) -> list[str]:
        if not masks:
            return []
        tokens, mask = sequence(self.plan)
        lines = ["# Tokens are padded on the right: nothing attends to what stands behind."]
        if self._has_mask:
            return [*lines, f"{mask}, cache = cache"]
        shape = f"(ops.shape({tokens})[0], ops.shape(cache[0][0])[1])"
        if self.decoding.has_states:
            shape = f"ops.shape({tokens})"
        return lines + [f'{mask} = ops.ones({shape}, dtype="int32")' for mask in masks]

    @property
    def _has_mask(self) -> bool:
        """Whether a cache begins with a mask: where some layers keep states, not every layer's says how long it is."""
        return self.decoding.has_states and bool(self.decoding.whole)

    def _build_cache(self) -> list[str]:
        if self.decoding.has_states:
            return self._build_states()
        tokens, _ = sequence(self.plan)
        given = self.encoder_inputs()
        lines = [f'"""Build an empty cache for use with `{self.name}()`."""']
        lines += [f"{ENCODED} = self.call_encoder({', '.join(given)})"] if given else []
        lines += self._computed_once()
        lines += self._empty(tokens)
        call = f"self.{self.name}({', '.join([*self.carried(), tokens, 'cache', '0'])})"
        lines += ["# Seed the cache.", f"_, hidden_states, cache = {call}", f"return {self.built}"]
        return [signature("_build_cache", [*given, tokens]), *indent(lines)]

    def _empty(self, tokens: str) -> list[str]:
        return [
            f"batch_size = ops.shape({tokens})[0]",
            f"max_length = ops.shape({tokens})[1]",
            f"cache = {self._of_layers(BUILD_CACHE, SIZES)}",
        ]

    def _build_states(self) -> list[str]:
        """States hold all that came before: they must stop where the prompt does, which only the call knows."""
        tokens, mask = sequence(self.plan)
        lines = [*docstring(_STATES_DOCS), *self._empty(tokens)]
        if self._has_mask:
            lines += ['cache = (ops.ones((batch_size, max_length), dtype="int32"), cache)']
        lines += ["", *_SEED]
        return [signature("_build_cache", [tokens, "length", "block_size=64"]), *indent(lines)]

    def _computed_once(self) -> list[str]:
        """What every layer computes of the encoder's output, in the order of the layers."""
        if not self.decoding.once:
            return []
        listed = self._of_layers(BUILD, [ENCODED])
        return ["# What does not depend on the tokens is computed once.", f"{CROSS} = {listed}"]

    def _of_layers(self, method: str, arguments: Sequence[str]) -> str:
        """The list of what a method of each layer with a cache gives, in the order of the layers."""
        graph, call = self.base.program.main, f"{method}({', '.join(arguments)})"
        analysis = Analysis(self.base)
        found = members(analysis, graph)
        scope = Scope(analysis, graph, owner="self.", lent=self.base.by_source, lender="self.backbone")
        named = [(replace(found[name], owner="self.backbone"), graph[name]) for name in self.decoding.layers]
        parts = list(dict.fromkeys(_of_member(member, node, call, scope) for member, node in named))
        return parts[0] if len(parts) == 1 else f"[{', '.join(f'*{part}' for part in parts)}]"


def _of_member(member: Member, node: Node, call: str, scope: Scope) -> str:
    """The list of what a call gives of one layer, of each in a list of layers, or of one for each time it runs."""
    if node.op == "call":
        return f"[{member.reference}.{call}]"
    if not member.element:
        return f"[{member.reference}.{call} for _ in {range_text(scope, 0, node.attrs['count'])}]"
    return f"[{member.element}.{call} for {member.element} in {member.owner}.{member.attribute}]"


def _docs(arguments: Sequence[str]) -> list[str]:
    """The docstring, with an entry for each argument."""
    found = [line for name in arguments for line in _ARGUMENTS.get(name, _ARGUMENTS[""].format(name)).splitlines()]
    return [*_DOCS, *indent(found), "", *_RETURNS]


_ARGUMENTS = {
    ENCODED: f"{ENCODED}: float tensor, what `call_encoder()` gives.",
    CROSS: f"{CROSS}: list, what each layer computes once of the\n    encoder's output.",
    TOKENS: "token_ids: int tensor of shape `(batch_size, length)`.",
    f"decoder_{TOKENS}": "decoder_token_ids: int tensor of shape `(batch_size, length)`.",
    "cache": "cache: list, what every layer keeps, as `_build_cache()` makes it.",
    UPDATE_INDEX: "cache_update_index: int, or int tensor. Where the given tokens\n    start in the whole sequence.",
    "": "{}: tensor, as the model takes it.",
}
_ENCODER_DOCS = ["What every step of the decoder is given, computed once."]
_DOCS = """
Forward pass with a cache.

What the layers keep of the tokens seen so far, keys and values for one,
is added to with the given tokens, so that no token is computed twice.

Args:
""".strip().splitlines()
_STATES_DOCS = """
Build a cache for use with `call_with_cache()`, with tokens in it.

Args:
    token_ids: int tensor of shape `(batch_size, max_length)`.
    length: int, or int tensor. How many tokens of it are read: a state
        must not see what stands behind a prompt.
    block_size: int. How many tokens are read at once, while there are as
        many. Defaults to `64`.
""".strip().splitlines()
_SEED = """
def read(count):
    def step(index, cache):
        tokens = ops.slice(token_ids, [0, index], [batch_size, count])
        _, _, cache = self.call_with_cache(tokens, cache, index)
        return index + count, cache

    return step

# Seed the cache.
read_tokens = (0, cache)
if block_size < max_length:
    read_tokens = ops.while_loop(
        lambda index, _: index + block_size <= length,
        read(block_size),
        read_tokens,
    )
_, cache = ops.while_loop(
    lambda index, _: index < length, read(1), read_tokens
)
return cache
""".strip().splitlines()
_RETURNS = """
Returns:
    A tuple of the logits of the given tokens, the hidden states that
    they are computed from, and the cache.
""".strip().splitlines()
