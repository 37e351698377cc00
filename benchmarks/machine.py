"""The machine that numbers were measured on."""

import os
import platform
from pathlib import Path


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
