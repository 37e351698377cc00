"""The options of the command line: what they are called, what they mean, which go together."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

from hf2khc import __version__
from hf2khc.diagnostics import ConversionError, fail

BACKENDS = ("jax", "tensorflow", "torch")
LAST, ALL = "last", "all"

DESCRIPTION = """\
Compiles a Hugging Face transformers model (PyTorch) to a KerasHub package: Keras 3 source, the weights, the map that
carries each weight over, and the proof that both models compute the same function."""

EXAMPLES = """\
examples:
  hf2khc openai-community/gpt2 -o gpt2_keras        a model of the Hugging Face Hub, with its weights
  hf2khc ./my-checkpoint -o out --backend jax       a folder with config.json and safetensors, proved on JAX alone
  hf2khc llama --random-init --set num_hidden_layers=2 --set hidden_size=256 --set intermediate_size=512 -o out
                                                    a model type at a config of your own, with random weights
  hf2khc gpt2 --random-init --emit-source           print the Keras source, write nothing
  hf2khc gpt2 --random-init --emit-ir=all           print the program after every pass, for debugging
  hf2khc openai-community/gpt2 --prompt "Hello, I'm"   convert it, or take what is converted, and generate text
  hf2khc verify gpt2_keras                          a package against KerasHub's contract: LoRA, int8, saving, ...
  hf2khc llama --random-init --static --check       the template way instead, and whether it is right
  hf2khc compare gpt2 --random-init                 the static way and the compiler on one model, side by side
  hf2khc ./my-checkpoint --explain                  what was recognised, what nearly was, what was left over

Without -o the package is written to ./MODEL-keras. The exit code is 0 only if the proof holds; 1 means that nothing was
written, with the reason on stderr. In Python: hf2khc.convert("openai-community/gpt2", "out"), hf2khc.load("out").
"""


@dataclass(frozen=True)
class Options:
    """A parsed and consistent command line; `emit_ir` is None, the name of a stage, `last` or `all`."""

    model: str | None
    output: Path | None = None
    random_init: bool = False
    overrides: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    task: str | None = None
    trust_remote_code: bool = False
    weights: bool = True
    check: bool = True
    backends: tuple[str, ...] = ()
    overwrite: bool = False
    prompt: str | None = None
    emit_ir: str | None = None
    emit_source: bool = False
    explain: bool = False
    list_passes: bool = False
    static: bool = False
    as_json: bool = False
    quiet: bool = False
    traceback: bool = False

    @property
    def prints_only(self) -> bool:
        """Whether something is printed in place of a package."""
        return self.output is None and (self.emit_ir is not None or self.emit_source or self.explain)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are diagnostics like all others."""

    def error(self, message: str) -> NoReturn:
        more = " and shows examples" if self.epilog else ""
        raise fail("usage", message, hint=f"`{self.prog} --help` lists the options{more}")


def parse_options(arguments: Sequence[str]) -> Options:
    """Parses and checks a command line.

    Raises:
        ConversionError: `usage`, `bad-set`, `unknown-backend` or `backend-not-installed`.
    """
    # A bare --emit-ir must not take the MODEL behind it for its stage.
    words = [f"--emit-ir={LAST}" if word == "--emit-ir" else word for word in arguments]
    found = _parser().parse_args(words)
    _check_combinations(found)
    return Options(
        model=found.model,
        output=found.output,
        random_init=found.random_init,
        overrides=dict(parse_set(item) for item in found.set),
        seed=found.seed or 0,
        task=found.task,
        trust_remote_code=found.trust_remote_code,
        weights=not found.no_weights,
        check=not (found.no_weights or found.static) if found.check is None else found.check,
        backends=parse_backends(found.backend),
        overwrite=found.overwrite,
        prompt=found.prompt,
        emit_ir=found.emit_ir,
        emit_source=found.emit_source,
        explain=found.explain,
        list_passes=found.list_passes,
        static=found.static,
        as_json=found.json,
        quiet=found.quiet,
        traceback=found.traceback,
    )


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="hf2khc",
        usage="hf2khc MODEL [-o DIR] [options]",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "model",
        nargs="?",
        metavar="MODEL",
        help="a Hub id (openai-community/gpt2), a local folder with config.json and safetensors, or, with "
        "--random-init, a model type of transformers (llama)",
    )
    parser.add_argument("--version", action="version", version=f"hf2khc {__version__}")
    _add_source(parser.add_argument_group("the model"))
    _add_package(parser.add_argument_group("the package"))
    _add_inspection(parser.add_argument_group("looking inside (these print, and write a package only with -o)"))
    _add_messages(parser.add_argument_group("messages"))
    return parser


def _add_source(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--random-init", action="store_true", help="take only the config; the weights are random")
    group.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="change a config field, with --random-init; may be repeated; VALUE is JSON or else a string; a dotted "
        "FIELD reaches into a sub-config (text_config.hidden_size=64)",
    )
    group.add_argument("--seed", type=int, metavar="N", help="seed of the random weights (default: 0)")
    group.add_argument(
        "--task",
        metavar="TASK",
        help="choose the class by task, such as causal-lm, instead of the class that the config names",
    )
    group.add_argument(
        "--trust-remote-code",
        action="store_true",
        help="run Python code that comes with the model; do this only for a model you trust",
    )


def _add_package(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help="folder of the package (default: ./MODEL-keras)"
    )
    group.add_argument("--overwrite", action="store_true", help="replace a package that stands in DIR")
    group.add_argument(
        "--check",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="prove that the package computes what the model computes (default), or skip that",
    )
    group.add_argument(
        "--backend",
        metavar="NAMES",
        help="Keras backends to prove it on, separated by commas: jax, tensorflow, torch (default: those installed)",
    )
    group.add_argument(
        "--prompt", metavar="TEXT", help="generate text from the package; one that stands in DIR is not converted again"
    )
    group.add_argument("--no-weights", action="store_true", help="write no weights; there is then nothing to prove")
    group.add_argument(
        "--static",
        action="store_true",
        help="fast and limited, for comparison: KerasHub's own converter, or else a template filled from config.json; "
        "nothing is traced, and the package is unproven unless --check is given",
    )


def _add_inspection(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--emit-ir",
        nargs="?",
        metavar="=STAGE",
        help="print the program after a stage: --emit-ir alone means the last one, =aten the import, =all every stage, "
        "=NAME the pass of that name",
    )
    switches = {
        "--emit-source": "print the Keras source of the package",
        "--explain": "print what was recognised, the nearest misses, and what was left over",
        "--list-passes": "print the passes in the order they run; needs no MODEL",
    }
    for name, text in switches.items():
        group.add_argument(name, action="store_true", help=text)


def _add_messages(group: argparse._ArgumentGroup) -> None:
    switches = {
        "--json": "print the report, or the errors, as JSON on stdout",
        "--quiet": "print errors only",
        "--traceback": "show the Python traceback of an error",
    }
    for name, text in switches.items():
        group.add_argument(name, action="store_true", help=text)


def _check_combinations(found: argparse.Namespace) -> None:
    inspects = found.emit_ir is not None or found.emit_source or found.explain
    rules = [
        (found.model is None and not found.list_passes, "MODEL is missing", ""),
        (found.model is not None and found.list_passes, "--list-passes takes no MODEL", ""),
        (bool(found.set) and not found.random_init, "--set goes with --random-init only", "add --random-init"),
        (found.seed is not None and not found.random_init, "--seed goes with --random-init only", ""),
        (found.no_weights and bool(found.check), "--check needs weights", "leave out --no-weights"),
        (found.backend is not None and found.check is False, "--backend says where to check, --no-check not to", ""),
        (found.backend is not None and found.no_weights, "--backend says where to check; --no-weights cannot be", ""),
        (found.json and inspects, "--json prints the report and nothing beside it", "leave out --emit-* and --explain"),
        (found.static and found.no_weights, "--static fills a package with weights", "leave out --no-weights"),
        (found.static and inspects, "--static traces nothing that could be printed", "leave out --static"),
        (found.static and found.backend is not None and not found.check, "--backend goes with --check", "add --check"),
        (sum([found.emit_ir is not None, found.emit_source, found.explain]) > 1, "print one thing at a time",
         "choose one of --emit-ir, --emit-source, --explain"),
        (found.prompt is not None and (inspects or found.json), "--prompt prints the text and nothing beside it", ""),
        (found.prompt is not None and found.no_weights, "--prompt needs weights", "leave out --no-weights"),
        (found.overwrite and inspects and found.output is None, "--overwrite goes with a package", "add -o DIR"),
    ]  # fmt: skip
    for broken, message, hint in rules:
        if broken:
            raise fail("usage", message, hint=hint or "`hf2khc --help` lists the options and shows examples")


def parse_set(item: str) -> tuple[str, Any]:
    """Field and value of a `--set FIELD=VALUE`.

    Raises:
        ConversionError: `bad-set`.
    """
    name, equals, text = item.partition("=")
    if not equals or not all(part.isidentifier() for part in name.split(".")):
        raise _bad_set(item)
    try:
        return name, json.loads(text)
    except ValueError:
        return name, text


def _bad_set(item: str) -> ConversionError:
    hint = "write --set FIELD=VALUE, for example --set num_hidden_layers=2 or --set hidden_act=relu"
    return fail("bad-set", f"--set {item!r} is not FIELD=VALUE", hint=hint)


def parse_backends(names: str | None) -> tuple[str, ...]:
    """The backends to prove on: those named, separated by commas, or those installed.

    Raises:
        ConversionError: `unknown-backend` or `backend-not-installed`.
    """
    installed = tuple(name for name in BACKENDS if find_spec(name) is not None)
    if names is None:
        return installed
    wanted = tuple(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
    for name in wanted:
        if name not in BACKENDS:
            raise fail("unknown-backend", f"{name!r} is no Keras backend", hint=f"choose from {', '.join(BACKENDS)}")
        if name not in installed:
            hint = f"pip install {name}, or leave it out of --backend; installed here: {', '.join(installed)}"
            raise fail("backend-not-installed", f"the backend {name} is not installed", hint=hint)
    if not wanted:
        raise fail("unknown-backend", "--backend names no backend", hint=f"choose from {', '.join(BACKENDS)}")
    return wanted
