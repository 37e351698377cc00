"""Random torch modules: a list of steps, each an operation on values made before."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import nn

# The sizes of the trace. No other size in a module is one of them.
BATCH, SEQ, WIDTH = 5, 7, 6
F = nn.functional


@dataclass(frozen=True)
class Step:
    """One operation: its name, the values it takes, and a number it does with as it likes."""

    op: str
    operands: tuple[int, ...]
    number: int


class Block(nn.Module):
    """A module that may be called several times, its weights shared."""

    def __init__(self, kind: int):
        super().__init__()
        self.up, self.down, self.norm = nn.Linear(WIDTH, 8), nn.Linear(8, WIDTH), nn.LayerNorm(WIDTH)
        self.kind = kind

    def forward(self, x):
        hidden = [F.gelu, F.silu, torch.tanh, F.relu][self.kind % 4](self.up(self.norm(x) if self.kind % 2 else x))
        return x + self.down(hidden)


class RandomModule(nn.Module):
    """What the steps say, on `x: f32[batch, seq, WIDTH]` and `ids: i64[batch, seq]`."""

    def __init__(self, steps: tuple[Step, ...]):
        super().__init__()
        self.steps = steps
        self.embedding, self.linear, self.norm = nn.Embedding(11, WIDTH), nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH)
        self.blocks = nn.ModuleList(Block(kind) for kind in range(3))
        self.conv = nn.Conv1d(WIDTH, WIDTH, 3, padding=1)
        self.scale = nn.Parameter(torch.ones(WIDTH))
        self.register_buffer("offset", torch.linspace(-1.0, 1.0, WIDTH), persistent=False)

    def forward(self, x, ids):
        values = [x, ids]
        for step in self.steps:
            values.append(apply(self, step, values))
        return (values[-1], *[v for v in values[2:-1] if v.dim() == 3][-1:])


def apply(module: RandomModule, step: Step, values: list):
    return OPS[step.op].compute(module, step.number, *(values[i] for i in step.operands))


@dataclass(frozen=True)
class Op:
    """An operation: what kind each operand is of, and what it computes."""

    kinds: tuple[str, ...]
    compute: Callable


def _pad(m, n, x):
    return F.pad(x, [(0, 0, 1, n % 3), (n % 3, 0), (0, 0, n % 2 + 1, 0)][n % 3], value=float(n % 2))


def _write(m, n, x, y):
    made = x.clone()
    if n % 4 == 0:
        made[:, 1:] = made[:, :-1] * 2
    elif n % 4 == 1:
        made[..., 0] = 1.5
    elif n % 4 == 2:
        made.masked_fill_(y > 0, 0.25)
    else:
        made[:, n % 2 :: 2] += 1.0
    return made


def _in_place(m, n, x):
    made = x * 1.5
    return [made.add_, made.mul_, made.sub_, made.clamp_][n % 4](0.5)


def _heads(m, n, x):
    width = x.shape[-1] // 2
    q = x.view(x.shape[0], -1, 2, width).transpose(1, 2)
    if n % 2:
        out = F.scaled_dot_product_attention(q, q, q, is_causal=n % 3 == 0)
    else:
        scores = torch.matmul(q, q.transpose(-1, -2)) * 0.3
        mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()
        out = torch.softmax(scores.masked_fill(~mask, float("-inf")), -1) @ q
    return out.transpose(1, 2).reshape(x.shape[0], -1, 2 * width)


def _scatter(m, n, x):
    best = x.topk(2, dim=-1)[1]
    if n % 3 == 0:
        return torch.zeros_like(x).scatter(-1, best, 1.0)
    if n % 3 == 1:
        return x.scatter_add(-1, best, x[..., :2])
    return torch.zeros_like(x).scatter(-1, best, x.gather(-1, best))


def _take(m, n, x, i):
    index = i.clamp(0, 1)
    if n % 3 == 0:
        return x[torch.arange(x.shape[0]), index[:, 0]].unsqueeze(1) + x
    if n % 3 == 1:
        return x + torch.gather(x, 1, index.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
    return x[:, [0, 1, -1]]


def _reduce(m, n, x):
    made = [x.mean, x.sum, x.amax, x.var][n % 4](dim=[1, 2, -1, 1][n // 4 % 4], keepdim=True)
    return x - made


def _groups(m, n, x):
    choice = x.argmax(-1).reshape(-1)
    order = choice.argsort(stable=True)
    back = torch.empty_like(order)
    back[order] = torch.arange(order.shape[0])
    return (x.reshape(-1, x.shape[-1])[order] * 2.0)[back].view_as(x)


def _sequence(m, n, x):
    """What torch computes on (batch, channels, seq)."""
    y = x.transpose(1, 2)
    y = [lambda: m.conv(y) if y.shape[1] == WIDTH else y * 2, lambda: F.max_pool1d(y, 3, 1, 1),
         lambda: F.avg_pool1d(y, 3, 1, 1), lambda: F.avg_pool1d(y, 3, 1, 1, count_include_pad=False),
         lambda: F.interpolate(y, scale_factor=2, mode="nearest"),
         lambda: F.interpolate(y, scale_factor=2, mode="linear")][n % 6]()  # fmt: skip
    return y.transpose(1, 2)


def _product(m, n, x, y):
    scores = [lambda: torch.einsum("bic,bjc->bij", x, y), lambda: torch.bmm(x, y.mT), lambda: x @ y.transpose(1, 2)]
    return torch.tanh(scores[n % 3]() * 0.2) @ y


def _compare(m, n, x, y):
    return [lambda: x > y, lambda: x <= 0.1, lambda: x.abs() < y.abs(), lambda: (x > 0) != (y > 0)][n % 4]()


def _logic(m, n, b):
    return [lambda: ~b, lambda: b & b.flip(1), lambda: b | b.roll(1, 1), lambda: b.cumsum(1) > 2,
            lambda: b.any(-1, keepdim=True) ^ b, lambda: b.all(1, keepdim=True) | b][n % 6]()  # fmt: skip


def _choose(m, n, x, b):
    return [lambda: torch.where(b, x, -x), lambda: x.masked_fill(b, 0.5), lambda: x * b, lambda: x + b.to(x.dtype),
            lambda: torch.where(b, x, 2.0), lambda: x - b.sum(-1, keepdim=True)][n % 6]()  # fmt: skip


UNARY = [torch.tanh, torch.sin, F.gelu, F.silu, F.relu, torch.sigmoid, F.softplus, torch.abs, torch.square,
         lambda x: x.abs().add(0.1).sqrt(), lambda x: x.abs().add(0.1).log(), torch.floor, torch.neg, torch.erf,
         lambda x: x.clamp(-0.5, 0.8), lambda x: torch.exp(-x.abs()), lambda x: F.elu(x, 0.7), F.hardswish]  # fmt: skip
BINARY = [torch.add, torch.sub, torch.mul, torch.maximum, torch.minimum, lambda x, y: x / (y.abs() + 0.5),
          lambda x, y: torch.where(x > y, x, y * 0.5), lambda x, y: torch.add(x, y, alpha=2), torch.atan2]  # fmt: skip
LAYOUT = [lambda x: x.flip(1), lambda x: x.flip(-1), lambda x: x.roll(1, 1), lambda x: torch.cat([x, x * 2], 1),
          lambda x: torch.stack([x, -x], 1).mean(1), lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
          lambda x: x.reshape(x.shape[0], -1).view(x.shape[0], -1, x.shape[-1]), lambda x: x.repeat(1, 2, 1),
          lambda x: x.repeat_interleave(2, dim=1), lambda x: torch.cat(x.chunk(2, -1)[::-1], -1),
          lambda x: sum(x.unbind(-1)).unsqueeze(-1) + x, lambda x: x[:, None].expand(-1, 2, -1, -1).sum(1),
          lambda x: x[:, 1:], lambda x: x[:, :-1], lambda x: x[:, ::2], lambda x: x[:, -2:]]  # fmt: skip
ALONG = [lambda x: x.cumsum(1), lambda x: x.softmax(-1), lambda x: x.softmax(1), lambda x: x.log_softmax(-1),
         lambda x: F.normalize(x, dim=-1), lambda x: x.sort(-1)[0], lambda x: x.sort(-1, descending=True)[0],
         lambda x: x - x.logsumexp(1, keepdim=True), lambda x: x * x.std(-1, keepdim=True)]  # fmt: skip
OPS = {
    "unary": Op(("float",), lambda m, n, x: UNARY[n % len(UNARY)](x)),
    "binary": Op(("float", "like"), lambda m, n, x, y: BINARY[n % len(BINARY)](x, y)),
    "broadcast": Op(("wide",), lambda m, n, x: BINARY[n % len(BINARY)](x, [m.scale, m.offset, x[:, :1]][n % 3])),
    "layout": Op(("float",), lambda m, n, x: LAYOUT[n % len(LAYOUT)](x)),
    "along": Op(("float",), lambda m, n, x: ALONG[n % len(ALONG)](x)),
    "reduce": Op(("float",), _reduce),
    "pad": Op(("float",), _pad),
    "write": Op(("float", "like"), _write),
    "in_place": Op(("float",), _in_place),
    "heads": Op(("wide",), _heads),
    "scatter": Op(("float",), _scatter),
    "take": Op(("float", "int"), _take),
    "groups": Op(("float",), _groups),
    "sequence": Op(("float",), _sequence),
    "product": Op(("float", "like"), _product),
    "compare": Op(("float", "like"), _compare),
    "logic": Op(("bool",), _logic),
    "choose": Op(("float", "bool"), _choose),
    "linear": Op(("wide",), lambda m, n, x: m.linear(x)),
    "norm": Op(("wide",), lambda m, n, x: m.norm(x)),
    "block": Op(("wide",), lambda m, n, x: m.blocks[n % 3](x)),
    "twice": Op(("wide",), lambda m, n, x: m.blocks[n % 3](m.blocks[n % 3](x))),
    "embedding": Op(("int",), lambda m, n, i: m.embedding(i)),
    "integers": Op(("int",), lambda m, n, i: [(i + 3) % 11, i.flip(1), i.clamp(1, 5), i // 2, i.cumsum(1) % 7][n % 5]),
    "chosen": Op(("float",), lambda m, n, x: [x.argmax, x.argmin][n % 2](-1)),
    "counted": Op(("int",), lambda m, n, i: F.one_hot(i.clamp(0, 5), WIDTH).to(m.scale.dtype) * (n % 3 + 0.5)),
    "masked": Op(("float", "int"), lambda m, n, x, i: x * (i != n % 4).unsqueeze(-1).to(x.dtype)),
}


@st.composite
def modules(draw, most: int = 8) -> RandomModule:
    """A module of a few steps, each of which takes values of the kind it needs."""
    steps: list[Step] = []
    module = RandomModule(())
    values = [torch.zeros(BATCH, SEQ, WIDTH), torch.zeros(BATCH, SEQ, dtype=torch.int64)]
    for _ in range(draw(st.integers(1, most))):
        name, number = draw(st.sampled_from(sorted(OPS))), draw(st.integers(0, 35))
        operands: list[int] = []
        for kind in OPS[name].kinds:
            fitting = [i for i, value in enumerate(values) if _fits(kind, value, [values[o] for o in operands])]
            if not fitting:
                break
            operands.append(fitting[-1 - draw(st.integers(0, len(fitting) - 1))])
        if len(operands) < len(OPS[name].kinds):
            continue
        step = Step(name, tuple(operands), number)
        with torch.no_grad():
            made = apply(module, step, values)
        if made.numel() > 4096:
            continue
        steps.append(step)
        values.append(made)
    return RandomModule(tuple(steps))


def _fits(kind: str, value: torch.Tensor, before: list[torch.Tensor]) -> bool:
    if kind == "int":
        return value.dtype == torch.int64 and (not before or value.shape == before[0].shape[:2])
    if kind == "bool":
        return value.dtype == torch.bool and (not before or value.shape == before[0].shape)
    if kind == "like":
        return value.is_floating_point() and value.shape == before[0].shape
    return value.is_floating_point() and (kind == "float" or value.shape[-1] == WIDTH)
