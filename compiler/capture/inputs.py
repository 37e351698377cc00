"""What a model takes: names, types and symbolic shapes of its inputs, and samples of them."""

import inspect
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from hf2khc.capture.alternatives import SOUNDS, alternatives, runs, sound_masks
from hf2khc.capture.build import configs
from hf2khc.capture.config_parts import first_field, part_with
from hf2khc.capture.examples import at_size, spec_of
from hf2khc.capture.images import image_input, takes_images
from hf2khc.capture.input_types import Example, Input
from hf2khc.capture.prepared import prepared_inputs
from hf2khc.diagnostics import ConversionError, fail

TYPICAL_SAMPLES = 4096  # samples of a waveform: enough for one frame of any strided feature extractor


def input_spec(model: PreTrainedModel, examples: Sequence[Example] = ()) -> tuple[Input, ...]:
    """The inputs with which a model is captured, from its main input, its forward's arguments and its config.

    Args:
        model: of which the class and the config count.
        examples: inputs that the user gave, by argument name; the model is captured with those and no others.

    Raises:
        ConversionError: `inputs-unknown` when the forward needs an argument that nothing describes; `inputs-unfit` for
            an example of something that it does not take.
    """
    accepted = inspect.signature(model.forward).parameters
    if examples:
        return _from_examples(model, accepted, examples)
    spec = tuple(_inputs(model, accepted))
    described = {entry.name for entry in spec}
    needed = [name for name, argument in accepted.items() if _required(argument) and name not in described]
    if needed or not spec:
        main = model.main_input_name
        raise fail(
            "inputs-unknown",
            f"no way to make the inputs of {type(model).__name__}: " + ", ".join(needed or [str(main)]),
            location=f"{type(model).__name__}.forward",
            excerpt="forward(" + ", ".join(accepted) + ")",
            hint="convert another class of the model with --task, or give examples: hf2khc.convert(..., inputs=...)",
        )
    return _tried(model, spec)


def _tried(model: PreTrainedModel, spec: tuple[Input, ...]) -> tuple[Input, ...]:
    """The first alternative with which the model runs; the spec itself where there is no other, or none does."""
    others = list(alternatives(model, spec))
    if len(others) == 1:
        return others[0]
    tensors = ({n: torch.from_numpy(a) for n, a in sample_inputs(s, trace_sizes(model, s)).items()} for s in others)
    return next((s for s, samples in zip(others, tensors, strict=True) if runs(model, samples)), others[0])


def _from_examples(model: PreTrainedModel, accepted: Any, examples: Sequence[Example]) -> tuple[Input, ...]:
    free = any(argument.kind is argument.VAR_KEYWORD for argument in accepted.values())
    unknown = [name for name in examples[0] if name not in accepted and not free]
    if unknown:
        message = f"{type(model).__name__} takes no input {', '.join(unknown)}"
        raise fail("inputs-unfit", message, excerpt="forward(" + ", ".join(accepted) + ")")
    try:
        known = {entry.name: entry for entry in _inputs(model, accepted)}
    except ConversionError:  # what the config does not say the examples show
        known = {}
    spec = spec_of(examples, known, frozenset(_special_ids(model.config)))
    sizes = trace_sizes(model, spec)
    samples = {name: torch.from_numpy(array) for name, array in sample_inputs(spec, sizes).items()}
    return (*spec, *prepared_inputs(model, spec, samples, sizes))


def _required(argument: inspect.Parameter) -> bool:
    return argument.default is argument.empty and argument.kind is argument.POSITIONAL_OR_KEYWORD


def _inputs(model: PreTrainedModel, accepted: Any) -> Iterator[Input]:
    config = model.config
    main = model.main_input_name
    # A forward that only hands its arguments on takes the main input.
    passes_on = all(a.kind in (a.VAR_POSITIONAL, a.VAR_KEYWORD) for a in accepted.values())
    if main in ("input_ids", "pixel_values") and ("input_ids" in accepted or passes_on and main == "input_ids"):
        yield from _text_inputs(model, accepted, "", "seq")
    if takes_images(type(model), config):
        yield image_input(config)
    elif main in SOUNDS:
        sound = _audio_input(config, main)
        yield sound
        yield from (mask for mask in sound_masks(sound, accepted) if _required(accepted[mask.name]))
    if config.is_encoder_decoder and "decoder_input_ids" in accepted:
        yield from _text_inputs(model, accepted, "decoder_", "decoder_seq")


def _text_inputs(model: PreTrainedModel, accepted: Any, prefix: str, seq: str) -> Iterator[Input]:
    shape = ("batch", seq)
    size = _vocabulary(model, prefix)
    end = None if prefix else _end(model.config, size)
    pad = getattr(model.config.get_text_config(decoder=bool(prefix)), "pad_token_id", None)
    pad = pad if isinstance(pad, int) and 0 <= pad < size else None
    yield Input(f"{prefix}input_ids", "int64", shape, ("randint", *_free_ids(model, size)), end=end, pad=pad)
    if f"{prefix}attention_mask" in accepted:
        yield Input(f"{prefix}attention_mask", "int64", shape, ("ones",), "mask")
    kinds = getattr(model.config.get_text_config(), "type_vocab_size", None)
    # Without a table of its own the argument means something else (other inputs' places, words of a second kind).
    if f"{prefix}token_type_ids" in accepted and kinds:
        yield Input(f"{prefix}token_type_ids", "int64", shape, ("randint", 0, kinds))


def _vocabulary(model: PreTrainedModel, prefix: str) -> int:
    """How many tokens there are."""
    text = model.config.get_text_config(decoder=True) if prefix else model.config.get_text_config()
    size = getattr(text, "vocab_size", None) or _first_of_parts(model.config, "vocab_size")
    try:
        embedding = None if prefix else model.get_input_embeddings()
    except NotImplementedError:
        embedding = None
    if isinstance(embedding, nn.Embedding):
        size = min(size or embedding.num_embeddings, embedding.num_embeddings)
    if not size:
        raise fail("inputs-unknown", "the config gives no size of the vocabulary", location="config.vocab_size")
    return size


def _free_ids(model: PreTrainedModel, size: int) -> tuple[int, int]:
    """The longest range of token ids (from, below) without a special token."""
    edges = [-1, *sorted(token for token in set(_special_ids(model.config)) if 0 <= token < size), size]
    low, high = max(zip(edges, edges[1:], strict=False), key=lambda edge: edge[1] - edge[0])
    return low + 1, high


def _end(config: PreTrainedConfig, size: int) -> int | None:
    """The token that ends a text: some models look for it, and pool what stands there."""
    text = config.get_text_config()
    tokens = np.ravel(getattr(text, "eos_token_id", None) or [])
    padding = getattr(text, "pad_token_id", None)
    return next((int(token) for token in tokens if 0 <= token < size and token != padding), None)


def _special_ids(config: PreTrainedConfig) -> Iterator[int]:
    for part in configs(config):
        for name, value in part.to_dict().items():
            if name.endswith(("_token_id", "_token_index", "_token_ids")):
                tokens = np.ravel(value if value is not None else [])
                yield from (int(token) for token in tokens if isinstance(token, np.integer))


def _audio_input(config: PreTrainedConfig, name: str) -> Input:
    audio = part_with(config, "audio_config", "encoder_config", "encoder")
    bins = first_field(audio, "num_mel_bins", "input_feat_per_channel", "feature_size", "input_dim")
    if name == "input_features":
        frames = first_field(audio, "max_source_positions")
        if bins and frames and hasattr(audio, "num_mel_bins") and not hasattr(audio, "input_feat_per_channel"):
            # Two frames per position: the first convolutions halve the rate.
            return Input(name, "float32", ("batch", bins, 2 * frames), ("normal",))
        if bins:
            return Input(name, "float32", ("batch", "frames", bins), ("normal",))
        raise fail("inputs-unknown", "the config gives no number of audio features", location="config.num_mel_bins")
    frames = first_field(audio, "max_length")
    if bins and frames and hasattr(audio, "patch_size"):
        return Input(name, "float32", ("batch", frames, bins), ("normal",))
    return Input(name, "float32", ("batch", "samples"), ("normal",))


def _first_of_parts(config: PreTrainedConfig, name: str) -> Any:
    return next((value for part in configs(config) if (value := getattr(part, name, None))), None)


def symbols(spec: tuple[Input, ...]) -> tuple[str, ...]:
    """The names of the free sizes in a spec, in order of appearance."""
    return tuple(dict.fromkeys(size for entry in spec for size in entry.shape if isinstance(size, str)))


def trace_sizes(model: PreTrainedModel, spec: tuple[Input, ...]) -> dict[str, int]:
    """Sizes for the free symbols: at least 2, distinct, and equal to no dimension of the model, so that they show."""
    taken = {size for tensor in (*model.parameters(), *model.buffers()) for size in tensor.shape}
    taken |= {value for part in configs(model.config) for value in vars(part).values() if isinstance(value, int)}
    taken |= {size for entry in spec for size in entry.shape if isinstance(size, int)}
    sizes: dict[str, int] = {}
    for symbol in symbols(spec):
        start = {"batch": 2, "samples": TYPICAL_SAMPLES, "frames": 61}.get(symbol, 11)
        sizes[symbol] = next(size for size in _primes(start) if size not in taken | set(sizes.values()))
    return sizes


def longest_sequences(config: PreTrainedConfig, symbols: Iterable[str]) -> dict[str, int]:
    """How long the sequences among some symbols may be, where the config says so."""
    longest = getattr(config.get_text_config(), "max_position_embeddings", None)
    return {symbol: longest for symbol in symbols if longest and symbol.endswith("seq")}


def _primes(start: int) -> Iterator[int]:
    number = start
    while True:
        if all(number % divisor for divisor in range(2, int(number**0.5) + 1)):
            yield number
        number += 1


def sample_inputs(
    spec: tuple[Input, ...], sizes: dict[str, int], seed: int = 0, padding: str = "none"
) -> dict[str, np.ndarray]:
    """Samples of all inputs.

    Args:
        spec: the inputs.
        sizes: a size for each symbol.
        seed: seed of the random numbers; equal seeds give equal samples.
        padding: `none`, `right` or `left`: the side on which masks are 0. Rows get different lengths, the first row
            is full. Where a mask is 0 its text has the token for padding, as a tokenizer leaves it: some models look
            for the largest token, or for the last that is no padding.

    Returns:
        Arrays by input name, of the dtypes in the spec.
    """
    if padding not in ("none", "right", "left"):
        raise ValueError(f"padding is none, right or left, not {padding!r}")
    samples = {}
    for index, entry in enumerate(spec):
        shape = tuple(sizes[size] if isinstance(size, str) else size for size in entry.shape)
        samples[entry.name] = _sample(entry, shape, np.random.default_rng((seed, index)))
        if entry.role == "mask" and padding != "none":
            _pad(samples[entry.name], padding)
    for entry in spec:
        mask = samples.get(entry.name.replace("input_ids", "attention_mask"))
        if entry.pad is not None and mask is not None and mask.shape == samples[entry.name].shape:
            samples[entry.name][mask == 0] = entry.pad
        if entry.end is not None:
            _finish(samples[entry.name], mask, entry.end)
    return samples


def _finish(tokens: np.ndarray, mask: np.ndarray | None, end: int) -> None:
    """Writes the end of the text in every row's last place that is not masked, in place."""
    for row in range(len(tokens)):
        tokens[row, -1 if mask is None else int(np.flatnonzero(mask[row])[-1])] = end


def _sample(entry: Input, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    kind, *bounds = entry.fill
    if kind == "randint":
        low, high = bounds
        return random.integers(low, high, size=shape).astype(entry.dtype)
    if kind == "normal":
        mean, spread = bounds or (0.0, 1.0)
        return random.normal(mean, spread, shape).astype(entry.dtype)
    if kind == "uniform":
        low, high = bounds
        return random.uniform(low, high, shape).astype(entry.dtype)
    if kind == "given":
        return at_size(bounds[0], shape)
    return np.full(shape, 1 if kind == "ones" else 0, entry.dtype)


def _pad(mask: np.ndarray, side: str) -> None:
    """Zeroes one side of the rows after the first, in place; every row keeps at least one place."""
    length = mask.shape[-1]
    for row in range(1, mask.shape[0]):
        cut = min(1 + (row - 1) % max(length - 1, 1), length - 1)
        mask[row, ..., length - cut if side == "right" else 0 : length if side == "right" else cut] = 0
