"""Start the processes of `elmolib train --workers`. This module does not load TensorFlow."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from elmolib.backend import silence_tensorflow
from elmolib.errors import ParameterError, WorkersError
from elmolib.parallel import cpu_count

GRACE_SECONDS = 30.0  # time for the other workers to end after one has failed
_RUN = "from elmolib.cli import main; main(prog_name='elmolib')"


def tf_configs(workers: str, index: int | None) -> list[str]:
    """Return a value of TF_CONFIG for each process to start on this machine.

    `workers` is a number of local processes, or the addresses `host:port` of all workers, separated
    by commas; `index` is the number of this worker among them, counted from 0.

    Raises:
        ParameterError: `workers` or `index` has no meaning.
    """
    if workers.isdecimal() and int(workers) > 0:
        if index is not None:
            raise ParameterError("--index is for addresses: leave it out with a number of workers.")
        addresses, places = _free_addresses(int(workers)), range(int(workers))
    else:
        addresses = workers.split(",")
        parts = [address.rpartition(":") for address in addresses]
        if not all(host and port.isdecimal() for host, _, port in parts):
            wanted = "a number of processes, or addresses as in host1:4000,host2:4000"
            raise ParameterError(f"--workers is {workers!r}: give {wanted}.")
        if index is None or not 0 <= index < len(addresses):
            wanted = f"from 0 to {len(addresses) - 1}, the number of this worker in --workers"
            raise ParameterError(f"--index is {index}: give a number {wanted}.")
        places = range(index, index + 1)
    cluster = {"cluster": {"worker": addresses}}
    return [json.dumps(cluster | {"task": {"type": "worker", "index": i}}) for i in places]


def _free_addresses(n: int) -> list[str]:
    with ExitStack() as opened:
        sockets = [opened.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(n)]
        return [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]


def join_cluster(minutes: float) -> list[Any]:
    """Return the `Workers` in TF_CONFIG in a list, or an empty list without loading TensorFlow."""
    if not os.environ.get("TF_CONFIG"):
        return []
    # TensorFlow must meet the other workers before it runs anything.
    with silence_tensorflow():
        from elmolib.training.workers import join
    return [join(minutes)]


def launch(given: Any) -> int:
    """Run `elmolib train` once for each local worker, and return the exit code of all.

    `given` has the options of the command by name. Without `workers`, one process runs with the
    TF_CONFIG of this process. If a worker is lost, all are started again, at most `restarts` times.
    SIGINT and SIGTERM are passed on as SIGTERM; the second one kills the workers.
    """
    given.run()  # reports missing parameters
    pairs = [part for key, value in given.pairs for part in ("-p", key, value)]
    options = ["-f", given.file] * bool(given.file) + ["--json"] * given.as_json
    arguments = ["train", *options, *pairs, "--wait", str(given.wait)]
    signals: list[int] = []
    before = {s: signal.signal(s, lambda s, _: signals.append(s)) for s in _ENDING}
    try:
        for _ in range(given.restarts + 1):
            configs = [os.environ.get("TF_CONFIG", "")]
            if given.workers:
                configs = tf_configs(given.workers, given.index)
            code = _run_all(arguments, configs, signals)
            if code != WorkersError.exit_code or signals:
                break
        return code
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


_ENDING = (signal.SIGINT, signal.SIGTERM)


def _run_all(arguments: Sequence[str], configs: Sequence[str], signals: list[int]) -> int:
    """Run one process for each value of TF_CONFIG; if one fails, the others end after a while."""
    running = [
        subprocess.Popen(
            [sys.executable, "-c", _RUN, *arguments],
            env=os.environ | _share_of_machine(i, len(configs)) | {"TF_CONFIG": config},
            stdout=None if i == 0 else subprocess.DEVNULL,
        )
        for i, config in enumerate(configs)
    ]
    n_passed, ends_at = len(signals), float("inf")
    try:
        while None in (codes := [process.poll() for process in running]):
            if len(signals) > n_passed:
                n_passed += 1
                for process in running:
                    (process.terminate if n_passed == 1 else process.kill)()
            if any(codes) and ends_at == float("inf"):
                ends_at = time.monotonic() + GRACE_SECONDS
            if time.monotonic() > ends_at:
                break
            time.sleep(0.1)
    finally:
        for process in running:
            process.kill()
            process.wait()
    failed = [code for code in codes if code]
    # The exit code of a worker's own error says more than that of the workers that lost it.
    own = [code for code in failed if code > 0 and code != WorkersError.exit_code]
    return own[0] if own else WorkersError.exit_code if failed else 0


def _share_of_machine(place: int, n: int) -> dict[str, str]:
    """Return environment variables that give each of `n` processes its threads and its GPU."""
    if n == 1:
        return {}
    threads = str(max(1, cpu_count() // n))
    names = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
    shares = {name: os.environ.get(name, threads) for name in names}
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(n)))).split(",")
    return shares | {"CUDA_VISIBLE_DEVICES": gpus[place] if place < len(gpus) else ""}
