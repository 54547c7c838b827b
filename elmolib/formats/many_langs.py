"""Models of ELMoForManyLangs, which spell words by the characters and words of their own lists."""

from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from elmolib.errors import OptionsError, WeightsError
from elmolib.files import read_limited
from elmolib.formats import assembly
from elmolib.formats.allennlp import changed, from_torch
from elmolib.formats.assembly import CHARACTERS, WORDS, Array, Request, StoredModel
from elmolib.formats.options import MAX_BYTES as MAX_CONFIGURATION
from elmolib.formats.options import USUAL, Known, architecture_from_options, parse_json
from elmolib.formats.torch_file import read_tensors, require_stored
from elmolib.settings.architecture import Architecture
from elmolib.text import characters as ids
from elmolib.text.spelling import Spelling, id_of
from elmolib.text.tokenizer import Tokenizer
from elmolib.text.vocabulary import MAX_BYTES

_PARTS, _PROJECTION = ("token_embedder.pkl", "encoder.pkl"), "char_cnn/projection"
_RECORD = {
    "made_by": "ELMoForManyLangs",
    "tokens": "syntactic words of UDPipe, such as French 'de le' instead of 'du'",
}

# The program puts <eow> before a word and <bow> after it, in training too.
_MARKS = {ids.BEGIN_SENTENCE: "<bos>", ids.END_SENTENCE: "<eos>", ids.PADDING: "<pad>", 0: "<oov>"}
_MARKS |= {ids.BEGIN_WORD: "<eow>", ids.END_WORD: "<bow>"}


def recognizes(path: Path) -> bool:
    """Whether a path is the folder of a model of ELMoForManyLangs."""
    return all((path / name).is_file() for name in _PARTS)


def read(path: Path, request: Request, source: str) -> StoredModel:
    """Read a model, whose configuration may be missing, as it is in most published archives.

    References:
        https://github.com/HIT-SCIR/ELMoForManyLangs, `elmo.py` and `modules/embedding_layer.py`.
    """
    files, tensors = [path / name for name in _PARTS], dict[str, Array]()
    for file in files:
        tensors |= read_tensors(file, f"{source}/{file.name}")
    arrays, n_features = from_torch(tensors, source), 0
    spelling: dict[str, Any] = {"unknown": "<oov>", "marks": ("<bos>", "<eos>"), "cut": True}
    projection = arrays.pop(_PROJECTION, None)
    if projection is None:
        raise WeightsError(f"{source}/{_PARTS[0]} lacks projection.weight: get it again.")
    if table := arrays.get(WORDS):
        words = {row: word for word, row in _dictionary(path / "word.dic", source, table).items()}
        spelling["words"] = tuple(words.get(row, "") for row in range(table.shape[0]))
        spelling["word_dim"] = n_features = table.shape[-1]
        # The first inputs of the projection are the word's row in the table.
        arrays["words/projection"] = changed(projection, lambda values: values[:n_features])
    if table := arrays.get(CHARACTERS):
        rows = _dictionary(path / "char.dic", source, table)
        if missing := set(_MARKS.values()) - rows.keys():
            raise WeightsError(f"{source}/char.dic lacks {min(missing)}: get it again.")
        listed = sorted((key for key in rows if len(key) == 1), key=rows.__getitem__)
        spelling["characters"] = ("", *listed)
        row_of = {id_of(place): rows[key] for place, key in enumerate(listed, start=1)}
        row_of |= {number: rows[key] for number, key in _MARKS.items()}
        order = [row_of.get(k, 0) for k in range(max(row_of) + 1)]
        arrays[CHARACTERS] = changed(table, lambda values: values[order])
        arrays[_PROJECTION] = changed(projection, lambda values: values[n_features:])
    else:
        spelling["characters"] = ()
        arrays = assembly.without_characters(projection.shape[-1]) | arrays
    spaces = any(" " in word for word in spelling.get("words", ()))  # as in Vietnamese
    fields: dict[str, Any] = {"spelling": Spelling.from_json(spelling, f"{source}/word.dic")}
    fields["tokenizer"] = Tokenizer(tokenized="tabs" if spaces else True, unicode_form=None)
    fields["training_record"] = _RECORD
    options = partial(_architecture, _configuration(path, source), table is not None, source)
    before = partial(require_stored, files, source)
    return assembly.assemble(arrays, options, request, source, files[1], before, **fields)


def _configuration(path: Path, source: str) -> dict[str, Any]:
    """Read the file that `config.json` names, beside it: its folder was on another machine."""
    found: dict[str, Any] = {"config_path": "config.json"}
    for _ in range(2):
        name = PurePosixPath(str(found.get("config_path")).replace("\\", "/")).name
        if not (path / name).is_file():
            return {}
        text = read_limited(path / name, MAX_CONFIGURATION, OptionsError, f"{source}/{name}")
        found = parse_json(text, f"{source}/{name}")
    return found


def _architecture(
    config: dict[str, Any], has_characters: bool, source: str, known: Known
) -> Architecture:
    parts = []
    for name, kind in ("token_embedder", "cnn"), ("encoder", "elmo"):
        part = config.get(name, {})
        if not isinstance(part, dict) or part.get("name", kind) != kind:
            raise OptionsError(f"{source}: its {name} is not {kind!r}, so it is no ELMo.")
        parts.append({key: value or None for key, value in part.items()})  # a clip of 0 is none
    char_cnn, lstm = parts
    if not has_characters:
        char_cnn = {key: char_cnn[key] for key in ("max_characters_per_token",) if key in char_cnn}
    if "char_dim" in char_cnn:
        char_cnn["embedding"] = {"dim": char_cnn["char_dim"]}
    found = {"char_cnn": char_cnn, "lstm": lstm | {"use_skip_connections": True}}
    return architecture_from_options(found, source, lambda: {**USUAL, **known()})


def _dictionary(path: Path, source: str, table: Array) -> dict[str, int]:
    """Read a list of words or characters: each line has a key, a tab and its row in a table."""
    source = f"{source}/{path.name}"
    text = read_limited(path, MAX_BYTES, WeightsError, source)
    try:
        pairs = [line.strip().split("\t") for line in text.decode().split("\n") if line.strip()]
        # White space that is a key of its own is stripped. It is the ideographic space.
        rows = {pair[0] if len(pair) > 1 else "\u3000": int(pair[-1]) for pair in pairs}
    except ValueError as error:
        raise WeightsError(f"{source} is not a list of keys and rows ({error}).") from None
    if not all(0 <= row < table.shape[0] for row in rows.values()):
        raise WeightsError(f"{source} has rows that the weights lack: get both files again.")
    return rows
