"""Text from a converted package: the quickest look at a result."""

from pathlib import Path

from hf2khc.diagnostics import fail
from hf2khc.driver.convert import load
from hf2khc.driver.package import REPORT_FILE

NEW_TOKENS = 64


def is_package(directory: Path) -> bool:
    """Whether a conversion stands in a folder."""
    return (directory / REPORT_FILE).is_file()


def complete(directory: Path, prompt: str) -> str:
    """What the package's model makes of a prompt, as its generation config says: the prompt and what follows it, or
    the answer of an encoder-decoder.

    Args:
        directory: what `convert` wrote.
        prompt: a text.

    Raises:
        ConversionError: `no-generation`, for a model that generates no text; `no-tokenizer`; what `load` raises.
    """
    model = load(directory)
    if not hasattr(model, "generate"):
        hint = "--prompt is for causal language models and encoder-decoders; `--task causal-lm` may choose one"
        raise fail("no-generation", f"{type(model).__name__} generates no text", location=str(directory), hint=hint)
    if model.preprocessor is None:
        hint = "its report says why, under the notes; a local folder needs tokenizer.json or a vocabulary"
        raise fail("no-tokenizer", "the package makes no inputs of text", location=str(directory), hint=hint)
    packed = model.preprocessor.generate_preprocess([prompt])
    mask = packed.get("padding_mask", packed.get("decoder_padding_mask"))
    length = min(int(mask.shape[1]), int(mask.sum()) + NEW_TOKENS)
    return str(model.generate(prompt, max_length=length))
