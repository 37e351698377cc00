"""The results of the zoo: one line of JSON per finished spec while it runs, one file when it is done."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
LINES = ROOT / "build" / "zoo" / "lines.jsonl"
RESULT = ROOT / "benchmarks" / "results" / "zoo.json"
DECODERS = RESULT.with_name("decoders.json")
SOURCES = ("compiler", "passes", "grammar")
SUFFIXES = (".py", ".rules", ".lark")

Record = dict[str, Any]


def source_hash(root: Path = ROOT) -> str:
    """A hash of the compiler's own source: what it made of a model may change with it."""
    files = sorted(p for folder in SOURCES for p in (root / folder).rglob("*") if p.suffix in SUFFIXES)
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(root)}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def read_lines(path: Path = LINES) -> dict[str, Record]:
    """The last record of each spec; a line that a killed run left half written is passed over."""
    found: dict[str, Record] = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            found[record["name"]] = record
    return found


def known(lines: Path = LINES, result: Path = RESULT) -> dict[str, Record]:
    """The last record of each spec: of the run under way, or else of the result file."""
    return {record["name"]: record for record in read_result(result)[1]} | read_lines(lines)


def append(record: Record, path: Path = LINES) -> None:
    """Add one record."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record, ensure_ascii=False) + "\n")


def still_good(record: Record | None, compiler: str, again: bool = False) -> bool:
    """Whether a spec need not be tried: this very compiler has done it, or, unless `again`, all is right with it."""
    if record is None:
        return False
    return record["compiler"] == compiler or (not again and record["status"] in ("exact", "equal"))


def write_result(records: Iterable[Record], about: Mapping[str, Any], path: Path = RESULT) -> None:
    """Write the result file, a record per line so that two versions can be compared."""
    ordered = sorted(records, key=lambda record: record["name"])
    lines = ",\n".join(json.dumps(record, ensure_ascii=False, sort_keys=True) for record in ordered)
    text = f'{{"about": {json.dumps(about, ensure_ascii=False)},\n"specs": [\n{lines}\n]}}\n'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def read_result(path: Path = RESULT) -> tuple[dict[str, Any], list[Record]]:
    """What the result file is about, and its records."""
    if not path.exists():
        return {}, []
    data = json.loads(path.read_text(encoding="utf-8"))
    return data["about"], data["specs"]
