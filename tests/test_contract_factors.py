"""Which weights of a layer count as kernels that int8 passes over: the factors of its products."""

import pytest

keras = pytest.importorskip("keras")
from keras import ops  # noqa: E402

from hf2khc.check.contract_factors import factors  # noqa: E402
from hf2khc.check.contract_quantization import _raw_kernels  # noqa: E402


class Product(keras.layers.Layer):
    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(4, 4), name="kernel")
        self.column = self.add_weight(shape=(4, 1), name="column")

    def call(self, x):
        return ops.matmul(x, self.kernel) + ops.matmul(x, self.column)


class Arranged(Product):
    def call(self, x):
        other = ops.transpose(self.kernel)
        x = x + 1.0
        return ops.einsum("bi,io->bo", x, ops.reshape(other, (4, 4))[:, :])


class Elementwise(Product):
    def call(self, x):
        decay = ops.exp(self.kernel)
        x = ops.matmul(x, decay)
        other = self.kernel
        other = x * 2.0
        return ops.matmul(x, ops.transpose(other)) * ops.sum(self.kernel)


@pytest.mark.parametrize(
    ("kind", "found"), [(Product, ["kernel", "column"]), (Arranged, ["kernel"]), (Elementwise, [])]
)
def test_factors_are_what_is_multiplied_as_it_stands(kind, found) -> None:
    assert factors(kind()) == set(found)


@pytest.mark.parametrize(("kind", "faults"), [(Product, 1), (Arranged, 1), (Elementwise, 0)])
def test_kernels_outside_layers_are_found(kind, faults) -> None:
    inputs = keras.Input((4,))
    # A vector, of one axis above 1, is no kernel.
    assert len(_raw_kernels(keras.Model(inputs, kind()(inputs)))) == faults
