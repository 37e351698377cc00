"""What the command line does: convert, or print what a conversion sees."""

import difflib
import inspect
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from hf2khc.cli import output
from hf2khc.cli.options import ALL, LAST, Options
from hf2khc.cli.progress import StageProgress
from hf2khc.diagnostics import fail
from hf2khc.driver.convert import Conversion, compile_only, convert
from hf2khc.driver.package import check_destination
from hf2khc.driver.prompt import complete, is_package
from hf2khc.driver.report import to_json

GENERALISED = "generalise"  # the last stage, in which sizes become expressions of the config; it is no pass


def run(options: Options) -> int:
    """Does what the options ask for; returns the exit code.

    Raises:
        ConversionError: whatever keeps it from being done.
    """
    if options.list_passes:
        return _list_passes(options)
    if options.prints_only and not options.emit_source:
        return _print_program(options)
    directory = None if options.prints_only else options.output or default_output(options.model or "")
    if options.prompt is not None and directory is not None and is_package(directory) and not options.overwrite:
        return _print_completion(directory, options.prompt)
    if directory is not None:
        check_destination(directory.absolute(), options.overwrite)
    if options.static:
        return _static(options, directory)
    with _progress(options) as progress:
        conversion = convert(
            options.model or "", directory, random_init=options.random_init, overrides=options.overrides,
            seed=options.seed, task=options.task, trust_remote_code=options.trust_remote_code,
            weights=options.weights and not options.prints_only, check=options.check and not options.prints_only,
            backends=options.backends, overwrite=options.overwrite, on_event=progress,
        )  # fmt: skip
    _print_conversion(options, conversion)
    if options.prompt is not None and directory is not None:
        return _print_completion(directory, options.prompt)
    return 0


def _print_completion(directory: Path, prompt: str) -> int:
    print(complete(directory, prompt))
    return 0


def _static(options: Options, directory: Path | None) -> int:
    from hf2khc.static.convert import convert_static

    with _progress(options) as progress:
        made = convert_static(
            options.model or "", directory, random_init=options.random_init, overrides=options.overrides,
            seed=options.seed, task=options.task, trust_remote_code=options.trust_remote_code, check=options.check,
            backends=options.backends, overwrite=options.overwrite, on_event=progress,
        )  # fmt: skip
    if options.as_json:
        print(json.dumps(to_json(made.report), indent=2, ensure_ascii=False))
    elif not options.quiet:
        output.report(made.report, made.directory)
    return 0


def default_output(model: str) -> Path:
    """The folder of the package where none is named: MODEL's last part, in the current directory."""
    name = re.sub(r"[^\w.-]+", "-", Path(model).absolute().name) or "model"
    return Path(f"{name}-keras")


@contextmanager
def _progress(options: Options) -> Iterator[Any]:
    with nullcontext() if options.quiet else StageProgress() as progress:
        yield progress


def _print_program(options: Options) -> int:
    _check_stage(options.emit_ir)
    with _progress(options) as progress:
        compiled = compile_only(
            options.model or "", random_init=options.random_init, overrides=options.overrides, task=options.task,
            trust_remote_code=options.trust_remote_code, on_event=progress,
        )  # fmt: skip
    _print_inside(options, compiled)
    return 0


def _print_conversion(options: Options, conversion: Conversion) -> None:
    if options.as_json:
        print(json.dumps(to_json(conversion.report), indent=2, ensure_ascii=False))
        return
    _print_inside(options, conversion.compiled)
    if options.emit_source:
        sys.stdout.write(output.sources(conversion.sources))
    if not options.quiet and not options.prints_only:
        output.summary(conversion)


def _print_inside(options: Options, compiled: Any) -> None:
    if options.emit_ir is not None:
        sys.stdout.write(_stage_text(options.emit_ir, compiled))
    if options.explain:
        sys.stdout.write(output.explanation(compiled))


def _check_stage(stage: str | None) -> None:
    """Refuses an unknown stage before the model is captured."""
    from hf2khc.passes.pipeline import stage_names

    known = [*stage_names(), GENERALISED, ALL, LAST]
    if stage is not None and stage not in known:
        near = difflib.get_close_matches(stage, known, n=3) or known
        hint = f"choose from {', '.join(near)}; `hf2khc --list-passes` shows them all"
        raise fail("unknown-stage", f"there is no stage {stage!r}", location=f"--emit-ir={stage}", hint=hint)


def _stage_text(stage: str, compiled: Any) -> str:
    from hf2khc.ir.text import format_program

    if stage == ALL:
        return "".join(f"# {name}\n{format_program(program)}\n" for name, program in compiled.stages.items())
    return format_program(compiled.program if stage == LAST else compiled.stages[stage])


def _list_passes(options: Options) -> int:
    from hf2khc.passes.pipeline import every_pass

    rows = [(level, step.__name__, (inspect.getdoc(step) or "").split("\n")[0]) for level, step in every_pass()]
    if options.as_json:
        print(json.dumps([dict(zip(("level", "name", "description"), row, strict=True)) for row in rows], indent=2))
    else:
        print(output.columns(rows))
    return 0
