"""Choose the processor's cores, and measure their speed and the memory in use."""

from __future__ import annotations

import os
import platform
import resource
import sys
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path

from elmolib.backend import has_bfloat16


def pin(n_cores: int, cores: list[int] | None = None) -> list[int]:
    """Pin this process and its child processes to a few cores; return the cores' numbers."""
    if not hasattr(os, "sched_setaffinity"):
        return []
    cores = cores or sorted(os.sched_getaffinity(0))[:n_cores]
    os.sched_setaffinity(0, cores)
    return cores


def describe(cores: list[int]) -> dict:
    """Return hardware, versions, date and load of the machine, to report with the figures."""
    return {
        "processor": _field("/proc/cpuinfo", "model name") or platform.processor(),
        "bfloat16": has_bfloat16(),
        "cores_used": len(cores) or None,
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "tensorflow": version("tensorflow"),
        "keras": version("keras"),
        "day": date.today().isoformat(),
        "load_at_start": round(os.getloadavg()[0], 2),
    }


def memory() -> int:
    """Return the bytes of memory that this process uses."""
    resident = _field("/proc/self/status", "VmRSS")
    return int(resident.split()[0]) * 1024 if resident else peak_memory()


def peak_memory(process: Path = Path("/proc/self")) -> int:
    """Return the most bytes of memory that this or another process has used at once."""
    # On Linux, `ru_maxrss` would be wrong, because a process inherits it from its parent.
    peak = _field(str(process / "status"), "VmHWM")
    if peak:
        return int(peak.split()[0]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def forget_peak_memory() -> None:
    """Reset the peak that `peak_memory` returns; this works on Linux only."""
    switch = Path("/proc/self/clear_refs")
    if switch.exists():
        switch.write_text("5")


def family_memory() -> int:
    """Return the bytes of this process and its children; shared memory counts for each process."""
    me, total = str(os.getpid()), 0
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        except OSError:  # The process has ended.
            continue
        if me in (fields["Pid"].strip(), fields["PPid"].strip()):
            total += int(fields.get("VmRSS", "0 kB").split()[0]) * 1024
    return total


def matmul_rate(seconds: float, dim: int = 4096) -> float:
    """Return TensorFlow's operations per second in products of float32 matrices (dim, dim)."""
    import tensorflow as tf

    a = tf.random.normal((dim, dim))
    b = tf.random.normal((dim, dim))
    tf.matmul(a, b).numpy()
    n, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        tf.matmul(a, b)[0, 0].numpy()
        n += 1
    return 2 * dim**3 * n / (time.perf_counter() - started)


def _field(path: str, name: str) -> str | None:
    """Return the value of the first line `name : value` of a file in Linux's /proc."""
    if not Path(path).exists():
        return None
    for line in Path(path).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return None
