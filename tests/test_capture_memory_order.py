"""Views that count in memory are views of tensors whose axes are in the order in which they lie there."""

import numpy as np
import torch
from custom_models import Custom, exported

from hf2khc.capture.aten import aten_evaluator
from hf2khc.capture.importer import import_program
from hf2khc.capture.memory_order import _order
from hf2khc.ir.interpret import interpret


class Chunks(Custom):
    """Cuts overlapping chunks of 4 from 8 entries that lie behind one another with the batch between."""

    def forward(self, input_ids):
        x = self.embed(input_ids.T).transpose(0, 1)[:, :8]
        step = x.stride()[1]
        return x.as_strided(size=(x.shape[0], 3, 4, 8), stride=(x.stride()[0], 2 * step, step, 1))


def test_chunks_of_what_does_not_lie_in_the_order_of_its_axes():
    model, found = exported(Chunks)
    program = import_program(found.program, model, found.symbols)
    ids, weight = np.random.default_rng(0).integers(0, 40, (3, 11)), model.embed.weight.detach().numpy()
    with torch.no_grad():
        wanted = model(torch.from_numpy(ids))
    evaluators = {"aten": aten_evaluator()}
    (result,) = interpret(program, {"input_ids": ids}, lambda path: weight, evaluators)
    np.testing.assert_array_equal(result, wanted)


def test_the_order_in_memory():
    x = torch.zeros(2, 3, 5)
    assert _order(x) == [0, 1, 2] and _order(x.permute(2, 0, 1)) == [1, 2, 0]
    assert _order(x.transpose(0, 1)[:, :1]) == [0, 1, 2]  # what is left out lies between
    assert _order(torch.zeros(3, 1, 5).transpose(0, 2)) == [1, 2, 0]
