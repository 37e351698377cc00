"""Running: any batch and length, compiled inference and training."""

from typing import Any

import keras
import numpy as np

from hf2khc.check.contract_subject import Subject, difference, outputs
from hf2khc.check.contract_verdict import Broken, require
from hf2khc.check.signature import fits

# Another order of summation, no more: float32 keeps 7 digits.
_ROUNDING = 1e-5
# Of tokens; and how many times as many samples as the package's test has.
_LENGTHS = ((1, 1), (3, 2), (6, 1))


def lengths(subject: Subject) -> str:
    """The model takes any batch and length; a row's outputs do not depend on the other rows."""
    model = subject.model
    free = any(None in shape[1:] for shape in subject.shapes.values())
    for length, scale in _LENGTHS if free else ((None, 1),):
        inputs = subject.inputs(3, length, scale)
        together = outputs(model, inputs)
        require(_shape_faults(model, inputs, together), f"compute_output_shape is wrong at length {length}")
        for row in range(3 if subject.takes_rows else 0):
            alone = outputs(model, {name: array[row : row + 1] for name, array in inputs.items()})
            rows = zip(subject.rows(together, row), alone, strict=True)
            pairs = [(own, found) for own, found in rows if own is not None]
            error = difference([own for own, _ in pairs], [found for _, found in pairs])
            if error > _ROUNDING:
                raise Broken(f"row {row} of a batch of 3 at length {length} alone is off by {error:.1e}")
    tried = ", ".join(str(length) for length, _ in _LENGTHS)
    batches = "batches 1 and 3" if subject.takes_rows else "no batch"
    return f"lengths {tried}, {batches}" if free else f"{batches}, fixed sizes"


def _shape_faults(model: Any, inputs: dict[str, np.ndarray], found: list[np.ndarray]) -> list[str]:
    shapes = model.compute_output_shape({name: array.shape for name, array in inputs.items()})
    pairs = zip([array.shape for array in found], map(tuple, _flat_shapes(shapes)), strict=True)
    return [f"{model.name}: {actual}, said to be {said}" for actual, said in pairs if not fits(actual, said)]


def _flat_shapes(shapes: Any) -> list[Any]:
    if isinstance(shapes, dict):
        return [shapes[name] for name in sorted(shapes)]
    return [shapes]


def compiled(subject: Subject) -> str:
    """`predict` gives what a call gives, and `fit` changes every trainable weight that bears on an output."""
    jit = keras.backend.backend() != "torch"  # KerasHub runs torch uncompiled, too
    model, inputs = subject.build(), subject.inputs()
    eager = outputs(model, inputs)
    # Keras itself leaves what a layer says it does not support, and warns.
    model.compile(optimizer=keras.optimizers.SGD(0.01), loss="mse", jit_compile=jit)
    predicted = [np.asarray(a) for a in keras.tree.flatten(_predicted(subject, model, inputs))]
    error = difference(eager, predicted)
    if error > _ROUNDING:
        raise Broken(f"predict is off by {error:.1e} from a call")
    before = [keras.ops.convert_to_numpy(w.value) for w in model.trainable_weights]
    loss = _fitted(subject, model, inputs)
    if not np.isfinite(loss):
        raise Broken(f"the loss is {loss}")
    changed = [not np.array_equal(b, keras.ops.convert_to_numpy(w.value))
               for b, w in zip(before, model.trainable_weights, strict=True)]  # fmt: skip
    still = [w.path for w, moved in zip(model.trainable_weights, changed, strict=True) if not moved]
    if not any(changed):
        raise Broken("a training step changes nothing", still)
    rest = f"; unchanged: {', '.join(still)}" if still else ""
    trained = f"{sum(changed)} of {len(changed)} weights trained{rest}"
    return f"jit_compile={model.jit_compile}, predict within {error:.0e}, {trained}"


def _predicted(subject: Subject, model: Any, inputs: dict[str, np.ndarray]) -> Any:
    return model.predict(inputs, verbose=0) if subject.takes_rows else model.predict_on_batch(inputs)


def _fitted(subject: Subject, model: Any, inputs: dict[str, np.ndarray]) -> float:
    """The loss of one step; what has no batch that `fit` could cut goes in as a whole."""
    wanted = targets(model, inputs)
    if not subject.is_batched:
        return float(model.train_on_batch(inputs, wanted, return_dict=True)["loss"])
    rows = len(next(iter(inputs.values())))
    return model.fit(inputs, wanted, batch_size=rows, verbose=0).history["loss"][0]


def targets(model: Any, inputs: dict[str, np.ndarray]) -> Any:
    """Random targets in the structure of the model's outputs."""
    random = np.random.default_rng(1)
    value = model({name: keras.ops.convert_to_tensor(array) for name, array in inputs.items()})
    return keras.tree.map_structure(lambda v: random.standard_normal(tuple(v.shape)).astype("float32"), value)
