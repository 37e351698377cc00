"""The real weights of an ALBERT, as the wheel `rxnmapper` of PyPI ships them: a pickle, saved as safetensors here.

python -m benchmarks.rxnmapper DIRECTORY
"""

import subprocess
import sys
import zipfile
from pathlib import Path

import transformers

WHEEL = "rxnmapper==0.4.3"
INSIDE = "rxnmapper/models/transformers/albert_heads_8_uspto_all_1310k/"


def prepare(scratch: Path) -> Path:
    """Downloads the wheel below `scratch` and returns a directory with `config.json` and safetensors there.

    Raises:
        subprocess.CalledProcessError: pip cannot get the wheel.
    """
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(scratch), WHEEL]
    subprocess.run(pip, check=True)
    (wheel,) = scratch.glob("rxnmapper-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.startswith(INSIDE):
                archive.extract(name, scratch)
    config = transformers.AutoConfig.from_pretrained(scratch / INSIDE)
    model = getattr(transformers, config.architectures[0]).from_pretrained(scratch / INSIDE, config=config)
    directory = scratch / "rxnmapper_albert"
    model.save_pretrained(directory)
    return directory


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    print(prepare(target))
