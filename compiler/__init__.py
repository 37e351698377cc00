"""hf2khc: compiles Hugging Face transformers models to KerasHub packages and proves that both compute the same.

`convert(model, output=None, **options)` writes a package, `load(directory)` reads one back as a Keras model. Both are
imported on first use, so that `import hf2khc` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hf2khc.diagnostics import ConversionError, Diagnostic

if TYPE_CHECKING:
    from hf2khc.driver.convert import Conversion, convert, load

__version__ = "0.1.0"
__all__ = ["Conversion", "ConversionError", "Diagnostic", "__version__", "convert", "load"]


def __getattr__(name: str) -> Any:
    if name in ("Conversion", "convert", "load"):
        return getattr(import_module("hf2khc.driver.convert"), name)
    raise AttributeError(f"module 'hf2khc' has no attribute {name!r}")
