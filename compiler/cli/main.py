"""The command line: parse, run, print; every failure is one diagnostic and exit code 1."""

import json
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from hf2khc.cli.options import parse_options
from hf2khc.diagnostics import ConversionError, Diagnostic
from hf2khc.process import hide_other_backends

OK, FAILED, BROKEN_PIPE = 0, 1, 141
_ENVIRONMENT = {
    "KERAS_BACKEND": "torch",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code: 0, or 1 with a diagnostic on stderr."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        return _run(words, own_process=arguments is None)
    except BrokenPipeError:
        # The reader of stdout (`| head`) went away; keep Python from complaining when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except (Exception, KeyboardInterrupt) as error:
        _show(error, words)
        return FAILED


def _run(words: Sequence[str], own_process: bool) -> int:
    if words[:1] == ["verify"]:
        # rich comes in here; --help and --version need none of it.
        from hf2khc.cli import verify

        return verify.run(words[1:])
    if words[:1] == ["compare"]:
        from hf2khc.cli import compare

        return compare.run(words[1:])
    options = parse_options(words)
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if not options.traceback:
        warnings.filterwarnings("ignore")
    if own_process:
        hide_other_backends()
    # The pipeline imports torch and keras; --help, --version and a wrong command line must not wait for that.
    from hf2khc.cli import commands

    code = commands.run(options)
    sys.stdout.flush()
    return code


def _show(error: BaseException, words: Sequence[str]) -> None:
    """Prints an error on stderr, and on stdout as JSON where that was asked for."""
    diagnostics = _diagnostics(error)
    if "--json" in words:
        print(json.dumps({"errors": [asdict(diagnostic) for diagnostic in diagnostics]}, indent=2))
    if "--traceback" in words:
        traceback.print_exception(error)
    for diagnostic in diagnostics:
        print(diagnostic.render(), file=sys.stderr)


def _diagnostics(error: BaseException) -> tuple[Diagnostic, ...]:
    if isinstance(error, ConversionError):
        return error.diagnostics
    if isinstance(error, KeyboardInterrupt):
        return (Diagnostic("interrupted", "stopped; nothing was written", hint="run the command again"),)
    message = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    hint = "this is a fault of the compiler; run again with --traceback and report what it prints"
    return (Diagnostic("internal", message, location=_own_place(error), hint=hint),)


def _own_place(error: BaseException) -> str:
    """The innermost line of the compiler's own that the error passed through."""
    root = str(Path(__file__).resolve().parents[1])
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(root)]
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""


if __name__ == "__main__":
    sys.exit(main())
