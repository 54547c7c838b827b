"""Training checkpoints of bilm-tf, with their softmax and the state of Adagrad."""

import re
from pathlib import Path, PurePosixPath

from elmolib.errors import WeightsError
from elmolib.files import read_limited
from elmolib.formats import assembly
from elmolib.formats.assembly import Request, StoredModel
from elmolib.formats.options import options_in
from elmolib.formats.tensor_bundle import read_variables
from elmolib.formats.weights import words_in

_MAX_STATE, _SLOT = 1_000_000, "/Adagrad"


def recognizes(path: Path) -> bool:
    """Whether a path names a checkpoint: its folder, its `.index` file, or both without ending."""
    return _prefix(path) is not None


def read(path: Path, request: Request, source: str) -> StoredModel:
    """Read a checkpoint. `options.json` and `vocab.txt` are beside it, or above `saves/epochs`.

    References:
        bilm-tf, `bilm/training.py`; DeepPavlov, `models/elmo/elmo.py`.
    """
    prefix = _prefix(path)
    folder = prefix.parent
    source = f"{source}/{prefix.relative_to(path)}" if path.is_dir() else str(prefix)
    home = folder.parents[2] if folder.parent.name == "epochs" else folder
    options = options_in(home, str(home))
    if options is None and request.options is None:
        raise WeightsError(f"{source} holds no options: give options=..., or add options.json.")
    variables = read_variables(prefix, source)
    arrays = assembly.from_bilm_tf(variables)
    if not arrays and any("/rnn/" in name for name in variables):
        raise WeightsError(f"{source} reads in one direction, but ELMo in both: train it so.")
    words = words_in(home, str(home), arrays)
    spelling = assembly.bilm_tf_spelling(arrays, words, source)
    slots = {name.removesuffix(_SLOT): a for name, a in variables.items() if name.endswith(_SLOT)}
    fields = {"vocabulary": words, "spelling": spelling, "slots": assembly.from_bilm_tf(slots)}
    return assembly.assemble(arrays, options, request, source, Path(f"{prefix}.index"), **fields)


def _prefix(path: Path) -> Path | None:
    """Return the path of a checkpoint without its endings, or None."""
    if path.suffix == ".index":
        return path.with_suffix("")
    if Path(f"{path}.index").is_file():
        return path
    found = [*path.glob("*.index")] or [*path.glob("saves/epochs/*/*.index")]
    latest = max(found, key=lambda p: [*map(int, re.findall(r"\d{1,18}", str(p)))], default=None)
    if (path / "checkpoint").is_file():
        # The file names the latest checkpoint, whose folder may have been on another machine.
        text = read_limited(path / "checkpoint", _MAX_STATE, WeightsError).decode(errors="replace")
        named = re.match(r'model_checkpoint_path: "(.*)"', text)
        name = PurePosixPath(named[1]).name if named else ""
        latest = next((each for each in found if each.stem == name), latest)
    return latest and latest.with_suffix("")
