"""The gradients of a package: which parameters, which inputs."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hf2khc.capture.source import Source
from hf2khc.check.gradient_report import Gradients, VariableSource, compare_gradients
from hf2khc.diagnostics import ConversionError
from hf2khc.driver.proof import proof_cases, reference
from hf2khc.write.weight_paths import weight_paths

if TYPE_CHECKING:
    from hf2khc.driver.compile import Compiled

# Both models and their gradients stand in memory in float64.
MOST_PARAMETERS = 50_000_000


def gradients_of_package(
    directory: Path, source: Source, compiled: "Compiled", config: str, seed: int = 0
) -> Gradients | None:
    """Compares the gradient of every parameter on one input set, with padding where the model takes a mask.

    Args:
        directory: the package, with its weights.
        source: the model, with its weights in `source.directory`.
        compiled: what the package was written from.
        config: what is compared, in words.
        seed: of the inputs.

    Returns:
        the comparison; where a model does not run with gradients, one that does not hold and says why; None where the
        models are too large.
    """
    if compiled.captured.parameters > MOST_PARAMETERS:
        return None
    cases = proof_cases(source, compiled.captured, seed)
    padded = next((name for name in cases if name.startswith("right padding")), next(iter(cases)))
    paths = [path for path in weight_paths(compiled.plan) if path.sources]
    variables = [VariableSource(path.keras, path.sources, path.transform) for path in paths]
    with tempfile.TemporaryDirectory(prefix="hf2khc-gradients-") as scratch:
        try:
            found = compare_gradients(
                directory, reference(source), variables, cases[padded], compiled.signature, Path(scratch)
            )
        except ConversionError as error:
            # The outputs are proved: that a derivative is missing is reported, and refuses no package.
            problems = tuple(diagnostic.render() for diagnostic in error.diagnostics)
            return Gradients(0, 0, float("inf"), "", config=config, problems=problems)
    return replace(found, config=config)
