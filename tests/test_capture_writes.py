"""Operations that write into their argument become operations that do not, traced again only where they must be."""

import pytest
import torch
from torch.fx import Interpreter

from hf2khc.capture.writes import _compute_anew, _writes, without_writes


def twice(x):
    h = x * 2
    h += 1
    return torch.nn.functional.relu_(h) - x


def one_of_two(x):
    values, places = x.topk(2)
    values /= values.sum(-1, keepdim=True)
    return values, places


def read_before(x):
    h = x * 2
    before = h + 1
    h.mul_(3)
    return before * h


def seen_through_a_view(x):
    h = x * 2
    row = h[0]
    h += 1
    return row


def part_of_another(x):
    h = x * 2
    h[0] += 1
    return h


def rows_from_rows(x):
    h = x * 2
    for row in range(1, 3):
        above = h[row, :row].clone()
        h[row, :row] = above + (above[:, None] * h[:row, :row].clone()).sum(0)
    return h + x


def written_before_and_behind(x):
    h = torch.zeros_like(x)
    first = h[0] + 1
    h[1:, 2] = x[1:, 0]
    h.mul_(2)
    h[..., 1] = x[:, 3]
    return h, first


def a_view_that_is_kept(x):
    h = x * 2
    row = h[0]
    h[0, 1:] = x[1, 1:]
    return h, row


def a_view_of_a_view(x):
    h = x * 2
    flat = h.view(-1)
    part = flat[2:]
    h[1] = x[0]
    return part + 1


def a_view_written_through_twice(x):
    h = torch.stack([x, x * 2, x * 3]) * 1.0
    first = h[0]
    for part, start in ((1, 1), (2, 2)):
        first[..., start::3] = h[part, ..., start::3]
    return first, h


def seen_through_what_may_be_a_copy(x):
    h = x * 2
    flat = h.t().reshape(-1)
    h += 1
    return flat + 1


def what_a_write_gives(x):
    h = x * 2
    row = h[0].mul_(3)
    h.add_(1)
    return h, row


def twice_through_a_view(x):
    h = x * 2
    h[0].mul_(3).add_(1)
    return h


def through_a_reshape(x):
    h = x * 2
    h.view(-1)[3:] = x[0, 0]
    return h


def of_the_argument(x):
    h = torch.dropout(x, 0.5, False)
    h = h.view(-1)
    h += 1
    return x


def with_a_wider_one(x):
    h = torch.zeros_like(x)
    h += x.double()
    return h


def exported(function):
    class Model(torch.nn.Module):
        def forward(self, x):
            return function(x)

    return torch.export.export(Model().eval(), (torch.randn(3, 4),))


def check(program, function):
    x = torch.randn(3, 4)
    found, expected = (r if isinstance(r, list | tuple) else [r] for r in (Interpreter(program).run(x), function(x)))
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(found[-len(expected) :], expected, strict=True))


OWN = [
    twice, one_of_two, read_before, part_of_another, rows_from_rows, written_before_and_behind, seen_through_a_view,
    a_view_that_is_kept, a_view_of_a_view, a_view_written_through_twice,
]  # fmt: skip


@pytest.mark.parametrize("function", OWN)
def test_what_has_one_name_is_computed_anew(function, monkeypatch):
    program = exported(function)
    assert any(map(_writes, program.graph.nodes))
    # Nothing is traced again.
    monkeypatch.setattr(type(program), "run_decompositions", None)
    assert without_writes(program) is program
    program.graph.lint()
    assert not any(map(_writes, program.graph.nodes))
    program.graph_module.recompile()
    check(program.graph_module, function)


SHARED = [
    with_a_wider_one, of_the_argument, what_a_write_gives, twice_through_a_view, through_a_reshape,
    seen_through_what_may_be_a_copy,
]  # fmt: skip


@pytest.mark.parametrize("function", SHARED)
def test_what_another_name_stands_for_is_traced_again(function):
    program = exported(function)
    _compute_anew(program.graph)
    assert any(map(_writes, program.graph.nodes))
    functional = without_writes(program)
    assert functional is not program and not any(map(_writes, functional.graph.nodes))
    check(functional.graph_module, function)


def test_a_mapped_function_is_traced_again():
    def mapped(x):
        return torch.vmap(lambda row: row * 2 + 1)(x)

    program = exported(mapped)
    functional = without_writes(program)
    assert all(isinstance(n.target, torch._ops.OpOverload) for n in functional.graph.nodes if n.op == "call_function")
