"""The model that the contract is checked on: its class, its arguments, its inputs."""

import importlib
import inspect
import json
import unittest
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import numpy as np

from hf2khc.diagnostics import fail
from hf2khc.ir.expr import evaluate, simplify
from hf2khc.package import broken_package, import_package

_BATCH = 2


@dataclass(frozen=True)
class Subject:
    """What is checked.

    Args:
        directory: the package.
        module: its imported folder.
        cls: the Backbone class.
        arguments: constructor arguments, without `dtype`.
        template: input arrays by name, as the package's own test has them.
        sizes: of every input what each axis is called, or its number; `batch` first.
        results: the same of every output that the signature names.
        follows: whether the package follows its config, as its report says.
        description: the config that is checked, for the report.
        least: of what an axis is called, the smallest size that the package takes where that is not 1.
    """

    directory: Path
    module: ModuleType
    cls: Any
    arguments: Mapping[str, Any]
    template: Mapping[str, np.ndarray]
    sizes: Mapping[str, tuple[str | int, ...]]
    results: Mapping[str, tuple[str | int, ...]]
    follows: bool
    description: str
    least: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """Names of all constructor arguments of the config, also of those that are left at their default."""
        named = inspect.signature(self.cls).parameters.values()
        return tuple(p.name for p in named if p.kind is not p.VAR_KEYWORD and p.name != "dtype")

    def build(self, seed: int = 0, **arguments: Any) -> Any:
        """A new model whose weights depend on the seed alone, and none of which is 0 or 1 throughout as fresh ones are.

        Args:
            seed: of the weights.
            **arguments: of the constructor, beside those of the config.
        """
        keras.utils.set_random_seed(seed)
        model = self.cls(**{**self.arguments, **arguments})
        random = np.random.default_rng(seed)
        for weight in model.weights:
            if keras.backend.standardize_dtype(weight.dtype) in ("float32", "float64", "bfloat16", "float16"):
                value = keras.ops.convert_to_numpy(keras.ops.cast(weight.value, "float32"))
                weight.assign(value + 0.02 * random.standard_normal(value.shape).astype("float32"))
        return model

    @cached_property
    def model(self) -> Any:
        """One model for all checks that leave it as it is."""
        return self.build()

    def inputs(self, batch: int = _BATCH, length: int | None = None, scale: int = 1, seed: int = 0) -> dict[str, Any]:
        """Random inputs; the mask of the last row ends with padding, and integers that the test chose stay.

        Args:
            batch: number of rows, where the inputs have rows.
            length: of sequences of tokens whose length is free; None for that of the package's test.
            scale: how many times as long samples and frames are as in that test.
            seed: of the numbers.
        """
        found = self._drawn(batch, length, scale, seed)
        for name in self._masks:
            found[name] = np.full_like(found[name], self.unmasked)
            found[name][-1, max(1, found[name].shape[-1] - 1) :] = 1 - self.unmasked
        return found

    @cached_property
    def unmasked(self) -> int:
        """What a mask holds where nothing is left out: 1, or 0 where a model leaves out what is marked.

        Gemma 3n's sounds are masked that way: where everything is marked no output depends on the others.
        """

        def depends(value: int) -> bool:
            masks = {name: np.full_like(array, value) for name, array in self._drawn().items() if name in self._masks}
            first, second = (outputs(self.model, self._drawn(seed=seed) | masks) for seed in (0, 1))
            return difference(first, second) > 0

        return 1 if not self._masks or depends(1) or not depends(0) else 0

    @property
    def _masks(self) -> list[str]:
        """Inputs that leave out rows, as far as their name and the test's own numbers say: all the same in it."""
        named = ((name, array) for name, array in self.template.items() if name.endswith("mask"))
        return [name for name, array in named if set(np.unique(array)) in ({0}, {1})]

    def _drawn(
        self, batch: int = _BATCH, length: int | None = None, scale: int = 1, seed: int = 0
    ) -> dict[str, np.ndarray]:
        """Random values for every input, for masks too."""
        random = np.random.default_rng(seed)
        sizes = {**self._bindings(length, scale), "batch": batch}
        found = {}
        for name, array in self.template.items():
            # Keras calls the first axis free even where it is no batch.
            free = zip((None, *self.shapes[name][1:]), self.sizes[name], array.shape, strict=True)
            shape = tuple(usual if size else _size(called, sizes, usual) for size, called, usual in free)
            found[name] = self._values(name, array, shape, random)
        return found

    @property
    def takes_rows(self) -> bool:
        """Whether each input has the batch as its first axis: a flat list of patches, say, has none."""
        return all(shape[0] == "batch" for shape in self.sizes.values())

    @property
    def is_batched(self) -> bool:
        """Whether each output has, too, so that `fit` and `predict` may cut them."""
        return self.takes_rows and all(shape[0] == "batch" for shape in self.results.values())

    def _bindings(self, length: int | None, scale: int) -> dict[str, int]:
        """The size of every axis by its name; samples may have to be as many as a filter takes, tokens not."""
        usual: dict[str, int] = {}
        sampled = set()
        for name, array in self.template.items():
            for called, size in zip(self.sizes[name], array.shape, strict=True):
                if isinstance(called, str) and called.isidentifier():
                    usual[called] = size
                    sampled |= {called} if array.dtype.kind == "f" else set()
        sizes = {called: size * scale if called in sampled else length or size for called, size in usual.items()}
        return {called: max(size, self.least.get(called, 1)) for called, size in sizes.items()}

    def rows(self, batch: list[np.ndarray], row: int) -> list[np.ndarray | None]:
        """What `outputs` gives for one row of a batch: a batch of one; None where a result belongs to no single row."""
        names = sorted(self.model.output) if isinstance(self.model.output, dict) else [""]
        shapes = [[str(size) for size in self.results.get(name, ("batch",))] for name in names]
        by_row = [[size for size in shape if "batch" in size] == ["batch"] for shape in shapes]
        return [
            np.take(array, [row], axis=shape.index("batch")) if own else None
            for array, shape, own in zip(batch, shapes, by_row, strict=True)
        ]

    @cached_property
    def shapes(self) -> dict[str, tuple[int | None, ...]]:
        """The shape of every input; None for a size that is free."""
        return {tensor.name: tuple(tensor.shape) for tensor in self.model.inputs}

    def _values(self, name: str, like: np.ndarray, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
        if like.dtype.kind in "iu" and like.shape[1:] == shape[1:] and len(np.unique(like)) > 1:
            return np.resize(like, shape)  # places, or how many there are: the rows of the test, repeated
        if like.dtype.kind == "f":
            return random.standard_normal(shape).astype(like.dtype)
        limit = self.arguments.get("vocabulary_size") if name.endswith("token_ids") else None
        return random.integers(0, limit or int(like.max(initial=0)) + 1, shape).astype(like.dtype)


def subject_of(directory: Path) -> Subject:
    """What to check of a package: its class at the config of its own test, which the inputs there belong to.

    Raises:
        ConversionError: `package`, when the package has no such test or cannot be imported.
    """
    module = import_package(directory)
    test = _test_case(directory, module)
    cls = getattr(module, type(test).__name__.removesuffix("Test"), None)
    if cls is None:
        raise fail("package", f"{type(test).__name__} tests no class of the package", location=str(directory))
    signature = json.loads((directory / "signature.json").read_text(encoding="utf-8"))
    sizes = {entry["name"]: _axes(entry) for entry in signature["inputs"].values()}
    results = {entry["name"]: tuple(entry["shape"]) for entry in signature["outputs"].values()}
    about = "the config of the package's own test"
    report = directory / "report.json"
    follows = not report.is_file() or json.loads(report.read_text(encoding="utf-8"))["config_generalises"]
    least = signature.get("least", {})
    return Subject(directory, module, cls, test.init_kwargs, test.input_data, sizes, results, follows, about, least)


def _axes(entry: Mapping[str, Any]) -> tuple[str | int, ...]:
    """What the axes of an input are called, in the order of the package."""
    shape = entry["shape"]
    return tuple(shape[axis] for axis in entry.get("permute", range(len(shape))))


def _size(called: str | int, sizes: Mapping[str, int], usual: int) -> int:
    """The size of a free axis: bound itself, or computed from those that are."""
    if isinstance(called, int):
        return usual
    return int(evaluate(simplify(called), sizes))


def _test_case(directory: Path, module: ModuleType) -> Any:
    """The package's own test of its Backbone, set up."""
    name = f"{module.__name__}.{module.__name__}_backbone_test"
    try:
        tests = importlib.import_module(name)
        cases = [c for c in vars(tests).values() if isinstance(c, type) and issubclass(c, unittest.TestCase)]
        case = cases[0]("setUp")
        case.setUp()
    except Exception as error:  # generated code may fail in any way
        raise broken_package("its test cannot be set up", error, directory / module.__name__) from error
    return case


def outputs(model: Any, inputs: Mapping[str, np.ndarray], **keywords: Any) -> list[np.ndarray]:
    """Every output of a model, as arrays; in float32 where numpy has no such dtype.

    Args:
        model: a Backbone.
        inputs: arrays by name.
        **keywords: of the call.
    """
    tensors = {name: keras.ops.convert_to_tensor(array) for name, array in inputs.items()}
    return [as_array(value) for value in keras.tree.flatten(model(tensors, **keywords))]


def as_array(value: Any) -> np.ndarray:
    if keras.backend.standardize_dtype(value.dtype) in ("bfloat16", "float16"):
        value = keras.ops.cast(value, "float32")
    return keras.ops.convert_to_numpy(value)


def difference(expected: list[np.ndarray], actual: list[np.ndarray]) -> float:
    """The largest difference relative to the largest magnitude; infinite where shapes differ or a number is lost."""
    if [a.shape for a in expected] != [a.shape for a in actual]:
        return float("inf")
    worst = 0.0
    for a, b in zip(expected, actual, strict=True):
        if not np.isfinite(b).all():
            return float("inf")
        a, b = (array.astype("float64") for array in (a, b))  # masks have no difference
        worst = max(worst, float(np.abs(a - b).max(initial=0)) / (float(np.abs(a).max(initial=0)) or 1.0))
    return worst
