"""The twin's process: `python -m hf2khc.driver.twin_process JOB ANSWER`, both pickles."""

import os
import pickle
import sys
from pathlib import Path

os.environ["KERAS_BACKEND"] = "torch"


def main(job: str, answer: str) -> None:
    # keras reads its backend when it is first imported.
    from hf2khc.diagnostics import ConversionError
    from hf2khc.driver.compile import lower
    from hf2khc.driver.twin import compile_twin

    config, model_class, validated = pickle.loads(Path(job).read_bytes())
    result: object
    try:
        result = compile_twin(config, model_class, lower, validated)
    except ConversionError as error:
        result = error
    partial = Path(answer + ".part")
    partial.write_bytes(pickle.dumps(result))
    partial.rename(answer)


if __name__ == "__main__":
    main(*sys.argv[1:])
