"""Suggest a parameter file for a text, and estimate the time of an epoch on this machine."""

import time
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np

from elmolib.backend import silence_tensorflow
from elmolib.corpus.prepared import PreparedCorpus
from elmolib.settings.parameters import Parameters

# The number of training words up to which a parameter file is advised.
LARGEST_TEXT = {"tiny": 1e6, "ro-tiny": 1e7, "en-tiny": 1e8, "small": 5e8, "full": np.inf}


class Advice(NamedTuple):
    """What `advise` found."""

    n_words: int  # of the training text
    parameter_file: str
    minutes_per_epoch: float | None  # of training steps; None if not measured

    def __str__(self) -> str:
        text = f"The dimensions in {self.parameter_file} suit a text of {self.n_words:,} words."
        if self.minutes_per_epoch is None:
            return text
        minutes = f"{self.minutes_per_epoch:.2g} minutes here (measured by ten steps)"
        return f"{text}\nWith the parameters given, the training steps of an epoch take {minutes}."


def advise(corpus: PreparedCorpus, parameters: Parameters, timing: bool = True) -> Advice:
    """Find the parameter file that suits the size of a text, and measure the time of an epoch.

    With `timing`, this runs a few training steps but saves nothing; `Training` lists the errors.
    """
    n_words, minutes = corpus.train.n_words, None
    name = next(name for name, most in LARGEST_TEXT.items() if n_words <= most)
    if timing:
        with silence_tensorflow():
            from elmolib.training.loop import Training
        with TemporaryDirectory() as folder:
            # Use an empty folder, so that no checkpoint of an earlier run is loaded.
            fresh = parameters.model_copy(update={"run_dir": folder, "pretrained": None})
            training = Training(fresh, corpus)
            state, ends = training.state, []
            # The first step includes compilation, so time is measured from the end of this step.
            for step, batch in enumerate(training.batches.read_ahead(0, 11)):
                result = training.training_step(batch, state, step)
                state = result.state
                np.asarray(result.losses)  # waits for the step
                ends.append(time.perf_counter())
        minutes = training.steps_per_epoch * median(np.diff(ends).tolist()) / 60
    return Advice(n_words, f"params/{name}.yaml", minutes)
