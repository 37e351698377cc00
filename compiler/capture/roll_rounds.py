"""The three rounds of a loop in a trace, put beside one another: what is carried, read and left, and one scan for all.

The rounds must compute the same, each from its own entry of some sequences and from what the round before gave.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from hf2khc.capture.counted_loops import ROUNDS
from hf2khc.ir.expr import same
from hf2khc.ir.graph import Graph, Node, numbered, value_name
from hf2khc.ir.types import Tensor, Type, same_type

_WHOLE = 2**63 - 1
_READ, _WRITE, _STACK = "aten.select", "aten.select_scatter", "hf2khc.rounds"


class RoundsDiffer(Exception):
    """Why the rounds of a loop are no scan."""


def roll_rounds(
    graph: Graph, marks: Mapping[str, tuple[int, int]], cls: str, taken: Iterable[str] = ()
) -> tuple[Graph, list[Graph]]:
    """A graph with a `scan` in place of every loop, and the graph of one round of each.

    Args:
        graph: in torch's operations.
        marks: the loop and the round of nodes, by name.
        cls: the class of a round.
        taken: names that no graph of a round may have.

    Raises:
        RoundsDiffer: they are no rounds of a scan.
    """
    steps: list[Graph] = []
    if not marks:
        return graph, steps
    graph = _without_whole_slices(graph, marks)
    for loop in dict.fromkeys(loop for loop, _ in marks.values()):
        rounds: list[list[Node]] = [[] for _ in range(ROUNDS)]
        for node in graph:
            if marks.get(node.name, (None,))[0] == loop:
                rounds[marks[node.name][1]].append(node)
        rolled = _Rolled(graph, rounds, numbered(cls, {*taken, *(step.name for step in steps)}))
        steps.append(rolled.step().replaced(cls=cls))
        graph = rolled.graph()
    return graph, steps


def _without_whole_slices(graph: Graph, marks: Mapping[str, tuple[int, int]]) -> Graph:
    """Slices of a whole axis, and copies over what has the same type, are what is taken or copied."""
    redirect = {}
    for node in graph:
        if node.name in marks:
            whole = node.attrs.get("start", 0) == 0 and node.attrs.get("end") == _WHOLE and "step" not in node.attrs
            kept = {"aten.slice": whole and 0, "aten.slice_scatter": whole and 1, "aten.copy": 1}.get(node.op, False)
            if kept is not False and same_type(graph[node.used[kept]].type, node.type):
                redirect[node.name] = node.used[kept]
    return graph.rewired(redirect=redirect)


class _Rolled:
    """One loop of a graph.

    Args:
        graph: that the rounds are in.
        rounds: the nodes of each, in order.
        name: of the graph of one round.
    """

    def __init__(self, graph: Graph, rounds: Sequence[Sequence[Node]], name: str):
        self.before, self.name = graph, name
        self.first, self.second, self.last = rounds
        self.place = {node.name: place for nodes in rounds[:2] for place, node in enumerate(nodes)}
        self.own = {node.name for node in self.second}
        self.previous = {node.name for node in self.first}
        # What stands for a value of the round before, in the first round.
        self.initial: dict[int, str] = {}
        self._align()
        # The place of each value of the last round; what nothing reads any more is gone there.
        self.place_in_last = self._places_in_last()
        self.invariant: set[int] = set()
        self.reads: dict[int, tuple[str, int]] = {}
        self.writes: dict[int, tuple[int, int]] = {}
        self._sort()
        self.length = self._length()
        self.outputs = self._outputs()

    # What the rounds have in common

    def _align(self) -> None:
        if not self.first or len(self.first) != len(self.second):
            raise RoundsDiffer(f"a loop has rounds of {len(self.first)} and {len(self.second)} operations")
        for first, second in zip(self.first, self.second, strict=True):
            if not _alike(first, second, 0, 1):
                raise RoundsDiffer(f"{first.op} at {first.loc} is {second.op} in the next round")
            for a, b in zip(first.operands, second.operands, strict=True):
                self._compare(a, b)

    def _compare(self, a: str | None, b: str | None) -> None:
        """An operand in the first round and the same one in the second."""
        if b in self.own:
            agrees = a in self.previous and self.place[a or ""] == self.place[b or ""]
        elif b in self.previous:
            place = self.place[b or ""]
            agrees = a is not None and a not in self.previous and self.initial.setdefault(place, a) == a
            agrees = agrees and same_type(self.before[a or ""].type, self.first[place].type)
        else:
            agrees = a == b
        if not agrees:
            raise RoundsDiffer(f"%{b} is read in the second round of a loop where %{a} was in the first")

    def _places_in_last(self) -> dict[str, int]:
        found: dict[str, int] = {}
        rest = iter(enumerate(self.second))
        for node in self.last:
            place = next((p for p, second in rest if self._is_next(second, node, found)), None)
            if place is None:
                raise RoundsDiffer(f"{node.op} at {node.loc} is not in every round")
            found[node.name] = place
        return found

    def _is_next(self, second: Node, last: Node, found: Mapping[str, int]) -> bool:
        """Whether a node of the last round computes what one of the second does."""
        counted = second.attrs != self.first[self.place[second.name]].attrs
        if not _alike(second, last, 1, 2) or counted == (second.attrs == last.attrs):
            return False
        for b, c in zip(second.operands, last.operands, strict=True):
            if b in self.own:
                agrees = c in found and found[c or ""] == self.place[b or ""]
            elif b in self.previous:
                agrees = c in self.own and self.place[c or ""] == self.place[b or ""]
            else:
                agrees = b == c
            if not agrees:
                return False
        return True

    # What each value is

    def _sort(self) -> None:
        for place, (first, second) in enumerate(zip(self.first, self.second, strict=True)):
            counted = first.attrs != second.attrs
            if not counted and all(self._is_outside(operand) for operand in second.used):
                self.invariant.add(place)
            elif counted and first.op == _READ and self._is_outside(second.used[0]):
                self.reads[place] = first.used[0], _axis(first, self.before[first.used[0]].tensor.rank)
            elif counted and first.op == _WRITE and self._fills(place, second):
                self.writes[place] = self.place[second.used[1]], _axis(first, first.tensor.rank)
            elif counted:
                raise RoundsDiffer(f"{first.op} at {first.loc} depends on the number of the round")

    def _is_outside(self, operand: str) -> bool:
        return (operand in self.own and self.place[operand] in self.invariant) or operand not in self.place

    def _fills(self, place: int, write: Node) -> bool:
        """Whether a write of one entry per round is all that becomes of a tensor."""
        target, entry = write.used
        readers = [n for n in self.second if self.first[place].name in n.used]
        return target == self.first[place].name and entry in self.own and readers == [write]

    def _length(self):
        """How many rounds there are."""
        lengths = [self.before[source].tensor.shape[axis] for source, axis in self.reads.values()]
        lengths += [self.first[place].tensor.shape[axis] for place, (_, axis) in self.writes.items()]
        lengths += [node.attrs["count"] for node, _ in self._stacks()]
        if not self.reads or not all(same(length, lengths[0]) for length in lengths):
            raise RoundsDiffer(f"a loop is over sequences of the lengths {', '.join(map(str, lengths)) or 'of none'}")
        return lengths[0]

    def _stacks(self) -> Iterator[tuple[Node, int]]:
        """The stacked results of all rounds, each with the place of the result."""
        for node in self.before.of(_STACK):
            if node.used[0] in self.previous:
                first, second, last = node.used
                place = self.place[first]
                if self.place.get(second) != place or self.place_in_last.get(last) != place:
                    raise RoundsDiffer("what is stacked is not the same value of every round")
                yield node, place

    def _finals(self) -> Iterator[tuple[str, int]]:
        """The values of the last round that are read behind the loop, each with its place."""
        stacks = {node.name for node, _ in self._stacks()}
        rounds = [{node.name for node in nodes} for nodes in (self.first, self.second, self.last)]
        for number, names in enumerate(rounds):
            allowed = names | stacks | (rounds[number + 1] if number + 1 < ROUNDS else set())
            for name in names:
                place = self.place_in_last[name] if number == ROUNDS - 1 else self.place[name]
                leaves = name in self.before.outputs or {u.name for u in self.before.users(name)} - allowed
                if leaves and place not in self.invariant and place not in self.writes:
                    if number < ROUNDS - 1:
                        raise RoundsDiffer(f"%{name} of one round of a loop is read behind it")
                    yield name, place

    def _outputs(self) -> dict[int, None]:
        """The places of what a round gives: what the next one takes, and the results."""
        carried = [place for place in self.initial if place not in self.writes]
        results = [*(place for place, _ in self.writes.values()), *(place for _, place in self._stacks())]
        results += [place for _, place in self._finals()]
        if any(place in self.invariant or place in self.reads for place in (*carried, *results)):
            raise RoundsDiffer("a round of a loop computes nothing of what it gives")
        return dict.fromkeys((*carried, *results))

    # The graph of one round

    def step(self) -> Graph:
        """What one round computes: its inputs are what is carried, entries of the sequences, and what never changes."""
        nodes, used = {}, [self.first[place].name for place in self.outputs]
        while used:
            place = self.place.get(used.pop())
            if place is not None and place not in nodes and place not in self.reads and place not in self.invariant:
                nodes[place] = self._in_step(place)
                used += [o for o in self.second[place].used if o in self.own]
        inputs = [Node(name, "input", type=type_, origin=origin) for name, type_, origin in self._inputs()]
        body = [nodes[place] for place in sorted(nodes)]
        return Graph(self.name, [*inputs, *body], [self.first[place].name for place in self.outputs])

    def _in_step(self, place: int) -> Node:
        operands = tuple(o and self._name_in_step(o) for o in self.second[place].operands)
        return replace(self.first[place], operands=operands)

    def _name_in_step(self, operand: str) -> str:
        if operand in self.own:
            return self.first[self.place[operand]].name
        if operand in self.previous:
            return f"{operand}_before"
        return value_name(operand)

    def _inputs(self) -> Iterator[tuple[str, Type, frozenset[str]]]:
        for place in self.outputs:
            node = self.first[place]
            yield f"{node.name}_before", node.type, node.origin
        for place in self.reads:
            node = self.first[place]
            yield node.name, node.type, node.origin
        for name, inside in self._constants().items():
            yield inside, self.before[name].type, self.before[name].origin

    def _constants(self) -> dict[str, str]:
        """What a round reads that is no part of it and the same in all, each with its name in the graph of a round."""
        kept = [p for p in range(len(self.second)) if p not in self.reads and p not in self.invariant | {*self.writes}]
        read = (o for place in kept for o in self.second[place].used if self._is_outside(o))
        return {self.first[self.place[o]].name if o in self.own else o: self._name_in_step(o) for o in read}

    # The graph around it

    def graph(self) -> Graph:
        """The graph with the scan, and what was made of the rounds made of its results."""
        new: dict[str, Node] = {}
        whole = self.before.fresh(f"{self.first[next(iter(self.outputs))].name}_scan")
        starts = [self._start(place, new) for place in self.outputs]
        sequences = [self._sequence(source, axis, new) for source, axis in self.reads.values()]
        types = tuple(self._stacked(self.first[place].tensor) for place in self.outputs)
        origin = frozenset().union(*(node.origin for node in self.first))
        attrs = {"graph": self.name, "path": "", "carry": len(starts), "over": len(sequences)}
        operands = (*starts, *sequences, *self._constants())
        new[whole] = Node(
            whole, "scan", operands, attrs, types if len(types) > 1 else types[0], self.first[0].loc, origin
        )
        stacked = dict.fromkeys(self.outputs, whole)
        if len(types) > 1:
            for index, (place, type_) in enumerate(zip(self.outputs, types, strict=True)):
                stacked[place] = self.before.fresh(f"{self.first[place].name}_rounds", new)
                new[stacked[place]] = Node(stacked[place], "item", (whole,), {"index": index}, type_, origin=origin)
        for node, place in self._stacks():
            new[node.name] = self._moved(node, stacked[place], int(node.attrs["axis"]))
        last = {place: name for name, place in self.place_in_last.items()}
        for place, (result, axis) in self.writes.items():
            new[last[place]] = self._moved(self.before[last[place]], stacked[result], axis)
        for name, place in self._finals():
            final = self.before[name]
            new[name] = replace(final, op=_READ, operands=(stacked[place],), attrs={"dim": 0, "index": -1})
        return self.before.rewired(new.values())

    def _start(self, place: int, new: dict[str, Node]) -> str:
        """What the first round takes: zeros for a result that is not carried, which no round reads."""
        if place in self.initial:
            return self.initial[place]
        node = self.first[place]
        name = self.before.fresh(f"{node.name}_start", new)
        attrs = {"size": node.tensor.shape, "dtype": node.tensor.dtype}
        new[name] = Node(name, "aten.zeros", (), attrs, node.type, node.loc, node.origin)
        return name

    def _sequence(self, source: str, axis: int, new: dict[str, Node]) -> str:
        """A sequence with the axis of its entries first."""
        if axis == 0:
            return source
        node = self.before[source]
        order = (axis, *(i for i in range(node.tensor.rank) if i != axis))
        name = self.before.fresh(f"{value_name(source)}_entries", new)
        type_ = Tensor(node.tensor.dtype, tuple(node.tensor.shape[i] for i in order))
        new[name] = Node(name, "aten.permute", (source,), {"dims": order}, type_, node.loc, node.origin)
        return name

    def _stacked(self, entry: Tensor) -> Tensor:
        return Tensor(entry.dtype, (self.length, *entry.shape))

    def _moved(self, node: Node, stacked: str, axis: int) -> Node:
        """The results of all rounds along an axis, in place of a node."""
        rank = node.tensor.rank
        others = list(range(1, rank))
        order = (*others[: axis % rank], 0, *others[axis % rank :])
        return replace(node, op="aten.permute", operands=(stacked,), attrs={"dims": order})


def _alike(a: Node, b: Node, first: int, second: int) -> bool:
    """Whether two nodes compute the same, save for the number of their round."""
    if a.op != b.op or a.attrs.keys() != b.attrs.keys() or len(a.operands) != len(b.operands):
        return False
    pairs = ((a.attrs[key], b.attrs[key]) for key in a.attrs)
    counted = all(x == y or (type(x), x, type(y), y) == (int, first, int, second) for x, y in pairs)
    return counted and same_type(a.type, b.type)


def _axis(node: Node, rank: int) -> int:
    return int(node.attrs.get("dim", 0)) % rank
