"""A process of the tests: what packages generate greedily, under the Keras backend of the environment.

`python generate_many.py FOLDER PACKAGE...`: reads FOLDER/prompts.npz, writes FOLDER/PACKAGE-BACKEND.npz.
"""

import sys
from pathlib import Path

from hf2khc.process import hide_other_backends

hide_other_backends()
import keras  # noqa: E402
import numpy as np  # noqa: E402

from hf2khc.package import import_package, load_preset  # noqa: E402


def main(folder: Path, packages: list[str]) -> None:
    with np.load(folder / "prompts.npz") as data:
        inputs = {name: data[name] for name in data.files}
    for name in packages:
        import_package(folder / name)
        task = load_preset(folder / name)
        task.compile(sampler="greedy")
        names = [name for name in inputs if name in task.input]
        found = task.generate({name: inputs[name] for name in names}, stop_token_ids=None)
        tokens = found.get("token_ids", found.get("decoder_token_ids"))
        np.savez(folder / f"{name}-{keras.backend.backend()}.npz", token_ids=np.asarray(tokens))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
