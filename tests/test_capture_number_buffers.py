"""Buffers of one whole number are numbers in a trace, and what is computed of them and of sizes is a size."""

import math

import pytest
import torch
from custom_models import Custom, exported, random_model
from torch import nn

from hf2khc.capture.importer import import_program
from hf2khc.capture.known_values import unknown_sizes
from hf2khc.capture.number_buffers import Number, number_buffers, numbers_for_buffers


class Padding(Custom):
    """Pads so that a convolution with a stride leaves nothing out, as codecs of audio do."""

    def __init__(self, config):
        super().__init__(config)
        self.conv = nn.Conv1d(8, 8, 5, 2)
        self.stride = nn.Buffer(torch.tensor(2), persistent=False)
        self.kernel_size = nn.Buffer(torch.tensor(5), persistent=False)
        self.post_init()

    def forward(self, input_ids):
        x = self.embed(input_ids).transpose(1, 2)
        total = self.kernel_size - self.stride
        frames = (x.shape[-1] - self.kernel_size + total) / self.stride + 1
        frames = torch.ceil(frames).to(torch.int64) - 1
        more = frames * self.stride + self.kernel_size - total - x.shape[-1]
        return self.conv(nn.functional.pad(x, (total, more)))


def test_what_is_padded_by_them_has_a_free_size():
    model, found = exported(Padding)
    assert set(found.symbols.values()) == {"batch", "seq"} and not unknown_sizes(found.program)
    assert not any("sizes" in note for note in found.notes)
    for length in (8, 11, 12):
        ids = torch.randint(0, 40, (3, length))
        with torch.no_grad():
            torch.testing.assert_close(found.program.module()(input_ids=ids), model(ids))
    import_program(found.program, model, found.symbols)


def test_buffers_are_as_before_behind_the_block():
    model = random_model(Padding)
    before = dict(model.named_buffers())
    assert sorted(name for _, name, _ in number_buffers(model)) == ["kernel_size", "stride"]
    with pytest.raises(ZeroDivisionError), numbers_for_buffers(model):
        assert isinstance(model.stride, Number) and not dict(model.named_buffers())
        raise ZeroDivisionError
    assert model.stride is before["stride"] and dict(model.named_buffers()).keys() == before.keys()


@pytest.mark.parametrize("size", [7, 8, 23])
def test_numbers_count_as_tensors_do(size):
    def computed(stride, kernel):
        whole = (size - kernel + 3) / stride + 1
        return [
            torch.ceil(whole).to(torch.int64), torch.floor(whole).long() * kernel, (size + stride) // kernel % 3,
            2 - stride, -kernel, size / stride, kernel / 2 - 1, 1 * stride + size, size - whole * 2,
        ]  # fmt: skip

    tensors, numbers = computed(torch.tensor(3), torch.tensor(4)), computed(Number(3), Number(4))
    assert [float(n.value) for n in numbers] == pytest.approx([float(t) for t in tensors])
    assert Number(3) > 2 and not Number(3) <= Number(2) and Number(6, 2) == 3
    assert not Number(0) and max(Number(3), 4) == 4
    assert math.ceil(Number(7, 2)) == 4 and math.floor(Number(7, 2)) == 3 and [0, 1, 2][Number(2)] == 2
    assert Number(-7, 2).to(torch.int64) == -3 and Number(7, 2).item() == 3.5
