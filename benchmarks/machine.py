"""The machine that numbers were measured on."""

import contextlib
import os
import platform
from pathlib import Path

from hf2khc.driver.memory import tree


def machine() -> dict[str, str | int]:
    """Processor, number of cores this process may use, and memory in GiB."""
    processor = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.is_file():
        names = [line.split(":", 1)[1].strip() for line in information.read_text().splitlines() if "model name" in line]
        processor = names[0] if names else processor
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {"processor": processor, "cores": len(os.sched_getaffinity(0)), "memory_gib": round(pages / 2**30)}


def busy() -> float:
    """Processes that want a core, of all on this machine, as a mean over the last minute: others slow a measurement."""
    return round(os.getloadavg()[0], 1)


def cpu_seconds() -> float:
    """What this process and those below it took of all cores; 0 where there is no /proc."""
    ticks = 0
    for process in tree(Path("/proc/self")):
        with contextlib.suppress(OSError):
            # After the name, which ends with the last parenthesis: utime, stime and those of ended children.
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            ticks += sum(int(field) for field in fields[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")
