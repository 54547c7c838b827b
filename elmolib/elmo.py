"""The two classes that most people need: one to train an ELMo, one to embed with it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn

import numpy as np

from elmolib.bilm import BiLM
from elmolib.embedding import SentenceEncoder, layer_picker, unit_length
from elmolib.errors import ElmolibError, ParameterError
from elmolib.weights import StoredModel, read_model, write_model

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class ELMo:
    """Train a biLM on a text, keep it in a file, and see and use its vectors.

    Nothing is read but the parameters until `train` or `load_pretrained_elmo` is called.

    Args:
        text: path or glob of the text, a list of them, or "wikipedia" for the excerpt that comes
            with gensim.
        word2idx: file with the words that the softmax shall know, "pretrained" for those of the
            pretrained model, or None to count them.
        params: YAML file with everything else.
        pretrained: model to go on from: a path, or what `ElmoEmbedder.from_pretrained` takes.

    Raises:
        ParameterError: the parameters are broken or contradict each other.

    Example:
        >>> elmo = ELMo("corpus.txt", params="params/tiny.yaml")
        >>> elmo.train()
        >>> elmo.save_elmo_weights("elmo.h5")
        >>> layers = elmo.get_elmo("The river bank was steep .")
        >>> [layer.shape for layer in layers]
        [(6, 128), (6, 128), (6, 128)]

    References:
        Peters et al. 2018, "Deep contextualized word representations", arXiv:1802.05365.
    """

    _bilm: BiLM | None = None
    _stored: StoredModel
    _encoder: SentenceEncoder

    def __init__(
        self,
        text: str | Path | Sequence[str | Path],
        word2idx: str | Path | None = None,
        params: str | Path = "params/tiny.yaml",
        pretrained: str | Path | None = None,
    ) -> None:
        from elmolib.fine_tuning import KEEP_VOCABULARY, is_published
        from elmolib.parameters import Parameters

        several = not isinstance(text, str | Path)
        paths = [_from_here(path, "wikipedia") for path in (text if several else [text])]
        overrides: dict = {"text": paths if several else paths[0]}
        if word2idx is not None:
            # The mapping alone says which words count.
            overrides |= {
                "vocabulary_file": _from_here(word2idx, KEEP_VOCABULARY),
                "vocabulary_size": None,
                "min_count": 1,
            }
        if pretrained is not None:
            name = str(pretrained)
            overrides["pretrained"] = name if is_published(name) else _from_here(name)
        self.parameters = Parameters.from_yaml(params, **overrides)

    def train(self) -> None:
        """Prepare the text, train as the parameters say, and load the result.

        A run that was stopped goes on where it was.

        Raises:
            ElmolibError: the text, the vocabulary or an earlier run in the same folder cannot be
                used; the message says which and why.
        """
        from elmolib.callbacks import DetailedMetrics
        from elmolib.corpus import prepare_corpus
        from elmolib.training import Training

        corpus = prepare_corpus(self.parameters)
        training = Training(self.parameters, corpus)
        self.load_pretrained_elmo(training.run([DetailedMetrics.of(corpus, self.parameters)]))

    def save_elmo_weights(self, path: str | Path) -> None:
        """Write the model into one file, with its options, vocabulary and tokenisation.

        Args:
            path: the file, replaced if it exists.

        Raises:
            ElmolibError: there is no model yet, or the file cannot be written.

        References:
            The HDF5 layout of bilm-tf and AllenNLP; see `elmolib.weights`.
        """
        self._require_model()
        arrays = {
            name: np.asarray(variable.value)
            for name, variable in self._bilm.named_variables().items()
        }
        stored = self._stored
        write_model(
            path, stored.options, arrays, stored.vocabulary, stored.tokenizer, stored.record
        )

    def load_pretrained_elmo(self, path: str | Path) -> None:
        """Take over a stored model.

        Args:
            path: an `elmo.h5`, or a folder or zip in one of the published forms.

        Raises:
            WeightsError: the file is missing, damaged or foreign.
        """
        self._take_over(read_model(path))

    @property
    def encoder(self) -> SentenceEncoder:
        """What computes the vectors, for functions that take an encoder.

        Raises:
            ElmolibError: there is no model yet.
        """
        self._require_model()
        return self._encoder

    @property
    def n_layers(self) -> int:
        """LSTM layers per direction: the number of the top layer."""
        return self.encoder.options.n_layers

    def words(self, sentence: str) -> list[str]:
        """Cut a sentence into words as the model's own training text was.

        Args:
            sentence: any string; nothing in it begins a new sentence.

        Raises:
            ElmolibError: there is no model yet.
        """
        self._require_model()
        return self._stored.tokenizer.words(sentence)

    def get_elmo(self, sentence: str | Sequence[str]) -> list[np.ndarray]:
        """Embed one sentence.

        Args:
            sentence: a string, or its words.

        Returns:
            `n_layers + 1` float32 arrays `(n_words, 2 * projection_dim)`: the character CNN, which
            sees no context, then each LSTM layer, forward half first.

        Raises:
            ElmolibError: there is no model yet.
        """
        return list(self.embed([sentence], layers="all")[0])

    def embed(
        self,
        sentences: str | Iterable[str | Sequence[str]],
        layers: str | int = "average",
        batch_size: int = 32,
        carry_state: bool = False,
        normalize: bool = False,
    ) -> np.ndarray | list[np.ndarray]:
        """Embed one sentence or many.

        Args:
            sentences: a string, or several sentences, each a string or a list of words.
            layers: "all", "average" of all layers, "top", or a layer's number, 0 being the
                character CNN.
            batch_size: sentences read side by side.
            carry_state: start each sentence from the state that the last one in the same row of
                a batch left, in the order given, instead of from zero; see `reset_state`.
            normalize: give every vector the Euclidean length 1.

        Returns:
            float32 array `(n_words, 2 * projection_dim)`, with "all"
            `(n_layers + 1, n_words, 2 * projection_dim)`; for several sentences a list of them in
            the order given. The same sentence always has the same vectors, whatever stands beside
            it, unless state is carried.

        Raises:
            ParameterError: there are no such layers, or something is no sentence.
            ElmolibError: there is no model yet.
        """
        pick = layer_picker(layers, self.n_layers)
        alone = isinstance(sentences, str)
        words = [
            self._words_of(sentence, place)
            for place, sentence in enumerate([sentences] if alone else sentences)
        ]
        vectors = [np.empty(0, np.float32)] * len(words)
        for place, all_layers in self.encoder.encode_each(
            words, batch_size, carry_state=carry_state
        ):
            picked = pick(all_layers)
            vectors[place] = unit_length(picked) if normalize else picked
        return vectors[0] if alone else vectors

    def embed_corpus(
        self,
        path: str | Path,
        out: str | Path,
        layers: str | int = "average",
        dtype: Literal["float32", "float16"] = "float32",
        batch_size: int = 32,
        progress: bool = True,
    ) -> Path:
        """Embed every line of a text file into one HDF5 file; a stopped call can be repeated.

        Args:
            path: a UTF-8 text file, plain or `.gz`; each line is read as one sentence.
            out: the file to make.
            layers: as in `embed`.
            dtype: of the vectors; float16 halves the file.
            batch_size: lines read side by side.
            progress: print the size and, where somebody watches, show a bar.

        Returns:
            `out`; see `elmolib.corpus_embedding.embed_corpus` for what is in it, and
            `EmbeddedCorpus` there to read it.

        Raises:
            TextError: the text cannot be read.
            ParameterError: there are no such layers, or no such type.
            CorpusError: `out` was made from something else, or the disk is too small.
            ElmolibError: there is no model yet.
        """
        from elmolib.corpus_embedding import embed_corpus

        self._require_model()
        return embed_corpus(
            self._encoder, self._stored.tokenizer, path, out, layers, dtype, batch_size, progress
        )

    def reset_state(self) -> None:
        """Let `embed(..., carry_state=True)` begin from zero again."""
        self.encoder.reset_state()

    def heatmap(self, sentence: str | Sequence[str], layer: str | int = "top") -> Axes:
        """Draw how similar the words of a sentence are to each other.

        Args:
            sentence: a string, or its words.
            layer: a layer's number, "top", or the "average" of all.

        Returns:
            the picture's axes; `axes.figure.savefig(path)` writes it.

        Raises:
            ParameterError: there is no such layer.
            ElmolibError: there is no model yet.
        """
        from elmolib import plots

        if layer == "all":
            raise ParameterError("heatmap draws one layer: 'average', 'top' or a number.")
        words = self._words_of(sentence, 0)
        vectors = self.embed([words], layers=layer)[0]
        return plots.heatmap(words, vectors, title=plots.layer_name(layer))

    def _take_over(self, stored: StoredModel) -> None:
        self._bilm = BiLM.from_arrays(stored.options, stored.arrays)
        self._encoder = SentenceEncoder(self._bilm)
        # The model holds the arrays from here on.
        self._stored = replace(stored, arrays={})

    def _require_model(self) -> None:
        if self._bilm is None:
            raise ElmolibError(
                "This ELMo has no weights yet: call train() or load_pretrained_elmo(path) first."
            )

    def _words_of(self, sentence: str | Sequence[str], place: int) -> list[str]:
        if isinstance(sentence, str):
            return self.words(sentence)
        if isinstance(sentence, Iterable) and not isinstance(sentence, bytes):
            words = list(sentence)
            if all(isinstance(word, str) for word in words):
                return words
        raise ParameterError(
            f"sentence {place} must be a string or a list of words, not {sentence!r:.60}."
        )


class _Withheld:
    """Stands in a child class for a method of its parent that the child does not have."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: object, owner: type) -> NoReturn:
        raise AttributeError(
            f"{owner.__name__} only loads a model and embeds; for {self.name} use ELMo."
        )


class ElmoEmbedder(ELMo):
    """A trained ELMo that embeds and can do nothing else.

    Args:
        path: an `elmo.h5`; a weight file of bilm-tf or AllenNLP together with `options`; or a
            folder or zip with a weight file, `options.json` and perhaps `vocab.txt`.
        options: an `options.json` for a weight file that does not hold its own.

    Raises:
        WeightsError: the file is missing, damaged or foreign, or contradicts its options.
        OptionsError: the options are malformed.

    Example:
        >>> embedder = ElmoEmbedder("elmo.h5")
        >>> vectors = embedder.embed(["First sentence .", "Second one ."], layers="average")
        >>> [v.shape for v in vectors]
        [(3, 128), (3, 128)]

    References:
        Peters et al. 2018, arXiv:1802.05365, section 3.2.
    """

    train = _Withheld()  # type: ignore[assignment]
    save_elmo_weights = _Withheld()  # type: ignore[assignment]
    load_pretrained_elmo = _Withheld()  # type: ignore[assignment]

    def __init__(self, path: str | Path, options: str | Path | None = None) -> None:
        self._take_over(read_model(path, options, softmax=False))

    @classmethod
    def from_pretrained(cls, model: str, options_url: str | None = None) -> ElmoEmbedder:
        """Load a published model, downloading it on first use.

        Args:
            model: "small", "medium", "original", "original-5.5b", or the address of a `.zip`,
                `.hdf5` or `.h5` file.
            options_url: address of the `options.json` of a weight file that has none inside.

        Raises:
            DownloadError: it cannot be had; the message says what to fetch and where to put it.
        """
        from elmolib.pretrained import fetch

        return cls(fetch(model, options_url))


def _from_here(path: str | Path, but_not: str = "") -> str:
    """Resolve what a caller typed from the working directory, as callers expect."""
    return but_not if str(path) == but_not else str(Path(path).expanduser().absolute())
