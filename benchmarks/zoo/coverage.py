"""`docs/coverage.md`, made from the results: what converts, what does not, and why."""

import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from benchmarks.zoo.results import DECODERS, RESULT, ROOT, Record, read_result

PAGE = ROOT / "docs" / "coverage.md"
STATUSES = ("exact", "wrong", "unsupported-op", "not-capturable", "error")
LONGEST_CELL = 160
_STATUSES = """
| status | meaning |
| --- | --- |
| exact | the proof holds: largest error at most four times transformers' own in float32, or 2e-6 |
| wrong | a pass or the package computes something else, and the conversion was refused |
| unsupported-op | the model uses an operation without a lowering |
| not-capturable | torch cannot trace the model, or nothing says what it takes |
| error | anything else that ended the conversion |"""
INTRODUCTION = f"""# Coverage

Tiny random-weight instances of the architectures of transformers (`benchmarks/zoo/specs.jsonl`), every parameter
perturbed, each converted through the public interface: every pass validated in float64, the package proved against
transformers on torch, and with `--third` one in three on JAX and TensorFlow as well. `make zoo` makes this page;
`python -m benchmarks.zoo.run --minutes M` makes it of what can be done in that time, with `--again` of what an older
compiler did, too. [beyond.md](beyond.md) is about the model types that it leaves out.
{_STATUSES}"""
BEYOND = f"""# Beyond the zoo

Model types of transformers that [the zoo](coverage.md) has no spec of (`benchmarks/zoo/beyond.jsonl`), at sizes such as
the zoo's: what converts of architectures that the compiler was not written with at hand; what failed among them has
been mended since where the change is general. Conversions, proof (on torch) and statuses are as for the zoo;
`make beyond` makes this page. Types are left out whose config does not make a small model, or whose class does not run
without a package that is not there (timm, natten, detectron2).
{_STATUSES}"""


def write_coverage(
    result: Path = RESULT, page: Path = PAGE, decoders: Path | None = DECODERS, introduction: str = INTRODUCTION
) -> None:
    """Write the page from the result files."""
    about, records = read_result(result)
    if records:
        generated = read_result(decoders)[1] if decoders else ()
        text = coverage(about, records, generated, introduction)
        page.write_text(text, encoding="utf-8")


def coverage(
    about: Mapping, records: Sequence[Record], decoders: Sequence[Record] = (), introduction: str = INTRODUCTION
) -> str:
    """The page as text."""
    parts = [
        introduction,
        _summary(about, records),
        "## By family\n\n" + _totals(records, lambda record: record["family"]),
        "## Bases and heads\n\n" + _totals(records, _kind),
        _counted("Operations without a lowering", "operation", _unsupported(records)),
        _counted("Reasons by code", "code", Counter(r["diagnostic"]["code"] for r in records if "diagnostic" in r)),
        _counted("Operations outside every idiom, in what is exact", "operation", _residue(records)),
        _contract(records),
        _decoders(decoders),
        _exact(records),
        _refused(records),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _kind(record: Record) -> str:
    """The Auto class of a head; the name of a model type may hold a point itself."""
    return record["name"].rpartition(".")[2] if record["head"] else "base model"


def _summary(about: Mapping, records: Sequence[Record]) -> str:
    exact = [record for record in records if record["status"] == "exact"]
    counts = Counter(record["status"] for record in records)
    lines = [f"{len(records)} of {about.get('specs', len(records))} specs converted: " + _enumerated(counts) + "."]
    if exact:
        core = sum(r["core_layer_share"] * r["parameters"] for r in exact) / sum(r["parameters"] for r in exact)
        timed = [r["compile_cpu_seconds"] for r in exact if "compile_cpu_seconds" in r]
        follow = sum(r["generalises"] for r in exact)
        everywhere = sum(len(r["backends"]) > 1 for r in exact)
        lines += [
            "", f"- Of the exact ones {follow} follow their config: proved at a second config, too.",
            f"- {everywhere} are proved on JAX and TensorFlow as well as on torch.",
            f"- {core:.1%} of their parameters lie in layers of Keras, the rest in weights of the packages' classes.",
        ]  # fmt: skip
        if timed:
            lines.append(
                f"- Compiling one takes {statistics.median(timed):.1f} s of one core in the median "
                f"({len(timed)} measured), without the weights and the proof."
            )
    return "\n".join(lines)


def _enumerated(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{counts[status]} {status}" for status in STATUSES if counts.get(status))


def _totals(records: Sequence[Record], kind: Callable[[Record], str]) -> str:
    groups: dict[str, Counter[str]] = {}
    for record in records:
        groups.setdefault(kind(record), Counter())[record["status"]] += 1
    ordered = sorted(groups.items(), key=lambda pair: (-sum(pair[1].values()), pair[0]))
    rows = [[name, *(str(counts[s] or "") for s in STATUSES), str(sum(counts.values()))] for name, counts in ordered]
    everything = Counter(record["status"] for record in records)
    rows.append(["**all**", *(str(everything[s] or "") for s in STATUSES), str(len(records))])
    return table(("", *STATUSES, "all"), rows)


def _unsupported(records: Sequence[Record]) -> Counter[str]:
    """How many specs are refused for each operation: the first word of the message that looks like one."""
    found: Counter[str] = Counter()
    for record in records:
        if record["status"] == "unsupported-op":
            message = record["diagnostic"]["message"]
            words = [word.strip(",:;()`") for word in message.split()]
            found[next((word for word in words if "." in word.strip(".")), message)] += 1
    return found


def _residue(records: Sequence[Record]) -> Counter[str]:
    return Counter(op for record in records for op in record.get("residue", ()))


def _counted(title: str, column: str, counts: Counter[str]) -> str:
    rows = [(f"`{name}`", str(count)) for name, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))]
    return f"## {title}\n\n" + table((column, "specs"), rows) if rows else ""


def _contract(records: Sequence[Record]) -> str:
    """What `hf2khc verify` finds."""
    verified = [record for record in records if "contract" in record]
    broken = sorted((record["name"], *fault) for record in verified for fault in record["contract"].items())
    if not verified:
        return ""
    kept = sum(not record["contract"] for record in verified)
    text = f"`hf2khc verify` on torch: {kept} of {len(verified)} packages keep all of it ([the checks](contract.md))."
    return f"## KerasHub's contract\n\n{text}" + (f"\n\n{table(('spec', 'check', 'fault'), broken)}" if broken else "")


def _decoders(records: Sequence[Record]) -> str:
    """What generates as transformers does, and why the rest does not, or does so without a cache."""
    if not records:
        return ""
    compared = [record for record in records if "compared" in record]
    equal = [record for record in compared if record["status"] == "equal"]
    cached = sum(not record["cacheless"] for record in equal)
    text = (
        f"Four prompts of other lengths in one batch, continued by up to 64 tokens on torch (`make decoders`): "
        f"{len(equal)} of {len(compared)} causal language models give the very tokens of `generate` of transformers, "
        f"{sum(record['compared'] for record in equal)} in all; {cached} of them with a cache."
    )
    rows = [
        (record["name"], record["status"], _why(record))
        for record in sorted(records, key=lambda record: record["name"])
        if record["status"] != "equal" or record["cacheless"]
    ]
    return f"## Generation\n\n{text}\n\n{table(('spec', 'tokens', 'why'), rows)}"


def _why(record: Record) -> str:
    if record["status"] == "not-causal":
        return "no CausalLM: its attention sees both sides, it has more outputs than logits, or another vocabulary"
    if record["status"] == "differs":
        return f"{record['equal']} of {record['compared']} equal"
    if "diagnostic" in record:
        return f"[{record['diagnostic']['code']}] {record['diagnostic']['message']}"
    return record.get("fixed") or f"no cache: {record['cacheless']}"


def _exact(records: Sequence[Record]) -> str:
    rows = [
        (
            r["name"], _scientific(r["error"]), "yes" if r["generalises"] else "no", str(sum(r["residue"].values())),
            ", ".join(name if n == 1 else f"{n} {name}" for name, n in r["idioms"].items()),
            " ".join(r["backends"]), f"{r['seconds']:.0f}",
        )
        for r in sorted(records, key=lambda r: r["name"]) if r["status"] == "exact"
    ]  # fmt: skip
    note = "Residue: operations outside every idiom. Seconds: the whole conversion with its proof, beside another one."
    columns = ("spec", "largest error", "follows its config", "residue", "idioms", "proved on", "seconds")
    return f"## Exact\n\n{note}\n\n{table(columns, rows)}" if rows else ""


def _refused(records: Sequence[Record]) -> str:
    rows = [
        (r["name"], r["status"], r["diagnostic"]["code"], r["diagnostic"]["message"], r["diagnostic"]["location"],
         f"{r['seconds']:.0f}")
        for r in sorted(records, key=lambda r: r["name"]) if r["status"] != "exact"
    ]  # fmt: skip
    columns = ("spec", "status", "code", "message", "location", "seconds")
    return "## Not exact\n\n" + table(columns, rows) if rows else ""


def _scientific(value: float | None) -> str:
    return "-" if value is None else f"{value:.1e}"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; long cells are cut."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    text = " ".join(text.split()).replace("|", "\\|")
    return text if len(text) <= LONGEST_CELL else text[: LONGEST_CELL - 4] + " ..."
