"""Sizes that convolutions with strides leave of others."""

from collections.abc import Iterator

from hf2khc.driver.forms import close

# Prime factors of the strides of convolutions, one after the other.
STRIDES = (2, 3, 5, 7)


def is_stride(stride: int) -> bool:
    for factor in STRIDES:
        while stride % factor == 0:
            stride //= factor
    return stride == 1


def sides_of(values: tuple, name: str, sizes: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """What values would be made of, each config another one, and how."""
    if all(isinstance(value, int) and value > 0 for value in values):
        found: list[tuple[str, tuple[float, ...]]] = [
            ("{}", values),
            ("({}) ** 2", tuple(value**0.5 for value in values)),
            ("({}) ** 2 + 1", tuple((value - 1) ** 0.5 for value in values)),
        ]
    else:
        found = [(name + " / ({})", tuple(n / v if v >= 1 else 0.0 for n, v in zip(sizes, values, strict=True)))]
    for form, sides in found:
        whole = tuple(map(round, sides))
        if len(set(whole)) == len(values) and all(
            n > 0 and close(float(n), s) for n, s in zip(whole, sides, strict=True)
        ):
            yield form, whole
