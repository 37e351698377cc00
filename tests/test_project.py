"""What holds for the tree as a whole: packaging, documentation, and no name of a model in the logic."""

import ast
import io
import re
import subprocess
import sys
import tokenize
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
ROOTS = {"compiler": "hf2khc", "passes": "hf2khc.passes", "grammar": "hf2khc.grammar"}
TARGETS = ("help", "demo", "test", "types", "lint", "tour", "bench")

# Model types that are also plain words of this compiler's subject, each with the sense it has here.
PLAIN_WORDS = {
    "align": "to align columns or tensors",
    "clip": "ops.clip, to bound values",
    "encoder_decoder": "the field is_encoder_decoder and its two halves",
}


# --- packaging ---------------------------------------------------------------------------------------------------


def sub_packages() -> set[str]:
    """Every folder with Python files under the three roots, as the package it must be."""
    found = set()
    for folder, package in ROOTS.items():
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.parent.relative_to(ROOT / folder).parts
            found.add(".".join([package, *parts]))
    return found


def test_every_sub_package_is_listed() -> None:
    listed = PROJECT["tool"]["setuptools"]["packages"]
    assert set(listed) == sub_packages()
    assert listed == sorted(listed)


def test_every_sub_package_has_an_init_file() -> None:
    for name in sub_packages():
        folder, package = next(
            item for item in reversed(ROOTS.items()) if name == item[1] or name.startswith(item[1] + ".")
        )
        rest = name[len(package) + 1 :].split(".") if name != package else []
        assert (ROOT.joinpath(folder, *rest) / "__init__.py").is_file(), name


def test_data_files_are_packaged() -> None:
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["*"]
    data = [p for folder in ROOTS for p in (ROOT / folder).rglob("*") if p.suffix in (".lark", ".rules")]
    assert data and all(any(path.match(pattern) for pattern in patterns) for path in data)
    assert all((path.parent / "__init__.py").is_file() for path in data)


def test_every_dependency_is_pinned() -> None:
    pinned = {
        line.split("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
    }
    project = PROJECT["project"]
    wanted = project["dependencies"] + [name for extra in project["optional-dependencies"].values() for name in extra]
    assert {re.match(r"[\w.-]+", name).group().lower() for name in wanted} <= pinned


@pytest.mark.parametrize("line", ["from passes import core", "import compiler.ir", "from grammar import x"])
def test_accidental_imports_are_banned(line: str) -> None:
    command = [sys.executable, "-m", "ruff", "check", "--select", "TID251", "--stdin-filename", "tests/probe.py", "-"]
    for text, code in ((f"{line}\n", 1), ("import hf2khc.passes\n", 0)):
        assert subprocess.run(command, input=text, text=True, cwd=ROOT, capture_output=True).returncode == code


# --- documentation -----------------------------------------------------------------------------------------------


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def test_makefile_has_the_targets_and_help_lists_them() -> None:
    assert set(TARGETS) <= make_targets()
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert set(TARGETS) <= {line.split()[0] for line in shown.splitlines()}


@pytest.mark.parametrize("document", ["README.md", "docs/cli.md", "docs/architecture.md", "CHANGELOG.md"])
def test_documents_name_only_targets_and_files_that_exist(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    assert (
        set(re.findall(r"\bmake ([a-z]+)\b", "\n".join(re.findall(r"`[^`]+`|^ {4}.*$", text, re.M)))) <= make_targets()
    )
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (ROOT / document).parent.joinpath(link).exists(), link


# --- no name of a model decides anything ---------------------------------------------------------------------------


def model_types() -> frozenset[str]:
    """The model types of transformers as words: lower case, parts joined by underscores."""
    return frozenset(words(name) for name in CONFIG_MAPPING_NAMES) - set(PLAIN_WORDS)


def words(text: str) -> str:
    """An identifier or string as lower-case words joined by underscores: `LlamaMLP` is `llama_mlp`."""
    text = re.sub(r"([a-z0-9])([A-Z])|([A-Z]+)(?=[A-Z][a-z])", lambda m: f"{m[1]}_{m[2]}" if m[1] else f"{m[3]}_", text)
    return re.sub(r"[^0-9a-zA-Z]+", "_", text).strip("_").lower()


def is_prose(text: str) -> bool:
    """Whether a string is a sentence for people: it has spaces. Logic compares single words."""
    return " " in text.strip() or "\n" in text.strip()


def logic_of_python(source: str) -> Iterator[str]:
    """Identifiers and single-word strings of Python code; comments, docstrings and sentences are left out.

    A sentence that code takes apart again (`"a b".split()`) is logic.
    """
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NAME:
            yield token.string
    tree = ast.parse(source)
    taken_apart = {
        id(node.func.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr.startswith("split")
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
            text = node.value if isinstance(node.value, str) else node.value.decode("latin-1")
            if id(node) in taken_apart or not is_prose(text):
                yield text


def logic_of_rules(source: str) -> Iterator[str]:
    """The text of a `.rules` file without its comments."""
    for line in source.splitlines():
        yield from re.findall(r"[\w.]+", line.split("#")[0])


def named_models(pieces: Iterator[str]) -> set[tuple[str, str]]:
    """(piece, model type) for every model type that occurs as a word, or words, in a piece."""
    found = set()
    types = model_types()
    for piece in set(pieces):
        parts = words(piece).split("_")
        spans = {"_".join(parts[i:j]) for i in range(len(parts)) for j in range(i + 1, len(parts) + 1)}
        found |= {(piece, name) for name in spans & types}
    return found


def logic_files() -> list[Path]:
    return sorted(
        p for folder in ("compiler", "passes") for p in (ROOT / folder).rglob("*") if p.suffix in (".py", ".rules")
    )


def test_no_model_type_occurs_in_the_logic() -> None:
    found = {}
    for path in logic_files():
        text = path.read_text(encoding="utf-8")
        named = named_models(logic_of_python(text) if path.suffix == ".py" else logic_of_rules(text))
        if named:
            found[str(path.relative_to(ROOT))] = sorted(named)
    assert not found


@pytest.mark.parametrize(
    "line",
    [
        'if config.model_type == "llama": pass',
        "class LlamaAttentionRule: pass",
        'if type(model).__name__.startswith("GPT2"): pass',
        'if name in "llama mistral".split(): pass',
        're.match(r"gpt2|opt", name)',
        'f"{x}bert"',
        "def fix_t5_bias(): pass",
        'table = {"gpt-neox": 1}',
    ],
)
def test_a_model_in_the_logic_is_found(line: str) -> None:
    assert named_models(logic_of_python(line))


@pytest.mark.parametrize(
    "text",
    ['"""As in Llama."""', "x = 1  # llama", 'hint = "a model type such as llama"', "the_same_sample = clip(x)"],
)
def test_prose_and_plain_words_are_not_logic(text: str) -> None:
    assert not named_models(logic_of_python(text))


def test_rules_are_searched_without_their_comments() -> None:
    assert named_models(logic_of_rules("rule llama_rope(x) {"))
    assert not named_models(logic_of_rules("rule rope(x) {  # as in llama"))
