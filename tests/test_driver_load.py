"""`hf2khc.load`: a package from disk, or an error that says what is wrong with it."""

from pathlib import Path

import pytest

import hf2khc
from hf2khc.diagnostics import ConversionError


def refused(directory: Path) -> tuple[str, str]:
    with pytest.raises(ConversionError) as error:
        hf2khc.load(directory)
    return error.value.diagnostics[0].code, error.value.diagnostics[0].message


def test_folder_without_a_package(tmp_path: Path) -> None:
    assert refused(tmp_path)[0] == "package"
    assert refused(tmp_path / "nowhere")[0] == "package"


def test_package_without_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "preset").mkdir()
    (tmp_path / "preset" / "config.json").write_text("{}")
    assert refused(tmp_path)[0] == "no-weights"


def test_package_with_two_folders(tmp_path: Path) -> None:
    for name in ("preset", "one", "two"):
        (tmp_path / name).mkdir()
    (tmp_path / "preset" / "config.json").write_text("{}")
    (tmp_path / "preset" / "model.weights.h5").touch()
    for name in ("one", "two"):
        (tmp_path / name / "__init__.py").touch()
    code, message = refused(tmp_path)
    assert code == "package" and "one, two" in message
