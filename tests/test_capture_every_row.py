"""Rows that a mask picks: all of them are traced, and those that it marks are put back."""

import pytest
import torch
from custom_models import Custom, exported
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from hf2khc.capture import module_state
from hf2khc.capture.every_row import EveryRow
from hf2khc.capture.importer import import_program
from hf2khc.diagnostics import ConversionError

EXPERTS = 3


class Kernels(Custom):
    """Has a kernel for each expert."""

    def __init__(self, config):
        super().__init__(config)
        self.kernels = nn.Parameter(torch.zeros(EXPERTS, 8, 8))
        self.post_init()


class Experts(Kernels):
    """Hands each expert the tokens that were sent to it; nothing is sent to one more that the mask has."""

    def forward(self, input_ids):
        x = self.embed(input_ids).reshape(-1, 8)
        weights, chosen = torch.topk(x[:, :EXPERTS].softmax(-1), 2)
        mask = nn.functional.one_hot(chosen, EXPERTS + 1).permute(2, 1, 0)
        y = torch.zeros_like(x)
        for expert in torch.greater(mask.sum((-1, -2)), 0).nonzero():
            expert = expert[0]
            place, token = torch.where(mask[expert])
            y.index_add_(0, token, x[token] @ self.kernels[expert] * weights[token, place, None])
        return y


class Sorted(Kernels):
    """Sorts tokens by expert and splits them by how many each one gets, twice with other counts."""

    def forward(self, input_ids):
        x = self.embed(input_ids).reshape(-1, 8)
        for scores in (x[:, :EXPERTS], -x[:, :EXPERTS]):
            chosen = scores.argmax(-1)
            order = chosen.argsort()
            counts = nn.functional.one_hot(chosen, EXPERTS).sum(0).tolist()
            parts = x[order].split(counts, dim=0)
            made = torch.cat([parts[i] @ self.kernels[i] for i in range(EXPERTS)], dim=0)
            x = torch.zeros_like(x).index_add(0, order, made)
        return x


class Adapters(Custom):
    """Adds to tokens of even numbers what one layer makes of them."""

    def __init__(self, config):
        super().__init__(config)
        self.adapter = nn.Linear(8, 8)
        self.post_init()

    def forward(self, input_ids):
        x = self.embed(input_ids)
        y = x * 1.0
        even = input_ids % 2 == 0
        y[even] = self.adapter(x[even])
        return y


class Counting(Custom):
    """Takes the mean of the tokens that a mask marks, which every row has a part in."""

    def forward(self, input_ids):
        x = self.embed(input_ids)
        return x[input_ids > 5].mean(0)


@pytest.mark.parametrize("model_class", [Experts, Sorted, Adapters])
def test_every_row_is_computed_and_the_marked_ones_are_put_back(model_class):
    model, found = exported(model_class)
    assert set(found.symbols.values()) == {"batch", "seq"}
    assert "all of them are computed" in found.notes[-1]
    ids = torch.randint(0, 40, (5, 9))
    with torch.no_grad():
        torch.testing.assert_close(found.program.module()(input_ids=ids), model(ids))
    import_program(found.program, model, found.symbols)


def test_a_mean_of_marked_rows_is_not_taken_for_that_of_all():
    with pytest.raises(ConversionError) as refused:
        model, found = exported(Counting)
        import_program(found.program, model, found.symbols)
    assert refused.value.diagnostics[0].code in ("not-capturable", "data-dependent-size")


def test_what_a_mask_picks_outside_stays():
    x, mask = torch.arange(6).reshape(2, 3), torch.tensor([True, False])
    assert x[mask].tolist() == [[0, 1, 2]]
    with pytest.raises(ConversionError, match="does not put them back"), EveryRow():
        x[mask].sum()
    with EveryRow():
        assert x[mask].tolist() == x.tolist()
        x[mask] = -x
        assert x.tolist() == [[0, -1, -2], [3, 4, 5]]
        x[mask] = 7
    assert x.tolist() == [[7, 7, 7], [3, 4, 5]]


class Caching(Custom):
    """Keeps what it computed in a dictionary, as the biases of LeViT."""

    def __init__(self, config):
        super().__init__(config)
        self.kept = {}

    def forward(self, input_ids):
        if "bias" not in self.kept:
            self.kept["bias"] = self.embed.weight.sum()
        return self.embed(input_ids) + self.kept["bias"]


def test_what_a_trace_leaves_in_a_module_is_gone_behind_it():
    model, found = exported(Caching)
    assert not model.kept
    with torch.no_grad():
        ids = torch.randint(0, 40, (2, 5))
        torch.testing.assert_close(found.program.module()(input_ids=ids), model(ids))


def test_state_is_kept_when_the_block_fails():
    model = nn.Linear(2, 2)
    model.names = ["a"]
    with pytest.raises(ConversionError), module_state.state_kept(model):
        model.names.append("b")
        del model.bias
        raise ConversionError()
    assert model.names == ["a"] and model.bias is not None


def test_places_of_nonzero_entries_stand_for_all_only_one_by_one():
    x, marks = torch.arange(6).reshape(3, 2), torch.tensor([0, 1, 0])
    with EveryRow():
        assert [x[place].tolist() for place in marks.nonzero()[:, 0]] == x.tolist()
        for taken in (lambda places: x[places[:, 0]], lambda places: x.index_select(0, places[:, 0])):
            with pytest.raises(ConversionError, match="together"):
                taken(marks.nonzero())


def test_counts_are_no_numbers():
    with FakeTensorMode(), EveryRow() as rows:
        x, counts = torch.zeros(6, 2), torch.zeros(3, dtype=torch.int64)
        assert [len(part) for part in x.split(counts.tolist())] == [6, 6, 6]
        with pytest.raises(TypeError):
            x[: counts.tolist()[0]]
        rows.open.clear()
