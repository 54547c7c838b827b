"""ELMo: train a biLM on your own text, save it, load it, and embed with it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elmolib.backend import show_messages
from elmolib.embedder import ElmoEmbedder
from elmolib.embedding.encoder import SentenceEncoder
from elmolib.embedding.sentences import Sentence, words_in
from elmolib.errors import ParameterError, VocabularyError, needs_extras
from elmolib.files import atomic_write, write_errors
from elmolib.formats.published import KEEP_VOCABULARY, is_published
from elmolib.formats.weights import write_model
from elmolib.settings.parameters import Parameters
from elmolib.text.tokenizer import Tokenizer
from elmolib.text.vocabulary import parse_words

if TYPE_CHECKING:
    from elmolib.training.loop import Training

# Names of the files in the run's folder that hold a text or a vocabulary given in memory.
_IN_MEMORY = {"text": "text.txt", "vocabulary_file": "word2idx.json"}
_PATHS = ("text", "heldout_text", "vocabulary_file", "pretrained", "run_dir", "corpus_dir")
_NAMES = {"text": "wikipedia", "heldout_text": "wikipedia", "vocabulary_file": KEEP_VOCABULARY}


class ELMo(ElmoEmbedder):
    """Train a biLM on a text, and use the trained model with all methods of `ElmoEmbedder`.

    The constructor only reads the parameters; `train` and `load_pretrained_elmo` create the model.
    Relative paths start from the working directory.

    Args:
        text: the path or glob of the text, a list of them, "wikipedia" for the excerpt that comes
            with gensim, or None for the text that `params` names. Any other value, such as a list
            of lists of words, is used as `sentences`.
        word2idx: the vocabulary of the output softmax: a file, a mapping from words to indices, or
            "pretrained" for the vocabulary of the pretrained model. None means the most frequent
            words of the text.
        params: a YAML file with the other parameters, or the name of a file that comes with this
            package, such as "tiny".
        pretrained: the model to fine-tune: a path, or a name that `ElmoEmbedder.from_pretrained`
            accepts.
        sentences: the text in memory, instead of `text`: a list (or a similar object that can be
            read repeatedly) of strings or lists of words. `train` writes it to the run's folder.
        **overrides: parameters that replace the file's parameters, such as `epochs=2`.

    Raises:
        ParameterError: a parameter is invalid, or two contradict each other.

    Example:
        >>> elmo = ELMo("corpus.txt", params="tiny", epochs=2, run_dir="runs/mine")
        >>> elmo.train()
        >>> elmo.save_elmo_weights("elmo.h5")
        >>> layers = elmo.get_elmo("The river bank was steep .")
        >>> [layer.shape for layer in layers]
        [(6, 128), (6, 128), (6, 128)]

    References:
        Peters et al. 2018, "Deep contextualized word representations", arXiv:1802.05365.
    """

    _reads_softmax = True

    def __init__(
        self,
        text: str | Path | Iterable[str | Path | Sequence[str]] | None = None,
        word2idx: str | Path | Mapping[str, int] | None = None,
        params: str | Path = "tiny",
        pretrained: str | Path | None = None,
        sentences: Iterable[Sentence] | None = None,
        **overrides: Any,
    ) -> None:
        paths = text if isinstance(text, list | tuple) else [text]
        if text is not None and not all(isinstance(path, str | Path) for path in paths):
            if sentences is not None:
                raise ParameterError("text and sentences cannot both be given: give one of them.")
            text, sentences = None, text
        named = {"text": text, "vocabulary_file": word2idx, "pretrained": pretrained}
        given = overrides | {name: value for name, value in named.items() if value is not None}
        if word2idx is not None:
            # All given words are in the vocabulary, so ignore the limits in the YAML file.
            given |= {"vocabulary_size": None, "min_count": 1}
        self._in_memory: dict[str, Iterable[Sentence]] = {}
        if isinstance(word2idx, Mapping):
            try:
                content = json.dumps(dict(word2idx), indent=0, default=int)
            except TypeError as error:
                raise VocabularyError(f"word2idx must map words to indices: {error}.") from None
            parse_words(content.encode(), "word2idx", spaces=True)
            self._in_memory["vocabulary_file"] = [content]
        if sentences is not None:
            self._in_memory["text"] = sentences
        are_words = sentences is not None and not isinstance(_first(sentences), str)
        files = {name: _IN_MEMORY[name] for name in self._in_memory}
        given = {name: _from_here(name, value) for name, value in given.items()} | files
        found = Parameters.from_yaml(params, **given)
        update: dict[str, Any] = {name: str(Path(found.run_dir) / files[name]) for name in files}
        if are_words and "tokenized" not in overrides:
            update["tokenized"] = found.tokenized or True
        self.parameters: Parameters = found.model_copy(update=update)

    @needs_extras()
    def train(self) -> None:
        """Prepare the text, and train the model that all other methods use, or resume its run.

        Raises:
            ElmolibError: the text, the vocabulary or an earlier run in the folder cannot be used.
        """
        from elmolib.corpus.prepare import prepare_corpus
        from elmolib.live.reports import DetailedMetrics
        from elmolib.live.watch import progress_callbacks, shows_dashboard
        from elmolib.training.loop import Training

        p = self.parameters
        if p.progress != "none":
            show_messages()
        for name, sentences in self._in_memory.items():
            _write(p.path(getattr(p, name)), sentences, p.tokenized or True)
        corpus = prepare_corpus(p)
        training = Training(p, corpus)
        metrics = DetailedMetrics.of(corpus, p, show=not shows_dashboard(p))
        training.run([*progress_callbacks(training), metrics])
        self._take_over(training)

    def save_elmo_weights(self, path: str | Path) -> None:
        """Save the model to one file, with its options, vocabulary and tokenizer.

        An existing file is replaced. The HDF5 layout is that of bilm-tf and AllenNLP; see
        `elmolib.formats.weights`.

        Raises:
            ElmolibError: there is no model yet, or the file cannot be written.
        """
        stored = self._require_model()
        arrays = self._encoder.runtime.arrays()
        if self._softmax is not None:
            arrays |= {"softmax/W": self._softmax.W, "softmax/b": self._softmax.b}
        write_model(path, replace(stored, arrays=arrays))

    def load_pretrained_elmo(self, path: str | Path) -> None:
        """Load an `elmo.h5`, or any other model that `ElmoEmbedder` accepts: a path, name or URL.

        Raises:
            WeightsError: the file is missing, damaged or not a model.
        """
        self._read(path, None)

    def _take_over(self, training: Training) -> None:
        from elmolib.embedding.keras_runtime import KerasRuntime
        from elmolib.scoring.softmax import softmax_of

        self._stored = training.stored_model(arrays={})
        self._encoder = SentenceEncoder(KerasRuntime(training.bilm))
        self._softmax = softmax_of(training.bilm, training.corpus.vocabulary)
        self._source, self._runtime = (training.weights_path, None), ()


def _first(sentences: Iterable[Sentence]) -> Sentence:
    if not isinstance(sentences, Iterable):
        raise ParameterError(f"text must be paths or sentences, not {sentences!r:.60}.")
    if iter(sentences) is sentences:
        raise ParameterError(
            "sentences can be read only once: give a list, or an object that can be read again."
        )
    return next(iter(sentences), "")


def _write(path: Path, sentences: Iterable[Sentence], tokenized: bool | str) -> None:
    as_words = Tokenizer(tokenized=tokenized, unicode_form=None)
    separator, advice = "\t" if tokenized == "tabs" else " ", "choose another run_dir"
    with (
        write_errors(path, ParameterError, advice),
        atomic_write(path) as unfinished,
        unfinished.open("wb") as file,
    ):
        for place, each in enumerate(sentences):
            if not isinstance(each, str):
                each = separator.join(words_in(each, place, as_words))
            file.write(f"{each}\n".encode(errors="replace"))


def _from_here(name: str, value: Any) -> Any:
    """Make a path absolute, but return a name such as "wikipedia" or "small" unchanged."""
    if isinstance(value, list | tuple):
        return [_from_here(name, each) for each in value]
    is_path = name in _PATHS and isinstance(value, str | Path)
    is_name = value == _NAMES.get(name) or name == "pretrained" and is_published(str(value))
    return str(Path(value).expanduser().absolute()) if is_path and not is_name else value
