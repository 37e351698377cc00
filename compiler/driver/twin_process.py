"""The twin's process: `python -m hf2khc.driver.twin_process FOLDER`, where the pickles `job-N` and `answer-N` lie.

It imports first and then waits for lines on stdin: the number of a job that is there. At the end of stdin nobody waits
any more.
"""

import os
import pickle
import sys
import traceback
from pathlib import Path

from hf2khc.process import hide_other_backends

os.environ["KERAS_BACKEND"] = "torch"


def main(folder: str) -> None:
    hide_other_backends()
    # keras reads its backend when it is first imported.
    import hf2khc.driver.compile
    import hf2khc.driver.twin  # noqa: F401

    Path(folder, "ready").touch()
    for line in sys.stdin:
        partial, answer = (Path(folder, f"answer-{line.strip()}{end}") for end in (".part", ""))
        partial.write_bytes(pickle.dumps(_answer(Path(folder, f"job-{line.strip()}"))))
        partial.rename(answer)


def _answer(path: Path) -> object:
    """What `compile_twin` gives for a job, or the error that ends it."""
    from hf2khc.diagnostics import ConversionError, fail
    from hf2khc.driver.compile import lower
    from hf2khc.driver.twin import compile_twin

    search, job = pickle.loads(path.read_bytes())
    sys.path += [entry for entry in search if entry not in sys.path]
    config, model_class, validated, *rest = pickle.loads(job)
    try:
        return compile_twin(config, model_class, lower, validated, *rest)
    except ConversionError as error:
        return error
    except Exception as error:  # a model's own code may fail in any way
        frame = traceback.extract_tb(error.__traceback__)[-1]
        message = f"the model does not run at the sizes of its twin: {type(error).__name__}: {error}"
        hint = "correct the config (config.json or --set); where it is right, this is a fault of the compiler"
        return fail("twin", message, location=f"{frame.filename}:{frame.lineno}", hint=hint)


if __name__ == "__main__":
    main(*sys.argv[1:])
