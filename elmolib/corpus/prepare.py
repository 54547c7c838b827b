"""Prepare a text for training: write arrays and a record of their origin to a folder.

The text is read once, in chunks. For each chunk, elmolib writes a sorted list of its words, and its
sentences as indices into this list. It then merges the lists, numbers the merged words by frequency
and rewrites the sentences with these numbers. Only a few chunks and a few numbers per distinct word
are in memory.
"""

import hashlib
import json
import logging
import os
import platform
import shutil
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

from tqdm import tqdm

from elmolib.corpus.chunks import HELDOUT, SIDES, TRAIN, Counts, Rules, prepare_chunks
from elmolib.corpus.numbering import count_overlap, write_arrays
from elmolib.corpus.prepared import FORMAT, RECORD, PreparedCorpus, checksum
from elmolib.corpus.sources import CHUNK_BYTES, Source, find_files, identity_of, read_chunks
from elmolib.errors import CorpusError, ElmolibError, TextError, VocabularyError
from elmolib.files import atomic_folder, exclusive_lock, sha256_of, write_errors
from elmolib.formats.published import KEEP_VOCABULARY, pretrained_path
from elmolib.parallel import cpu_count
from elmolib.settings.parameters import TextSettings, project_root
from elmolib.settings.run_folder import has_checkpoints
from elmolib.text.lines import warn_of_marks
from elmolib.text.sentences import rules_for
from elmolib.text.tokenizer import Tokenizer
from elmolib.text.vocabulary import read_words

_LOGGER = logging.getLogger(__name__)
# Keys that name files. A corpus depends on the content of these files, not on their paths.
FOUND_BY_PATH = ("text", "heldout_text", "vocabulary_file", "pretrained")


def prepare_corpus(
    parameters: TextSettings, processes: int | None = None, chunk_bytes: int = CHUNK_BYTES
) -> PreparedCorpus:
    """Prepare a text for training, or reuse the prepared corpus.

    A corpus in the folder `parameters.corpus_path` is reused if its parameters and the content of
    its text files are unchanged, even if the files were moved or no longer exist. Otherwise, a new
    corpus is made, which replaces an old corpus in `run_dir` as soon as it is complete.

    Args:
        parameters: the text, the tokenizer and the vocabulary. `heldout_fraction` and
            `heldout_seed` choose held-out sentences by their words, so equal sentences are either
            all held out or all in the training text.
        processes: the number of processes; None means that the size of the text decides.
        chunk_bytes: the size of the chunks, in bytes of text. It does not change the result.

    Raises:
        TextError: a text file is missing, empty, unreadable, binary or not UTF-8, or changes while
            it is read, or there is no training sentence or no held-out sentence.
        VocabularyError: the vocabulary file is malformed, or the vocabulary has almost no word of
            the text.
        WeightsError: the vocabulary of a pretrained model is to be used, but the model has none.
        CorpusError: the folder cannot be written, or an earlier corpus is damaged, in use by
            another process, or different and not replaceable, because it was used for training, is
            in a `corpus_dir`, which other runs may use, or has other files in its folder.

    Warns:
        UserWarning: sentences of `heldout_text` are also in `text`, sentence marks were dropped,
            the language has no rules for sentences, or the vocabulary has under 80 % of the words.

    Example:
        >>> corpus = prepare_corpus(Parameters.from_yaml("params/tiny.yaml"))
        >>> corpus.train.n_sentences, len(corpus.vocabulary)
        (16479, 12426)
    """
    # If the folder is a link, replace its target, not the link.
    folder = Path(os.path.realpath(parameters.corpus_path))
    tokenizer = Tokenizer(**{name: getattr(parameters, name) for name in Tokenizer.model_fields})
    if not tokenizer.tokenized:
        rules_for(tokenizer.language)
    # Path.is_dir and Path.exists would raise an error if the name is too long.
    is_occupied = any(folder.iterdir()) if os.path.isdir(folder) else os.path.exists(folder)
    corpus = PreparedCorpus(folder) if is_occupied else None
    spelled = {name: parameters.to_json()[name] for name in FOUND_BY_PATH}
    try:
        sources = _find_sources(parameters)
        vocabulary = _read_vocabulary(parameters, tokenizer)
    except ElmolibError:
        if corpus is None or not _are_gone(corpus.record["made_from"], spelled):
            raise
        sources, vocabulary = None, None
    identity = _identity(parameters, vocabulary)
    if corpus is not None:
        changes = _changes(corpus.record["made_from"], identity, sources)
        if not changes:
            return corpus
        _require_replaceable(corpus, parameters, changes)
        corpus = None  # Windows does not rename a folder while its files are mapped into memory.
    if os.path.ismount(folder):
        raise CorpusError(f"{folder} is a mount point: choose a folder inside it.")
    heldout = parameters.heldout_fraction or 0.0, parameters.heldout_seed
    hash_sentences = parameters.heldout_text is not None
    rules = Rules(tokenizer.to_json(), parameters.errors, *heldout, hash_sentences)
    files: list[dict] = []

    def read() -> Iterator[tuple]:
        with tqdm(None, "reading", unit="B", unit_scale=True, disable=None) as bar:
            for source in sources:
                files.append(source.fingerprint())
                for chunk in read_chunks(source.path, chunk_bytes):
                    yield source.side, chunk
                    bar.update(len(chunk.data))

    n_chunks = sum(source.estimated_bytes() for source in sources) // chunk_bytes
    # More than 8 processes would only wait for the text to be read.
    processes = processes or max(1, min(n_chunks, cpu_count(), 8))
    totals, targets = dict[str, Counter](), []
    with (
        exclusive_lock(folder, folder.parent / f".{folder.name}.lock", CorpusError),
        write_errors(folder, CorpusError, "fix this and rerun; the earlier corpus is unchanged"),
        atomic_folder(folder) as unfinished,
    ):
        work = unfinished / "work"
        work.mkdir()
        with closing(prepare_chunks(read(), rules, work, processes)) as results:
            for target, counts in results:
                targets.append(target)
                for what, by_side in counts.items():
                    totals.setdefault(what, Counter()).update(by_side)
        _require_sentences(totals, parameters)
        limits = parameters.min_count, parameters.vocabulary_size
        words = write_arrays(unfinished, targets, totals, vocabulary, *limits)
        n_overlap = count_overlap(targets) if rules.hash_sentences else 0
        shutil.rmtree(work)
        for source, fingerprint in zip(sources, files, strict=True):
            if not source.is_unchanged(fingerprint):
                advice = "run this again when nothing is writing to it"
                raise TextError(f"{source.path} changed while being read: {advice}.")
        _report_coverage(totals | words, parameters)
        made_from = {"parameters": identity, "spelled": spelled, "files": files}
        made_from["tokenizer"] = tokenizer.to_json()
        _write_record(unfinished, made_from, totals | words | {"heldout_in_training": n_overlap})
    warn_of_marks(totals["sentence_marks"].total(), parameters.text)
    if n_overlap:
        overlap = f"{n_overlap:,} of {totals['sentences'][HELDOUT]:,} sentences of heldout_text"
        effect = "so held-out results will look better than they are"
        warnings.warn(f"{overlap} also occur in text, {effect}.", stacklevel=2)
    return PreparedCorpus(folder)


def _find_sources(parameters: TextSettings) -> list[Source]:
    texts = {TRAIN: parameters.text, HELDOUT: parameters.heldout_text or ()}
    folders = project_root(), parameters.run_path
    sources = [Source(side, path) for side in SIDES for path in find_files(texts[side], *folders)]
    seen: dict[tuple[int, int], Path] = {}
    for _, path in sources:
        if (first := seen.setdefault(identity_of(path), path)) is not path:
            problem = f"text and heldout_text name a file twice, as {first} and {path}"
            raise TextError(f"{problem}: name it once.")
    return sources


def _read_vocabulary(parameters: TextSettings, tokenizer: Tokenizer) -> list[str] | None:
    """Return the words that the vocabulary must have, or None if there is no given vocabulary."""
    if parameters.vocabulary_file is None:
        return None
    if parameters.vocabulary_file == KEEP_VOCABULARY:
        # This import is here to save memory, because `readers` imports h5py.
        from elmolib.formats.readers import read_vocabulary

        model = pretrained_path(parameters.pretrained, project_root())
        return sorted(read_vocabulary(model, "vocabulary_file cannot be pretrained").words)
    tabs = tokenizer.tokenized == "tabs"
    words = read_words(parameters.path(parameters.vocabulary_file), spaces=tabs)
    # NFKC puts a space into some words. Leave out such words, because no word of a text has spaces.
    pieces = {tokenizer.clean_word(w): tokenizer.clean(w, is_word=True).split() for w in words}
    return sorted(word for word in pieces if tabs or len(pieces[word]) == 1)


def _identity(parameters: TextSettings, vocabulary: Sequence[str] | None) -> dict:
    """Return the parameters that affect the content of a corpus, and a hash of the vocabulary."""
    names = set(TextSettings.model_fields) - TextSettings.may_change() - {"seed"}
    identity = {name: value for name, value in parameters.to_json().items() if name in names}
    if parameters.heldout_fraction is None:
        identity["heldout_seed"] = None
    if vocabulary is not None:
        identity["vocabulary"] = hashlib.sha256("\n".join(vocabulary).encode()).hexdigest()
    return identity


def _changes(made_from: dict, identity: dict, sources: Sequence[Source] | None) -> list[str]:
    """Return names of changed parameters and files; without `sources`, skip files that are gone."""
    before, files = made_from["parameters"], made_from["files"]
    if sources is None:
        identity = {**identity, "vocabulary": before.get("vocabulary")}
        files = [was for was in files if os.path.isfile(was["name"])]
        sources = [Source(was["side"], Path(was["name"])) for was in files]
    names = [n for n in sorted({*identity, *before}) if identity.get(n) != before.get(n)]
    if len(files) != len(sources):
        return [*names, "number of files"]
    pairs = zip(sources, files, strict=True)
    return names + [str(source.path) for source, was in pairs if not source.is_unchanged(was)]


def _are_gone(made_from: dict, spelled: dict) -> bool:
    """Whether a file that a corpus was made from, and that the parameters still name, is gone."""
    models = (spelled["vocabulary_file"], spelled["pretrained"])
    paths = [was["name"] for was in made_from["files"]]
    paths += [project_root() / path for path in models if path not in (None, KEEP_VOCABULARY)]
    return spelled == made_from["spelled"] and not all(map(os.path.exists, paths))


def _require_replaceable(corpus: PreparedCorpus, parameters: TextSettings, changes: list) -> None:
    """Make sure that replacing a corpus does not break a run or delete other files."""
    difference = " and another ".join(changes)
    if parameters.corpus_dir is not None:
        problem = f"{corpus.path} holds a corpus that was prepared with another {difference}"
        advice = "choose another corpus_dir, or delete the folder if no run uses it"
        raise CorpusError(f"{problem}, and runs may use it: {advice}.")
    if has_checkpoints(parameters.run_path):
        problem = f"{parameters.run_path} holds a run whose text was prepared with another"
        advice = "choose another run_dir, or delete the folder to retrain"
        raise CorpusError(f"{problem} {difference}: {advice}.")
    for file in sorted(corpus.path.iterdir()):
        if file.name not in {*corpus.record["sha256"], RECORD}:
            fault = "is not part of the corpus in its folder, and would be deleted with it"
            raise CorpusError(f"{file} {fault}: move it elsewhere.")


def _require_sentences(totals: Counts, parameters: TextSettings) -> None:
    n = totals["sentences"]
    for side, key in ((TRAIN, "text"), (HELDOUT, "heldout_text")):
        if getattr(parameters, key) is not None and not n[side]:
            raise TextError(f"There is no sentence in {key} {getattr(parameters, key)}: add some.")
    if parameters.heldout_fraction and not n[HELDOUT]:
        share = f"heldout_fraction {parameters.heldout_fraction}"
        advice = "raise it or give more text"
        raise TextError(f"{share} holds out none of {n[TRAIN]} sentences: {advice}.")


def _report_coverage(counts: dict, parameters: TextSettings) -> None:
    """Report the share of the text that the vocabulary covers; warn or raise if it is small."""
    covered = 1 - sum(counts["unknown_words"].values()) / sum(counts["words"].values())
    distinct = counts["distinct_known_words"] / counts["distinct_words"]
    shares = f"{covered:.1%} of the running text and {distinct:.1%} of its different words"
    found = f"The vocabulary of {counts['vocabulary']:,} words covers {shares}"
    file = parameters.vocabulary_file
    advice = f"make sure that the words of vocabulary_file {file} are spelt as in the text"
    if file is None:
        advice = "lower min_count, or raise vocabulary_size"
    if covered < 0.01:
        raise VocabularyError(f"{found}, so there is almost nothing to predict: {advice}.")
    if covered < 0.8:
        warnings.warn(f"{found}; the rest is <UNK> to the softmax: {advice}.", stacklevel=3)
    _LOGGER.info("%s.", found)


def _write_record(folder: Path, made_from: dict, counts: dict) -> None:
    made_with = {"python": platform.python_version()}
    made_with |= {name: version(name) for name in ("icu4py", "sentencex")}
    record = {"format": FORMAT, "made_from": made_from, "made_with": made_with, "counts": counts}
    record["sha256"] = {file.name: sha256_of(file) for file in sorted(folder.iterdir())}
    record["checksum"] = checksum(record)
    # Let `json.dumps` escape non-ASCII characters, because file names may be invalid Unicode.
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
