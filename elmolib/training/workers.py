"""Training in several processes, on one machine or on several.

Each worker computes the gradients of its rows of the batch; TensorFlow's
`MultiWorkerMirroredStrategy` adds them up, and every worker then updates its copy of the weights.
"""

import faulthandler
import hashlib
import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf

from elmolib.backend import one_thread_per_direction
from elmolib.errors import ParameterError, TrainingError, WorkersError, reason
from elmolib.model.bilm import BiLM

Result = TypeVar("Result")

# What TensorFlow raises if another process ends, is frozen, or cannot be reached.
_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)
_AGAIN = "start all workers again, and the run goes on from its last checkpoint"


class Workers:
    """All processes that train a model together, seen from one of them; `join` makes it.

    Every worker must call the methods `gather`, `from_chief`, `any`, `require_equal` and
    `chief_first`, and compiled functions that call `sum`, in the same order.

    Attributes:
        addresses: the address `host:port` of each worker.
        index: the number of this worker. Worker 0, the chief, writes all files.
    """

    def __init__(
        self,
        addresses: Sequence[str] = ("this process",),
        index: int = 0,
        strategy: tf.distribute.Strategy | None = None,
    ) -> None:
        self.addresses, self.index, self._strategy = addresses, index, strategy
        self.is_chief, self.is_alone = index == 0, strategy is None
        vector = tf.TensorSpec((None,), tf.float32)
        self._sum = self.compile(lambda values: self.sum([values])[0], [vector])
        self._gather = self.compile(self._join_rows)

    def rows(self, batch_size: int) -> slice:
        """Return the rows of a batch that this worker computes."""
        count = len(self.addresses)
        if batch_size < count:
            problem = f"batch_size is {batch_size}, but there are {count} workers"
            raise ParameterError(f"{problem}: start fewer workers, or raise batch_size.")
        return slice(self.index * batch_size // count, (self.index + 1) * batch_size // count)

    def scope(self) -> Any:
        """Return the context in which the variables of the model and optimizer are created."""
        return nullcontext() if self._strategy is None else self._strategy.scope()

    def compile(self, function: Callable, signature: Sequence[Any] | None = None) -> Callable:
        """Compile a function of tensors that may call `sum`."""
        strategy = self._strategy
        if strategy is None:
            return tf.function(function, input_signature=signature)

        def run(*tensors: Any) -> Any:
            return strategy.run(function, tensors)

        return tf.function(run, input_signature=signature, autograph=False)

    def sum(self, tensors: list[tf.Tensor]) -> list[tf.Tensor]:
        """Add up the tensors of all workers. Only compiled functions may call this."""
        if self.is_alone:
            return tensors
        # An argument of the function has no device, so `all_reduce` would refuse it.
        tensors = [tf.identity(tensor) for tensor in tensors]
        context = tf.distribute.get_replica_context()
        return context.all_reduce(tf.distribute.ReduceOp.SUM, tensors)

    def gather(self, values: Any) -> Any:
        """Join the workers' arrays along axis -2, the rows of the LSTM states."""
        return values if self.is_alone else self._gather(values)

    def _join_rows(self, values: tf.Tensor) -> tf.Tensor:
        context = tf.distribute.get_replica_context()
        return context.all_gather(tf.identity(values), axis=values.shape.rank - 2)

    def from_chief(self, values: np.ndarray) -> np.ndarray:
        """Return the chief's values of a float32 array, whose shape is the same in every worker."""
        values = values if self.is_chief else np.zeros_like(values)
        return np.asarray(self._sum(values.ravel())).reshape(values.shape)

    def any(self, is_so: bool) -> bool:
        """Wait for all workers, and return whether something is so in at least one of them."""
        return is_so if self.is_alone else bool(self._sum(np.float32([is_so]))[0] > 0)

    def chief_first(self, work: Callable[[], Result]) -> Result:
        """Do the same work in all workers, but first in the chief."""
        with self.noticing_losses():
            if not self.is_chief:
                self.any(False)
            result = work()
            if self.is_chief:
                self.any(False)
            return result

    def require_equal(self, values: Mapping[str, Any]) -> None:
        """Raise a TrainingError if another worker has other values, which JSON can represent."""
        names = sorted(values)
        table = np.array([[_digest([name, values[name]]) for name in names]])  # (1, values)
        found = np.asarray(self.gather(table))  # (workers, values)
        for worker, theirs in enumerate(found):
            if changed := [names[i] for i in np.flatnonzero(theirs != found[0])]:
                problem = f"{self.names(0)} and {self.names(worker)} differ"
                advice = "give all workers the same parameters and text"
                raise TrainingError(f"{', '.join(changed)}: {problem}, so {advice}.")

    @contextmanager
    def noticing_losses(self) -> Iterator[None]:
        """If another worker ends while the block runs, raise a WorkersError that names it."""
        try:
            yield
        except _LOST as error:
            if self.is_alone:
                raise
            others = [i for i in range(len(self.addresses)) if i != self.index]
            gone = [i for i in others if not answers(self.addresses[i])]
            gone = gone or [i for i in others if re.search(rf"task:{i}\b", str(error))] or others
            problem = f"Training lost {self.names(*gone)}, which ended or cannot be reached"
            raise WorkersError(f"{problem}: {_AGAIN}.") from None

    def names(self, *indices: int) -> str:
        return " and ".join(f"worker {i} ({self.addresses[i]})" for i in indices)


ALONE = Workers()


def join(minutes: float = 5.0) -> Workers:
    """Meet the other workers that the environment variable TF_CONFIG lists, if there are any.

    Call this before TensorFlow runs anything. Each worker waits at most `minutes` for the others.

    Raises:
        ParameterError: TF_CONFIG is not usable, or this process sees several GPUs.
        WorkersError: a worker did not start in time, or this worker cannot use its address.
    """
    addresses, index = _cluster(os.environ.get("TF_CONFIG") or "{}")
    if len(addresses) < 2:
        return ALONE
    _meet(Workers(addresses, index), minutes)
    one_thread_per_direction()
    before = signal.getsignal(signal.SIGTERM)
    # The workers are there. If one ends now, TensorFlow waits for an hour, without releasing the
    # GIL, so only a thread in C can end the process.
    faulthandler.dump_traceback_later(60.0 * minutes, exit=True, file=2)
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    except (tf.errors.OpError, RuntimeError) as error:
        problem = f"TensorFlow cannot connect the workers ({error})"
        raise WorkersError(f"{problem}: call join before anything else runs TensorFlow.") from None
    finally:
        faulthandler.cancel_dump_traceback_later()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)  # TensorFlow would ignore it
    if strategy.num_replicas_in_sync != len(addresses):
        problem = f"Worker {index} sees several GPUs"
        advice = "start one worker for each GPU, and name it in CUDA_VISIBLE_DEVICES"
        raise ParameterError(f"{problem}: {advice}.")
    return Workers(addresses, index, strategy)


def _meet(workers: Workers, minutes: float) -> None:
    """Wait until all workers have started. TensorFlow itself would not say which one is missing."""
    own, ends_at = workers.addresses[workers.index], time.monotonic() + 60.0 * minutes
    try:
        listener = socket.create_server(("", int(own.rpartition(":")[2])))
    except (OSError, ValueError) as error:
        problem = f"worker {workers.index} cannot use its address {own} ({reason(error)})"
        raise WorkersError(f"TF_CONFIG: {problem}: give a free port of this machine.") from None
    with listener:
        missing = [i for i in range(len(workers.addresses)) if i != workers.index]
        while missing := [i for i in missing if not answers(workers.addresses[i])]:
            if time.monotonic() > ends_at:
                names = workers.names(*missing)
                raise WorkersError(f"After {minutes:g} minutes, {names} did not start: {_AGAIN}.")
            time.sleep(0.2)


@contextmanager
def stop_on_interrupt(bilm: BiLM, also_terminate: bool = False) -> Iterator[None]:
    """At the first interrupt, end training after the current step; at the second, immediately.

    With `also_terminate`, SIGTERM ends training after the current step, however often it comes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM) if also_terminate else (signal.SIGINT,)
    before: dict[int, Any] = {number: signal.getsignal(number) for number in numbers}

    def stop(number: int, _: object) -> None:
        bilm.stop_training = True
        if number == signal.SIGINT:
            signal.signal(number, before[number])

    for number in numbers:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _cluster(text: str) -> tuple[list[str], int]:
    """Return the addresses in a value of TF_CONFIG, and the index of this process among them."""
    try:
        config = json.loads(text)
        jobs = {job: config.get("cluster", {}).get(job, []) for job in ("chief", "worker")}
        places = [(job, i) for job in jobs for i in range(len(jobs[job]))]
        if len(places) < 2:
            return [], 0
        task = config["task"]["type"], int(config["task"]["index"])
        return [str(jobs[job][i]) for job, i in places], places.index(task)
    except (ValueError, KeyError, TypeError, AttributeError):
        wanted = (
            "list the addresses of all workers, and a task of type worker or chief with its index"
        )
        raise ParameterError(f"TF_CONFIG is {text[:200]!r}: it must {wanted}.") from None


def answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with suppress(OSError, ValueError), socket.create_connection((host, int(port)), 2.0):
        return True
    return False


def _digest(value: Any) -> np.int64:
    text = json.dumps(value, sort_keys=True).encode()
    return np.frombuffer(hashlib.sha256(text).digest()[:8], np.int64)[0]
