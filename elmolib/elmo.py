"""The two classes that most people need: one to train an ELMo, one to embed with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import numpy as np

from elmolib.bilm import BiLM
from elmolib.embedding import SentenceEncoder, layer_picker
from elmolib.errors import ElmolibError, ParameterError, WeightsError
from elmolib.similarity import unit_length
from elmolib.weights import StoredModel, read_model, write_model

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from elmolib.neighbours import Nearest
    from elmolib.prediction import LogProbability, Prediction
    from elmolib.vocabulary import Vocabulary


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

        overrides: dict[str, Any] = {
            "text": _from_here(text, "wikipedia")
            if isinstance(text, str | Path)
            else [_from_here(path, "wikipedia") for path in text]
        }
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
        words = self._words_of_all([sentences] if isinstance(sentences, str) else sentences)
        vectors = [np.empty(0, np.float32)] * len(words)
        for place, all_layers in self.encoder.encode_each(
            words, batch_size, carry_state=carry_state
        ):
            picked = pick(all_layers)
            vectors[place] = unit_length(picked) if normalize else picked
        return vectors[0] if alone else vectors

    def embed_sentences(
        self,
        sentences: str | Iterable[str | Sequence[str]],
        layers: str | int = "average",
        pooling: Literal["mean", "max"] = "mean",
        batch_size: int = 32,
        normalize: bool = False,
    ) -> np.ndarray:
        """Give each sentence one vector, made of those of its words.

        Args:
            sentences: a string, or several sentences, each a string or a list of words.
            layers: "average" of all layers, "top", or a layer's number.
            pooling: the "mean" over the words, or the "max" of each feature.
            batch_size: sentences read side by side.
            normalize: give every vector the Euclidean length 1.

        Returns:
            float32 array `(n_sentences, 2 * projection_dim)`, for a string
            `(2 * projection_dim,)`; zeros for a sentence without words.

        Raises:
            ParameterError: there are no such layers or pooling, or something is no sentence.
            ElmolibError: there is no model yet.
        """
        if pooling not in _POOLING:
            raise ParameterError(f"pooling must be 'mean' or 'max', not {pooling!r}.")
        pick = layer_picker(_one_layer(layers, "embed_sentences"), self.n_layers)
        alone = isinstance(sentences, str)
        words = self._words_of_all([sentences] if isinstance(sentences, str) else sentences)
        vectors = np.zeros((len(words), 2 * self._stored.options.projection_dim), np.float32)
        for place, all_layers in self._encoder.encode_each(words, batch_size):
            if words[place]:
                vectors[place] = _POOLING[pooling](pick(all_layers), axis=0)
        vectors = unit_length(vectors) if normalize else vectors
        return vectors[0] if alone else vectors

    def similarity(
        self,
        a: str | Sequence[str],
        b: str | Sequence[str],
        words: tuple[str | int, str | int] | None = None,
        layers: str | int = "average",
    ) -> float:
        """Compare two sentences, or a word in one with a word in the other.

        Args:
            a, b: two sentences, each a string or its words.
            words: a word of `a` and a word of `b`, or their positions from 0; None compares the
                means of all words. A word that comes twice is meant where it comes first.
            layers: "average" of all layers, "top", or a layer's number.

        Returns:
            the cosine of the two vectors, from -1 to 1.

        Raises:
            ParameterError: there are no such layers, a word is not there, or a sentence is empty.
            ElmolibError: there is no model yet.

        Example:
            >>> elmo.similarity("The river bank", "A bank robber", words=("bank", "bank"))
            0.61
        """
        _one_layer(layers, "similarity")
        sentences = self._words_of_all([a, b])
        if words is None:
            for name, sentence in zip("ab", sentences, strict=True):
                if not sentence:
                    raise ParameterError(f"sentence {name} has no words to compare.")
            pair = self.embed_sentences(sentences, layers)
        else:
            places = map(_position_of, words, sentences)
            vectors = self.embed(sentences, layers)
            pair = np.stack([v[place] for v, place in zip(vectors, places, strict=True)])
        first, second = unit_length(pair)
        return float(first @ second)

    def predict(self, sentence: str | Sequence[str], top_k: int = 10) -> Prediction:
        """Tell what the model expected at each word of a sentence, and what could stand there.

        Args:
            sentence: a string, or its words. It is read alone, between `<S>` and `</S>`.
            top_k: words to name at each place.

        Returns:
            the words that the forward model, from those before, and the backward model, from
            those after, held for most probable, with their probabilities; and substitutes by both
            together. `print` shows the first choices, `.table()` all.

        Raises:
            WeightsError: the model's file has no softmax with its vocabulary.
            ParameterError: `sentence` is none, or `top_k` is no positive whole number.
            ElmolibError: there is no model yet.
        """
        from elmolib.prediction import predict

        _require_count(top_k, "top_k")
        vocabulary = self._require_language_model()
        words = self._words_of(sentence, 0)
        (prediction,) = predict(self._bilm, vocabulary, [words], top_k, self._encoder)
        return prediction

    def sentence_log_prob(self, sentence: str | Sequence[str]) -> LogProbability:
        """Tell how probable a sentence is under the forward and the backward language model.

        Args:
            sentence: a string, or its words. It is read alone, between `<S>` and `</S>`.

        Returns:
            natural logarithms, of all words and the end together.

        Raises:
            WeightsError: the model's file has no softmax with its vocabulary.
            ParameterError: `sentence` is none.
            ElmolibError: there is no model yet.
        """
        from elmolib.prediction import log_probability

        vocabulary = self._require_language_model()
        return log_probability(self._bilm, vocabulary, self._words_of(sentence, 0), self._encoder)

    def nearest(
        self,
        word: str | int,
        sentence: str | Sequence[str],
        corpus: str | Path | Iterable[str | Sequence[str]],
        k: int = 10,
        layers: str | int = "top",
    ) -> Nearest:
        """Find words in a corpus that are like a word in its sentence, and word2vec's choice.

        Args:
            word: a word of the sentence, or its position from 0; one that comes twice is meant
                where it comes first.
            sentence: a string, or its words.
            corpus: a file made by `embed_corpus` with the same model and with `layers` or "all",
                or some sentences. word2vec is trained on its text on first use, and kept beside
                the file.
            k: how many to find.
            layers: "average" of all layers, "top", or a layer's number.

        Returns:
            the nearest words with their similarity, sentence and position, and word2vec's
            neighbours of the same word, whatever its sentence. `print` shows both.

        Raises:
            ParameterError: the word is not in the sentence, or there are no such layers.
            CorpusError: the file is damaged, or was made with another model or other layers.
            ElmolibError: there is no model yet.

        Example:
            >>> print(elmo.nearest("bank", "The river bank was steep .", "corpus.h5", k=2))
            bank by word2vec: credit 0.81, money 0.80
            bank in context:
              0.88  the north [shore] is rocky .
              0.86  on the south [bank] of the river .

        References:
            Peters et al. 2018, arXiv:1802.05365, table 4.
        """
        from elmolib.neighbours import Nearest, nearest_places
        from elmolib.word2vec import word2vec, word2vec_neighbours

        _require_count(k, "k")
        pick = layer_picker(_one_layer(layers, "nearest"), self.n_layers)
        words = self._words_of(sentence, 0)
        position = _position_of(word, words)
        vector = self.embed([words], layers)[0][position]
        if isinstance(corpus, str | Path):
            from elmolib.corpus_embedding import EmbeddedCorpus

            with EmbeddedCorpus(corpus) as embedded:
                lines = embedded.lines_by(self._bilm, layers)
                found = nearest_places(vector, lines, k, (words, position))
                vectors = word2vec(embedded.sentences(), embedded.beside("word2vec.bin"))
        else:
            sentences = self._words_of_all(corpus)
            encoded = self._encoder.encode_each(sentences)
            lines = ((sentences[place], pick(layers)) for place, layers in encoded)
            found = nearest_places(vector, lines, k, (words, position))
            vectors = word2vec(sentences)
        return Nearest(words[position], found, word2vec_neighbours(vectors, words[position], k))

    def to_projector(
        self,
        path: str | Path,
        sentences: Iterable[str | Sequence[str]],
        layers: str | int = "top",
    ) -> tuple[Path, Path]:
        """Write the vectors of all words of some sentences for the Embedding Projector.

        Args:
            path: the folder for `vectors.tsv` and `metadata.tsv`, which the Projector loads.
            sentences: each a string or a list of words.
            layers: "average" of all layers, "top", or a layer's number.

        Returns:
            the two files.

        Raises:
            ParameterError: there are no such layers, or something is no sentence.
            ElmolibError: there is no model yet.

        References:
            https://projector.tensorflow.org
        """
        from elmolib.projector import write_projector

        words = self._words_of_all(sentences)
        vectors = self.embed(words, _one_layer(layers, "to_projector"))
        return write_projector(path, zip(words, vectors, strict=True))

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

    def heatmap(
        self,
        sentence: str | Sequence[str],
        layer: str | int = "top",
        other: str | Sequence[str] | None = None,
    ) -> Axes:
        """Draw how similar the words of a sentence are to each other, or to those of another.

        Args:
            sentence: a string, or its words: the rows.
            layer: a layer's number, "top", or the "average" of all.
            other: a second sentence, the columns; None for the same sentence again.

        Returns:
            the picture's axes; `axes.figure.savefig(path)` writes it.

        Raises:
            ParameterError: there is no such layer, or something is no sentence.
            ElmolibError: there is no model yet.
        """
        from elmolib import plots

        title = plots.layer_name(_one_layer(layer, "heatmap"))
        words = self._words_of_all([sentence] if other is None else [sentence, other])
        vectors = self.embed(words, layers=layer)
        if other is None:
            return plots.heatmap(words[0], vectors[0], title=title)
        return plots.heatmap(words[0], vectors[0], words[1], vectors[1], title=title)

    def _take_over(self, stored: StoredModel) -> None:
        softmax = stored.arrays.get("softmax/W")
        size = None if softmax is None else len(softmax)
        self._bilm = BiLM(stored.options, size, values=stored.arrays)
        self._encoder = SentenceEncoder(self._bilm)
        # The model holds the arrays from here on.
        self._stored = replace(stored, arrays={})

    def _require_model(self) -> None:
        if self._bilm is None:
            raise ElmolibError(
                "This ELMo has no weights yet: call train() or load_pretrained_elmo(path) first."
            )

    def _require_language_model(self) -> Vocabulary:
        """Return the words of the softmax, if there is one."""
        self._require_model()
        if self._bilm.softmax_W is None or self._stored.vocabulary is None:
            raise WeightsError(
                f"{self._stored.source} has no softmax with its vocabulary, so it predicts no "
                "words: use a file that holds the whole language model."
            )
        return self._stored.vocabulary

    def _words_of_all(self, sentences: Iterable[str | Sequence[str]]) -> list[list[str]]:
        self._require_model()
        return [self._words_of(sentence, place) for place, sentence in enumerate(sentences)]

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
        self._path, self._options = path, options
        self._take_over(read_model(path, options, softmax=False))

    @classmethod
    def from_pretrained(cls, model: str, options_url: str | None = None) -> ElmoEmbedder:
        """Load the model in this package, or a published one, downloading it on first use.

        Args:
            model: "en-tiny", which needs no download; "small", "medium", "original",
                "original-5.5b", or the address of a `.zip`, `.hdf5` or `.h5` file.
            options_url: address of the `options.json` of a weight file that has none inside.

        Raises:
            DownloadError: it cannot be had; the message says what to fetch and where to put it.
        """
        from elmolib.pretrained import fetch

        return cls(fetch(model, options_url))

    def _require_language_model(self) -> Vocabulary:
        """Read the softmax too, which embedding does without, and return its words."""
        if self._bilm.softmax_W is None:
            stored = read_model(self._path, self._options)
            self._refuse_another(stored)
            if "softmax/W" in stored.arrays:
                state = self._encoder.state
                self._take_over(stored)
                self._encoder.state = state
        return super()._require_language_model()

    def _refuse_another(self, stored: StoredModel) -> None:
        for name, variable in self._bilm.named_variables().items():
            if not np.array_equal(stored.arrays[name], variable.value):
                raise WeightsError(
                    f"{stored.source} has changed since it was read: make the embedder again."
                )


_POOLING: dict[str, Callable] = {"mean": np.mean, "max": np.max}


def _one_layer(layers: str | int, method: str) -> str | int:
    if isinstance(layers, str) and layers == "all":
        raise ParameterError(f"{method} takes one layer: 'average', 'top' or a number.")
    return layers


def _position_of(word: str | int, sentence: list[str]) -> int:
    """Find a word of a sentence, where it comes first, or check a position."""
    if word in (sentence if isinstance(word, str) else range(len(sentence))):
        return sentence.index(word) if isinstance(word, str) else int(word)
    raise ParameterError(f"{word!r} is no word or position of the sentence {' '.join(sentence)!r}.")


def _require_count(number: int, name: str) -> None:
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise ParameterError(f"{name} must be a whole number of at least 1, not {number!r}.")


def _from_here(path: str | Path, but_not: str = "") -> str:
    """Resolve what a caller typed from the working directory, as callers expect."""
    return but_not if str(path) == but_not else str(Path(path).expanduser().absolute())
