"""The names that may be written in one class, and a record of those that were."""

from collections.abc import Collection
from dataclasses import replace

from hf2khc.diagnostics import fail
from hf2khc.ir.expr import Expr, entry_of, names_of, same
from hf2khc.ir.graph import Graph, join, numbered
from hf2khc.write.analysis import Analysis
from hf2khc.write.arguments import parameter_doc
from hf2khc.write.cache import KEY_LENGTH, UPDATE_INDEX, is_cached
from hf2khc.write.expressions import literal
from hf2khc.write.names import input_names
from hf2khc.write.plan import CONSTANT, KEYS, START, UPDATE, Field

_SYMBOLS = {"batch": "batch_size", "seq": "sequence_length", "sequence": "sequence_length", KEYS: KEY_LENGTH}


class Scope:
    """Spells config fields, graph parameters, constants and sizes for one graph.

    Args:
        analysis: the plan.
        graph: the graph whose class is written.
        owner: what stands before a constructor argument: `self.` in a layer, nothing in the backbone.
        lent: fields that the class reads off a backbone it is given.
        lender: that backbone.
    """

    def __init__(
        self, analysis: Analysis, graph: Graph, owner: str = "self.", lent: Collection[str] = (),
        lender: str = "backbone",
    ):  # fmt: skip
        self.analysis = analysis
        self.graph = graph
        self.owner = owner
        self.lent = frozenset(lent)
        self.lender = lender
        self.sources: dict[str, Field] = {}
        self.sizes: dict[str, str] = {}

    def field(self, source: str) -> str:
        """A constructor argument by `config.<name>`, graph parameter, or `constant.<path relative to the graph>`."""
        if self.graph.name == self.analysis.plan.program.entry:
            # A path from the top is one of the model's own; two spellings would be two arguments.
            source = source.replace(f"{CONSTANT}/", CONSTANT, 1)
        entry = entry_of(source)
        if entry is not None:
            return f"{self.field(entry[0])}[{entry[1]}]"
        if source in self.lent:
            return f"{self.lender}.{self.analysis.plan.field(source).name}"
        if source not in self.sources:
            found = self._argument(source)
            taken = {field.name for field in self.sources.values()}
            self.sources[source] = replace(found, name=numbered(found.name, taken))
        return self.owner + self.sources[source].name

    def _argument(self, source: str) -> Field:
        plan = self.analysis.plan
        if source in self.graph.parameters:
            given = plan.by_source.get(source) or next((f for f in plan.fields if f.name == source), None)
            doc = given.doc if given else parameter_doc(source)
            return Field(source, given.name if given else source, None, doc)
        if source.startswith(CONSTANT):
            return plan.field(CONSTANT + join(self.analysis.paths[self.graph.name][0], source.removeprefix(CONSTANT)))
        return plan.field(source)

    def value(self, value) -> str:
        """An attribute value; sizes known at run time are spelled by the local variables of `call`."""
        return literal(value, self._name, dynamic=any(map(self.is_size, names_of(value))))

    def static(self, value) -> str:
        """A value for the constructor or `build`.

        Raises:
            ConversionError: `dynamic-size`, where it depends on a size known at run time only.
        """
        return literal(value, self._static_name)

    def dimension(self, dim) -> str:
        """A dimension of a shape known when the layer is built; `None` where nobody asks or only the call knows it."""
        if isinstance(dim, Expr) and any(self.is_size(name) for name in dim.names):
            return "None"
        return self._of_first_input(dim) or self.static(dim)

    def _of_first_input(self, dim) -> str:
        """How a dimension that is no number of the layer's own is read off what `build` is given."""
        if self.is_stated(dim) or not self.graph.inputs:
            return ""
        first = self.graph.inputs[0]
        place = next((axis for axis, size in enumerate(first.tensor.shape) if same(size, dim)), None)
        return "" if place is None else f"{input_names([first.name])[first.name]}_shape[{place}]"

    def is_stated(self, dim) -> bool:
        """Whether the constructor is told all that a dimension is computed from, for other reasons than this one."""
        silent = frozenset(self.graph.parameters) - self.analysis.stated(self.graph.name)
        return not names_of(dim) & silent

    def shape(self, dims) -> str:
        """A shape for `build`."""
        items = [self.dimension(dim) for dim in dims]
        return f"({items[0]},)" if len(items) == 1 else f"({', '.join(items)})"

    def is_size(self, name: str) -> bool:
        """Whether a name is a size known at run time."""
        return not name.startswith("config.") and name not in self.graph.parameters

    def _name(self, name: str) -> str:
        return self._size(name) if self.is_size(name) else self.field(name)

    def _static_name(self, name: str) -> str:
        if self.is_size(name):
            raise fail("dynamic-size", f"{self.graph.name} needs the size {name} when it is built")
        return self.field(name)

    def _size(self, symbol: str) -> str:
        """The local variable of a size; `sizes` has what it is assigned, but for the length of a cache."""
        if symbol == START:
            return self.start
        if self.owner == "":
            raise fail("dynamic-size", f"the backbone itself cannot compute with the size {symbol}")
        name = _SYMBOLS.get(symbol, symbol)
        for node in self.graph.inputs:
            for axis, dim in enumerate(node.tensor.shape):
                if isinstance(dim, Expr) and dim.text == symbol:
                    self.sizes[name] = f"ops.shape({input_names(n.name for n in self.graph.inputs)[node.name]})[{axis}]"
                    return name
        if symbol == KEYS and self.graph.of(UPDATE):
            return name
        message = f"{self.graph.name}: the size {symbol} is not a dimension of any input"
        raise fail("unknown-size", message, hint="pass a value that has the dimension to this graph")

    @property
    def start(self) -> str:
        """The argument that says where the inputs start in a longer sequence."""
        return UPDATE_INDEX if is_cached(self.analysis.plan, self.graph.name) else START

    def size_lines(self) -> list[str]:
        """The statements that read the sizes off the inputs."""
        return [f"{name} = {text}" for name, text in sorted(self.sizes.items(), key=lambda item: item[1])]

    def size_names(self) -> set[str]:
        """Names kept for sizes, used or not."""
        dims = [dim for node in self.graph.inputs for dim in node.tensor.shape]
        return {_SYMBOLS.get(name, name) for dim in dims if isinstance(dim, Expr) for name in dim.names}
