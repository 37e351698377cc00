"""The twin's process: `python -m hf2khc.driver.twin_process FOLDER`, where the pickles `job` and `answer` lie.

It imports first and then waits for a line on stdin: the job is there. An end of stdin without one means that nobody
waits any more.
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
    from hf2khc.diagnostics import ConversionError, fail
    from hf2khc.driver.compile import lower
    from hf2khc.driver.twin import compile_twin

    Path(folder, "ready").touch()
    if not sys.stdin.readline():
        return
    search, job = pickle.loads(Path(folder, "job").read_bytes())
    sys.path += [path for path in search if path not in sys.path]
    config, model_class, validated, cut, examples = pickle.loads(job)
    result: object
    try:
        result = compile_twin(config, model_class, lower, validated, cut, examples)
    except ConversionError as error:
        result = error
    except Exception as error:  # a model's own code may fail in any way
        frame = traceback.extract_tb(error.__traceback__)[-1]
        message = f"the model does not run at the sizes of its twin: {type(error).__name__}: {error}"
        hint = "correct the config (config.json or --set); where it is right, this is a fault of the compiler"
        result = fail("twin", message, location=f"{frame.filename}:{frame.lineno}", hint=hint)
    partial = Path(folder, "answer.part")
    partial.write_bytes(pickle.dumps(result))
    partial.rename(Path(folder, "answer"))


if __name__ == "__main__":
    main(*sys.argv[1:])
