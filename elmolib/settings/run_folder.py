"""Names of the files and folders in the folder of a run."""

from pathlib import Path

WEIGHTS, HISTORY, PARAMETERS = "elmo.h5", "history.csv", "parameters.yaml"
PROGRESS, STEPS, EVENTS = "progress.json", "steps.csv", "tensorboard"
CORPUS, CHECKPOINTS, REPORTS, PICTURES = "corpus", "checkpoints", "reports", "pictures"
STOP, LOCK = "stop", ".lock"
CORPUS_RECORD = "corpus.json"  # in the folder of a prepared corpus


def has_checkpoints(run_folder: Path) -> bool:
    """Whether a folder has checkpoints, that is, a run has begun in it."""
    return any((run_folder / CHECKPOINTS).glob("step-*.h5"))


def is_ours(folder: Path) -> bool:
    """Whether a folder is a prepared corpus, a run or a part of a run."""
    is_part = folder.name in (CHECKPOINTS, REPORTS, PICTURES) and has_checkpoints(folder.parent)
    return is_part or has_checkpoints(folder) or (folder / CORPUS_RECORD).is_file()
