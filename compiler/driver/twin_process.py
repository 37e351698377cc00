"""The twin's process: `python -m hf2khc.driver.twin_process JOB`; a pickle of its answer lies in `JOB.answer` then."""

import os
import pickle
import sys
import traceback
from pathlib import Path

from hf2khc.process import hide_other_backends

os.environ["KERAS_BACKEND"] = "torch"


def main(path: str) -> None:
    """Compile the twin of a job: `sys.path`, and the pickled arguments of `compile_twin`."""
    hide_other_backends()
    partial, answer = Path(f"{path}.part"), Path(f"{path}.answer")
    partial.write_bytes(pickle.dumps(_answer(Path(path))))
    partial.rename(answer)


def _answer(path: Path) -> object:
    """What `compile_twin` gives for a job, or the error that ends it."""
    # keras reads its backend when it is first imported.
    from hf2khc.capture.aten import use_one_thread
    from hf2khc.diagnostics import ConversionError, fail
    from hf2khc.driver.compile import lower
    from hf2khc.driver.twin import compile_twin

    # The arrays of a twin are tiny: a second thread costs far more than it saves, above all beside other work.
    use_one_thread()
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
