"""The statements of a `call` method or of a functional model."""

from collections.abc import Iterable, Mapping, Sequence

from hf2khc.ir.graph import LEAVES, Graph, Node, callee_of, scan_parts
from hf2khc.write.analysis import Analysis
from hf2khc.write.blocks import commented
from hf2khc.write.cache import KEYS_AND_VALUES, collected, is_cached, update_lines
from hf2khc.write.construction import range_text
from hf2khc.write.cross_cache import kept_lines
from hf2khc.write.inlining import Inlining
from hf2khc.write.members import Member
from hf2khc.write.names import choose, clean, says_nothing
from hf2khc.write.operations import Text
from hf2khc.write.plan import KEEP, ONCE, UPDATE, WINDOW, states_of
from hf2khc.write.render import Render
from hf2khc.write.states import has_entries, next_state, window_lines


class Body:
    """Prints the nodes of a graph as statements.

    Args:
        analysis: the plan.
        graph: the graph.
        render: prints single nodes.
        inputs: variables of the inputs.
        kept: variables that must keep their value to the end, such as the inputs of a functional model.
        taken: further names that no value may have.
        outputs: names for the values the graph returns, where the caller wants them.
    """

    def __init__(
        self,
        analysis: Analysis,
        graph: Graph,
        render: Render,
        inputs: Mapping[str, str],
        kept: Iterable[str] = (),
        taken: Iterable[str] = (),
        outputs: Sequence[str] = (),
    ):
        self.analysis = analysis
        self.graph = graph
        self.render = render
        self.variables = dict(inputs)
        self.wanted = dict(zip(graph.outputs, outputs, strict=True)) if outputs else {}
        self.taken = {*taken, *render.caches.values(), KEYS_AND_VALUES}
        self.inlining = Inlining(analysis, graph, render, functional=bool(outputs))
        self.statements = [n for n in analysis.printed(graph.name) if self._is_statement(n)]
        self.items = self._items(analysis)
        self.last_read = self._last_reads({*kept})

    def _is_statement(self, node: Node) -> bool:
        return node.op not in (*LEAVES, "item") and node.name not in self.inlining.inlined

    def _items(self, analysis: Analysis) -> Mapping[str, Mapping[int, str]]:
        found: dict[str, dict[int, str]] = {}
        for node in analysis.printed(self.graph.name):
            if node.op == "item":
                found.setdefault(str(node.operands[0]), {})[int(str(node.attrs["index"]))] = node.name
        return found

    def _last_reads(self, kept: set[str]) -> Mapping[str, int]:
        """For every variable the statement that reads it last; the end for what is returned."""
        end = len(self.statements)
        last = dict.fromkeys(self.graph.outputs, end)
        last |= dict.fromkeys(self.inlining.variables_behind(self.graph.outputs), end)
        last |= {name: end for name, variable in self.variables.items() if variable in kept}
        for index, node in enumerate(self.statements):
            for name in self.inlining.variables_behind(self.inlining.data(node)):
                last[name] = max(last.get(name, -1), index)
        return last

    def lines(self) -> list[str]:
        """The statements, without the return, in blocks with a comment each where there are several."""
        return commented([(node, self._statement(index, node)) for index, node in enumerate(self.statements)])

    def _statement(self, index: int, node: Node) -> list[str]:
        if node.op == "loop":
            return self._loop(index, node)
        if node.op == "scan":
            return self._scan(index, node)
        if node.op == WINDOW:
            value = self._required(node.operands[0]).text
            return window_lines(node, self._name(index, node, {value})[0], value, self.render.scope)
        return self._update(node) if node.op == UPDATE else self._assignment(index, node)

    def _update(self, node: Node) -> list[str]:
        """The values are called as the new ones among them, which nothing else reads."""
        names = [self.variables[operand] for operand in node.used]
        for position, item in self.items[node.name].items():
            self.variables[item] = names[position]
        pinned = [self.render.pinned[operand] for operand in node.used]
        target = KEYS_AND_VALUES if has_entries(self.analysis.plan, self.graph) else "cache"
        return update_lines(node, names, pinned, self.render, target)

    def returned(self) -> list[str]:
        """The expressions of the outputs."""
        return [self._required(name).text for name in self.graph.outputs]

    def kept(self) -> list[str]:
        """The expressions of what the layer caches, where it keeps states or calls several layers that cache."""
        if not has_entries(self.analysis.plan, self.graph):
            return []
        found = [f"*{KEYS_AND_VALUES}" for _ in self.graph.of(UPDATE)]
        for node in self.graph.of(KEEP):
            values = [self._required(name).text for name in node.operands[1:]]
            found += [next_state(s, v, self.render.scope) for s, v in zip(states_of(node), values, strict=True)]
        return [*found, *self.render.caches.values()]

    def _assignment(self, index: int, node: Node) -> list[str]:
        if node.op == ONCE:
            given = [self._required(operand).text for operand in node.used]
            return kept_lines(given, self._name(index, node, set()))
        text = self.render.node(node, self.read).text
        targets = self._name(index, node, set())
        if node.op == "call" and self._keeps(node):
            if self.graph.name == self.analysis.plan.program.entry:
                return collected(self.analysis.plan, node.name, "", _together(targets), text)
            return self._apart(targets, text, self.render.caches.get(node.name, "cache"))
        return [f"{', '.join(targets)} = {text}"]

    def _apart(self, targets: Sequence[str], text: str, cache: str) -> list[str]:
        """The call of a layer that returns its cache, too, where it is given one."""
        whole = (
            targets[0] if len(targets) == 1 else choose("outputs", {*self.taken, *self.variables.values()}, "outputs")
        )
        lines = [f"{whole} = {text}", "if cache is not None:", f"    {whole}, {cache} = {whole}"]
        return lines if len(targets) == 1 else [*lines, f"{', '.join(targets)} = {whole}"]

    def _name(self, index: int, node: Node, avoid: set[str], prefer: Sequence[str] = ()) -> list[str]:
        """Choose and record the variables of a statement's results."""
        alive = {v for name, v in self.variables.items() if self.last_read.get(name, -1) > index}
        results = self._results(node)
        targets: list[str] = []
        for position, name in enumerate(results):
            taken = {*self.taken, *alive, *avoid, *targets}
            targets.append(self._target(name, taken, prefer[position : position + 1]))
            if name is not None:
                self.variables[name] = targets[-1]
        return targets

    def _target(self, name: str | None, taken: set[str], prefer: Sequence[str]) -> str:
        if prefer and prefer[0].isidentifier() and prefer[0] not in taken:
            return prefer[0]
        if name is None:
            return "_"
        if name in self.wanted and self.wanted[name] not in taken:
            return self.wanted[name]
        node = self.graph[name]
        kind = str(node.attrs.get("name", "")) or node.op.rpartition(".")[2]
        return choose(self._base(name), taken, clean(kind))

    def _base(self, name: str) -> str:
        """The name a value would like: `x` for the stream through the layers, `residual` for what is added again."""
        users = [node for node in self.graph.users(name) if node.op != "item"]
        if users and users[-1].op == "loop" and name in users[-1].operands[: int(str(users[-1].attrs.get("carry", 1)))]:
            return "x"
        node = self.graph[name]
        base = "x" if node.op == "call" and name == str(node.attrs.get("path", "")).rpartition(".")[2] else clean(name)
        if says_nothing(base) and len(users) == 1 and users[0].op == "ops.dot_product_attention":
            return dict(zip(users[0].operands, ("query", "key", "value"), strict=False)).get(name, base)
        added = len(users) > 1 and users[-1].op == "ops.add" and self.graph[name].op == "ops.add"
        return "residual" if added and says_nothing(base) else base

    def _results(self, node: Node) -> list[str | None]:
        if not isinstance(node.type, tuple):
            return [node.name]
        items = self.items.get(node.name, {})
        return [items.get(i) for i in range(len(node.type))]

    def _loop(self, index: int, node: Node) -> list[str]:
        carry = int(str(node.attrs.get("carry", 1)))
        carried = [self._required(o).text for o in node.operands[:carry]]
        member = self.render.members[node.name]
        invariants = {self._required(o).text for o in node.operands[carry:] if o is not None}
        element = member.element or member.reference
        targets = self._name(index, node, {*invariants, element}, carried)
        changed = [(t, c) for t, c in zip(targets, carried, strict=True) if t != c]
        lines = [f"{', '.join(t for t, _ in changed)} = {', '.join(c for _, c in changed)}"] if changed else []
        header = self._header(node, member)
        call = self.render.iteration(node, element, targets, self.read)
        if self._keeps(node):
            return [*lines, *collected(self.analysis.plan, node.name, header, _together(targets), call)]
        return [*lines, header, f"    {', '.join(targets)} = {call}"]

    def _scan(self, index: int, node: Node) -> list[str]:
        """The function of one entry, and its scan over all.

        TensorFlow keeps of every entry what has the types of what is carried: that itself.
        """
        parts = scan_parts(node, node.operands)
        carried = [self.render.carried(o, self._required(o).text) for o in parts[0] if o is not None]
        sequences = [self._required(o).text for o in parts[1]]
        constants = {self._required(o).text for o in parts[2]}
        targets = self._name(index, node, constants)
        state, entries = choose("state", constants, "state"), choose("inputs", constants, "inputs")
        given = [f"*{state}" if len(carried) > 1 else state, f"*{entries}" if len(sequences) > 1 else entries]
        function = choose("step", {*self.taken, *self.variables.values(), *constants}, "step")
        return [
            f"def {function}({state}, {entries}):",
            f"    {state} = {self.render.one_entry(node, given, self.read)}",
            f"    return {state}, {state}",
            "",
            f"_, {_together(targets)} = ops.scan({function}, {_together(carried)}, {_together(sequences)})",
        ]

    def _keeps(self, node: Node) -> bool:
        """Whether a layer is called that has a cache."""
        return self.render.decodes and is_cached(self.analysis.plan, callee_of(node))

    def _header(self, node: Node, member: Member) -> str:
        start, count = node.attrs.get("start", 0), node.attrs["count"]
        if not member.element:
            return f"for _ in {range_text(self.render.scope, 0, count)}:"
        siblings = [n for n in self.statements if n.name in self.render.members]
        shared = [
            n for n in siblings if self.render.members[n.name].attribute == member.attribute and n.name != node.name
        ]
        layers = f"{member.owner}.{member.attribute}"
        if shared:
            at = self.statements.index(node)
            layers += self._part(start, count, last=all(self.statements.index(n) < at for n in shared))
        return f"for {member.element} in {layers}:"

    def _part(self, start, count, last: bool) -> str:
        scope = self.render.scope
        first = "" if start == 0 else scope.value(start)
        stop = (
            "" if last else range_text(scope, start, count).removesuffix(")").rpartition(", ")[2].removeprefix("range(")
        )
        return f"[{first}:{stop}]"

    def _required(self, name: str | None) -> Text:
        value = self.read(name)
        return Text("None") if value is None else value

    def read(self, name: str | None) -> Text | None:
        """The expression for a value: its variable, or its computation where it is inlined."""
        if name is None:
            return None
        if name in self.variables:
            return Text(self.variables[name])
        return self.render.node(self.graph[name], self.read)


def _together(texts: Sequence[str]) -> str:
    return texts[0] if len(texts) == 1 else f"({', '.join(texts)})"
