"""The machine: which cores are used, what they can do at best, and how much memory is taken."""

from __future__ import annotations

import os
import platform
import resource
import sys
import time
from datetime import date
from pathlib import Path

from elmolib.precision import has_bfloat16

PRODUCT_DIM = 4096


def pin(n_cores: int, cores: list[int] | None = None) -> list[int]:
    """Keep this process, and all that it starts, on a few cores. Returns them."""
    if not hasattr(os, "sched_setaffinity"):
        return []
    cores = cores or sorted(os.sched_getaffinity(0))[:n_cores]
    os.sched_setaffinity(0, cores)
    return cores


def describe(cores: list[int]) -> dict:
    """What a reader must know to make sense of the figures."""
    from importlib.metadata import version

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
    """Bytes of memory that this process holds now."""
    resident = _field("/proc/self/status", "VmRSS")
    return int(resident.split()[0]) * 1024 if resident else peak_memory()


def peak_memory() -> int:
    """Bytes of memory that this process has held at most."""
    # `ru_maxrss` would be inherited from the process that started this one.
    peak = _field("/proc/self/status", "VmHWM")
    if peak:
        return int(peak.split()[0]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def forget_peak_memory() -> None:
    """Let `peak_memory` count from now on, where the system can."""
    switch = Path("/proc/self/clear_refs")
    if switch.exists():
        switch.write_text("5")


def family_memory() -> int:
    """Bytes that this process and its children hold now, pages in common counted for each."""
    me, total = str(os.getpid()), 0
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            facts = dict(line.split(":", 1) for line in status.read_text().splitlines())
        except OSError:  # it has ended meanwhile
            continue
        if me in (facts["Pid"].strip(), facts["PPid"].strip()):
            total += int(facts.get("VmRSS", "0 kB").split()[0]) * 1024
    return total


def product_rate(seconds: float) -> float:
    """Operations per second of one large float32 matrix product in TensorFlow."""
    import tensorflow as tf

    a = tf.random.normal((PRODUCT_DIM, PRODUCT_DIM))
    b = tf.random.normal((PRODUCT_DIM, PRODUCT_DIM))
    tf.matmul(a, b).numpy()
    n, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        tf.matmul(a, b)[0, 0].numpy()
        n += 1
    return 2 * PRODUCT_DIM**3 * n / (time.perf_counter() - started)


def _field(path: str, name: str) -> str | None:
    """The first `name : value` line of a file as Linux's /proc has them."""
    if not Path(path).exists():
        return None
    for line in Path(path).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return None
