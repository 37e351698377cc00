"""Converts every spec of the zoo and proves it; `make zoo` runs it.

    python -m benchmarks.zoo.run [--only llama,whisper] [--again | --fresh] [--workers 2] [--beyond]

A run goes on where one was interrupted. What is exact stays; anything else is converted again once the compiler's
source has changed; --again does what is exact again then, too, and --fresh everything. Results:
benchmarks/results/zoo.json and docs/coverage.md, or with --beyond, for the model types that the zoo has no spec of,
beyond.json and beyond.md (`make beyond`).
"""

import argparse
import importlib
import itertools
import json
import math
import os
import pkgutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

# Read when torch and keras are imported, below. The arrays are tiny: threads cost more than they save.
os.environ["KERAS_BACKEND"] = "torch"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.update(TF_ENABLE_ONEDNN_OPTS="0", TF_NUM_INTRAOP_THREADS="1", TF_NUM_INTEROP_THREADS="1")

import hf2khc
from benchmarks.machine import machine
from benchmarks.zoo import results
from benchmarks.zoo.corpus import Corpus, beyond, zoo
from hf2khc.process import Child, Starter, hide_other_backends, start_with

hide_other_backends()

from benchmarks.zoo.one import converted, ended  # noqa: E402
from benchmarks.zoo.pool import Ended, Limits, run_all  # noqa: E402
from benchmarks.zoo.specs import Spec, build, specs  # noqa: E402
from hf2khc.forking.fork import fork_module, ready_to_fork  # noqa: E402
from hf2khc.forking.servers import TORCH, Servers, backend_of  # noqa: E402

Work = Callable[[Spec, Sequence[str]], dict[str, Any]]

OTHERS = ("jax", "tensorflow")
SHARE = 3
DEFAULT_SECONDS, DEFAULT_GIGABYTES = 300, 8


def chosen(only: str, corpus: Corpus) -> list[Spec]:
    """The specs of a corpus to convert, bases before heads and families in turn; `bert` takes in the heads of bert.

    Raises:
        SystemExit: a name that no spec has.
    """
    every = list(corpus.specs.values())
    names = [name.strip() for name in only.split(",") if name.strip()]
    unknown = [name for name in names if not any(_named(spec, name) for spec in every)]
    if unknown:
        raise SystemExit(f"no spec is called {', '.join(unknown)}")
    return mixed([spec for spec in every if not names or any(_named(spec, name) for name in names)])


def _named(spec: Spec, name: str) -> bool:
    return spec.name == name or spec.name.startswith(f"{name}.")


def mixed(found: Sequence[Spec]) -> list[Spec]:
    """In an order in which the beginning already shows every family: each one's specs spread evenly."""
    places = {}
    for head in (False, True):
        for family in {spec.family for spec in found}:
            group = [spec for spec in found if spec.head == head and spec.family == family]
            places |= {spec.name: (head, (i + 0.5) / len(group)) for i, spec in enumerate(group)}
    return sorted(found, key=lambda spec: (*places[spec.name], spec.name))


def backends_of(spec: Spec, third: int | None) -> tuple[str, ...]:
    """Torch, and for one spec in three, if any, the others as well."""
    return ("torch", *OTHERS) if spec.place % SHARE == third else ("torch",)


def run(
    found: Sequence[Spec], workers: int, limits: Limits, third: int | None, lines: Path = results.LINES,
    minutes: float = math.inf, work: Work = converted,
) -> None:  # fmt: skip
    """Do the work on specs, convert and prove them, and add a line for each; none is begun after `minutes`."""
    compiler = results.source_hash()
    _import_everything()
    _warm_up(specs()["bert"])
    ready_to_fork()
    began, by_name = time.monotonic(), {spec.name: spec for spec in found}
    with Servers() as servers, start_with(_starter(servers)):
        for backend in OTHERS if third is not None else ():
            servers.start(backend)  # here: what a job starts is its own
        in_time = itertools.takewhile(lambda _: time.monotonic() - began < 60 * minutes, found)
        jobs = ((spec.name, _job(work, spec, backends_of(spec, third))) for spec in in_time)
        for number, done in enumerate(run_all(jobs, workers, limits), 1):
            record = {**_record(by_name[done.key], done, third), "compiler": compiler}
            results.append(record, lines)
            print(f"{number}/{len(found)} {time.monotonic() - began:.0f} s  {_line(record)}", flush=True)


def _import_everything() -> None:
    """Import all of hf2khc that runs on torch, so that forks find it done and source may change."""
    for found in pkgutil.walk_packages(hf2khc.__path__, "hf2khc."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)


def _warm_up(spec: Spec) -> None:
    """What torch and transformers prepare when they first trace anything is there in every fork."""
    from hf2khc.driver.compile import lower
    from hf2khc.driver.twin import compile_twin

    model = build(spec)
    compile_twin(model.config, type(model), lower, validated=False)


def _starter(servers: Servers) -> Starter:
    """Children on torch are forks of the job that starts them: its limits, and what it takes, are theirs as well."""

    def start(module: str, argument: str, environment: Mapping[str, str], log: Path) -> Child:
        starter = fork_module if backend_of(environment) == TORCH else servers
        return starter(module, argument, environment, log)

    return start


def _job(work: Work, spec: Spec, backends: Sequence[str]) -> Callable[[], None]:
    return lambda: print(f"\n{MARK}{json.dumps(work(spec, backends))}", flush=True)


# What a job prints before its record; the rest of its output is the log of a crash.
MARK = "zoo-record:"


def _record(spec: Spec, done: Ended, third: int | None) -> dict[str, Any]:
    found = next(_records(done.log), None)
    if found is not None and not done.reason:
        return found
    code = done.reason or "process-died"
    message = f"exit code {done.code}: {done.log[-300:]}" if not done.reason else f"ended after {done.seconds:.0f} s"
    return ended(spec, code, message, done.seconds, backends_of(spec, third))


def _records(log: str) -> Iterator[dict[str, Any]]:
    for line in log.splitlines():
        if line.startswith(MARK):
            yield json.loads(line.removeprefix(MARK))


def _line(record: dict[str, Any]) -> str:
    text = f"{record['name']}: {record['status']} ({record['seconds']} s)"
    found = record.get("diagnostic")
    return f"{text} [{found['code']}] {found['message'][:120]}" if found else text


def command_line(prog: str, description: str | None) -> argparse.ArgumentParser:
    """The options of every command over the zoo."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument(
        "--only", default="", metavar="NAMES", help="specs, separated by commas; a base takes its heads"
    )
    parser.add_argument(
        "--workers", type=int, default=len(os.sched_getaffinity(0)), metavar="N", help="models at a time"
    )
    parser.add_argument("--limit-seconds", type=float, default=DEFAULT_SECONDS, metavar="S", help="per model")
    parser.add_argument("--minutes", type=float, default=math.inf, metavar="M", help="begin no model after that")
    parser.add_argument("--limit-gigabytes", type=float, default=DEFAULT_GIGABYTES, metavar="GB", help="per model")
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--fresh", action="store_true", help="do everything again")
    group.add_argument("--again", action="store_true", help="do again what an older compiler did, right or not")
    group.add_argument("--resume", action="store_true", help="keep what is right (the default)")
    return parser


def work_through(
    found: Sequence[Spec], options: argparse.Namespace, third: int | None, corpus: Corpus, work: Work = converted
) -> list[results.Record]:
    """Do the work on what still needs it and write the result file; all the records there are.

    Args:
        found: the specs that were chosen of the corpus.
    """
    known = {} if options.fresh else results.known(corpus.lines, corpus.result)
    compiler = results.source_hash()
    waiting = [spec for spec in found if not results.still_good(known.get(spec.name), compiler, options.again)]
    limits = Limits(options.limit_seconds, int(options.limit_gigabytes * 2**30))
    run(waiting, options.workers, limits, third, corpus.lines, options.minutes, work)
    known = results.known(corpus.lines, corpus.result)
    records = [record for name, record in known.items() if name in corpus.specs]
    results.write_result(records, {"machine": machine(), "specs": len(corpus.specs)}, corpus.result)
    return records


def main() -> int:
    """The command line; 1 where some result is wrong: a package that computes something else."""
    parser = command_line("python -m benchmarks.zoo.run", __doc__)
    parser.add_argument(
        "--third", default="0", choices=("0", "1", "2", "none"), help="which third runs on every backend"
    )
    parser.add_argument("--beyond", action="store_true", help="the model types that the zoo has no spec of, on torch")
    options = parser.parse_args()
    corpus = beyond() if options.beyond else zoo()
    third = None if options.third == "none" or options.beyond else int(options.third)
    records = work_through(chosen(options.only, corpus), options, third, corpus)
    corpus.write_page()
    return int(any(record["status"] == "wrong" for record in records))


if __name__ == "__main__":
    sys.exit(main())
