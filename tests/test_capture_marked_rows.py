import pytest
import torch
from torch import nn

from hf2khc.capture.fx_graphs import drop_aliases
from hf2khc.capture.marked_rows import last_marked_rows

END = 1


class Classifier(nn.Module):
    """Takes a row of those that an end token marks, as the classifiers of encoder-decoders do."""

    def __init__(self, place: int) -> None:
        super().__init__()
        self.place = place

    def forward(self, x: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        marked = x[ids.eq(END), :]
        torch._check(marked.shape[0] // x.shape[0] >= 1)
        return marked.view(x.shape[0], -1, x.shape[2])[:, self.place, :]


IDS = torch.tensor([[5, END, 7, END, 3], [END, 6, 2, 4, END], [2, 4, 3, END, END]])


def _exported(place: int) -> torch.export.ExportedProgram:
    return torch.export.export(Classifier(place), (torch.zeros(3, 5, 4), IDS), strict=False)


def test_the_last_marked_row_is_looked_up() -> None:
    exported, x = _exported(-1), torch.randn(3, 5, 4)
    drop_aliases(exported.graph)  # and with them the checks that read the size
    last_marked_rows(exported.graph)
    values = [node.meta["val"] for node in exported.graph.nodes if isinstance(node.meta.get("val"), torch.Tensor)]
    assert not any(isinstance(size, torch.SymInt) for value in values for size in value.shape)
    assert torch.equal(torch.fx.Interpreter(exported.graph_module).run(x, IDS)[0], Classifier(-1)(x, IDS))


@pytest.mark.parametrize("place", [0, 1])
def test_another_row_than_the_last_is_left_alone(place: int) -> None:
    exported = _exported(place)
    before = str(exported.graph)
    last_marked_rows(exported.graph)
    assert str(exported.graph) == before
