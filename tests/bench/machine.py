"""The machine and this process: cores, memory, versions."""

import contextlib
import os
import platform
import resource
import sys
from importlib import metadata
from pathlib import Path

PACKAGES = ("msgspec", "numpy", "websockets", "zstandard")


def cores() -> tuple[int, int]:
    """A core for what serves and one for what is measured; -1 where that cannot be chosen."""
    if not hasattr(os, "sched_getaffinity"):
        return -1, -1
    allowed = sorted(os.sched_getaffinity(0))
    return (allowed[0], allowed[-1]) if len(allowed) > 1 else (-1, -1)


def pin(core: int) -> None:
    """Keep this process and its threads on one core; -1 leaves it where it is."""
    if core >= 0:
        os.sched_setaffinity(0, {core})


def reset_peak() -> None:
    """Measure the peak anew from here on, where the system can (Linux, proc(5))."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_mb() -> float:
    """The most memory this process has occupied so far, or since `reset_peak`."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text(encoding="ascii").splitlines()
        return next(int(x.split()[1]) for x in lines if x.startswith("VmHWM")) * 1024 / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def resident_mb() -> float:
    """The memory this process occupies now; the peak where the system does not say."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return peak_mb()
    return int(statm.read_text().split()[1]) * resource.getpagesize() / 1e6


def describe() -> str:
    """Processor, cores, system, Python and the versions of what does the work."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        model = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), model)
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    return (
        f"{model}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {platform.system()} "
        f"{platform.release()}; Python {platform.python_version()}; {versions}"
    )
