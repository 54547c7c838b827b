"""ElmoEmbedder: load a trained ELMo and embed text with it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

import numpy as np
from numpy.typing import NDArray

from elmolib.embedding.cosine import unit_length
from elmolib.embedding.encoder import SentenceEncoder
from elmolib.embedding.sentences import Sentence, one_layer, position_of, require_count, words_of
from elmolib.errors import ParameterError, needs_extras
from elmolib.scoring.loaded_model import LoadedModel, OptionsSource

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from elmolib.explore.neighbours import Nearest
    from elmolib.scoring.prediction import LogProbability, Prediction

Vectors = NDArray[np.float32]


class ElmoEmbedder(LoadedModel):
    """A trained ELMo for inference: it loads a model and computes vectors.

    In all methods, a sentence is a string, which the model's tokenizer splits, or a list of words
    without white space. `layers` is "average" (of all layers), "top", a layer number or, if a task
    has trained the model, "mix". Layer 0 is the character CNN. `embed` and `embed_corpus` also
    accept "all". `batch_size` is the number of sentences per batch. None means the best number for
    the runtime, or 32 with carried state. `ELMo` raises an `ElmolibError` while it has no model.

    Args:
        path: an `elmo.h5`; any other form of an ELMo that `read_model` describes; or a name or URL
            that `from_pretrained` accepts.
        options: an `options.json` or its parsed content, for weights without options.
        runtime: the library that computes: "numpy", "onnx", "tensorflow", "jax" or "torch". Their
            vectors agree within 1e-5. "auto" is ONNX Runtime if it is installed, else NumPy.
        precision: the dtype of the matrix products: "float32", or "int8", which is faster and less
            exact. "int8" needs ONNX Runtime and a processor with VNNI or ARM's dot product.
        calibrate: for "int8", a few hundred sentences. They give the ranges of values, which are
            stored beside the model. None means the stored ranges, or the text in the model's file.

    Raises:
        ParameterError: the runtime is unknown or not installed; the runtime or the processor does
            not support this precision; or "int8" needs `calibrate`.
        WeightsError: the file is missing, damaged, not a model, or contradicts its options.
        OptionsError: the options are malformed.

    Example:
        >>> embedder = ElmoEmbedder("elmo.h5")
        >>> [v.shape for v in embedder.embed(["First sentence .", "Second one ."])]
        [(3, 128), (3, 128)]

    References:
        Peters et al. 2018, arXiv:1802.05365, section 3.2.
    """

    def __init__(
        self,
        path: str | Path,
        options: OptionsSource | None = None,
        runtime: str = "auto",
        precision: str = "float32",
        calibrate: Iterable[Sentence] | None = None,
    ) -> None:
        self._read(path, options, runtime, precision, calibrate)

    @staticmethod
    def from_pretrained(
        model: str,
        options_url: str | None = None,
        runtime: str = "auto",
        precision: str = "float32",
        calibrate: Iterable[Sentence] | None = None,
    ) -> ElmoEmbedder:
        """Load the model that comes with this package, or download a published one to the cache.

        Args:
            model: "en-tiny", which needs no download; "small", "medium", "original",
                "original-5.5b"; "many-langs/ro" or one of 43 other languages of ELMoForManyLangs;
                or the URL of a `.zip`, `.tar.gz`, `.hdf5` or `.h5` file.
            options_url: the URL of `options.json`, for a weight file without its options.
            runtime, precision, calibrate: as in `ElmoEmbedder`.

        Raises:
            DownloadError: the model cannot be downloaded; the message says how to do it by hand.
        """
        from elmolib.formats.published import fetch

        path = fetch(model, options_url)
        return ElmoEmbedder(path if options_url else model, None, runtime, precision, calibrate)

    def words(self, sentence: Sentence) -> list[str]:
        """Return the words as the model reads them: split a string, or clean a list of words."""
        return self._words([sentence])[0]

    def get_elmo(self, sentence: Sentence) -> list[Vectors]:
        """Return the vectors of a sentence as a list of arrays (words, features), one per layer."""
        return list(self.embed([sentence], layers="all")[0])

    @needs_extras()
    def to_frame(self, sentence: Sentence, layers: str | int = "all") -> pd.DataFrame:
        """Return the vectors of one sentence as a table: a row per word, a column per feature.

        With "all", the columns are pairs of layer and feature, so `frame[2]` is layer 2.
        """
        import pandas as pd

        words = self.words(sentence)
        (vectors,) = self.embed([words], layers)
        columns: pd.Index = pd.RangeIndex(self.dim, name="feature")
        if vectors.ndim == 3:
            ranges = range(len(self)), range(self.dim)
            columns = pd.MultiIndex.from_product(ranges, names=["layer", "feature"])
            vectors = vectors.transpose(1, 0, 2).reshape(len(words), len(columns))
        return pd.DataFrame(vectors, pd.Index(words, name="word"), columns)

    @overload
    def embed(  # type: ignore[overload-overlap]
        self,
        sentences: str,
        layers: str | int = ...,
        batch_size: int | None = ...,
        carry_state: bool = ...,
        normalize: bool = ...,
    ) -> Vectors: ...

    @overload
    def embed(
        self,
        sentences: Iterable[Sentence],
        layers: str | int = ...,
        batch_size: int | None = ...,
        carry_state: bool = ...,
        normalize: bool = ...,
    ) -> list[Vectors]: ...

    def embed(
        self,
        sentences: str | Iterable[Sentence],
        layers: str | int = "average",
        batch_size: int | None = None,
        carry_state: bool = False,
        normalize: bool = False,
    ) -> Vectors | list[Vectors]:
        """Embed one sentence, given as a string, or several sentences.

        Args:
            carry_state: start each sentence from the final LSTM state of the previous sentence in
                the same row of the batch; see `reset_state`. If False, each sentence starts from a
                zero state, and its vectors do not depend on its batch.
            normalize: scale every vector to Euclidean length 1.

        Returns:
            a float32 array `(n_words, 2 * projection_dim)`, or with "all" an array
            `(n_layers + 1, n_words, 2 * projection_dim)`. The first half of a vector is from the
            forward direction. Several sentences give a list of such arrays, in the same order.
        """
        pick = self.encoder.picker(layers)
        words = self._words(sentences, several=True)
        vectors = [np.empty(0, np.float32)] * len(words)
        encoded = self._encoder.encode_each(words, batch_size, carry_state=carry_state)
        for place, all_layers in encoded:
            picked = pick(all_layers)
            vectors[place] = unit_length(picked) if normalize else picked
        return vectors[0] if isinstance(sentences, str) else vectors

    def remember(self, words: Iterable[str]) -> None:
        """Store the context-free vectors of words beside the model, for all later embedders.

        The words, such as a text's 20,000 most frequent words, replace the words stored before.
        """
        from elmolib.embedding.words import remember

        runtime = self.encoder.runtime
        model = replace(self._require_model(), arrays=runtime.arrays())
        remembered = remember(model, self.words(list(words)))
        self._encoder = SentenceEncoder(runtime, remembered=remembered)

    def embed_sentences(
        self,
        sentences: str | Iterable[Sentence],
        layers: str | int = "average",
        pooling: Literal["mean", "max"] = "mean",
        batch_size: int | None = None,
        normalize: bool = False,
    ) -> Vectors:
        """Compute one vector per sentence: the mean of its word vectors, or their maximum.

        Args:
            pooling: "mean" over the words, or "max" per feature.
            normalize: as in `embed`.

        Returns:
            a float32 array `(n_sentences, 2 * projection_dim)`, or `(2 * projection_dim,)` if
            `sentences` is a string. The vector of a sentence without words is zero.
        """
        if pooling not in ("mean", "max"):
            raise ParameterError(f"pooling must be 'mean' or 'max', not {pooling!r}.")
        one_layer(layers, "embed_sentences")
        pool = np.mean if pooling == "mean" else np.max
        pick = self.encoder.picker(layers)
        words = self._words(sentences, several=True)
        vectors = np.zeros((len(words), self.dim), np.float32)
        for place, all_layers in self._encoder.encode_each(words, batch_size):
            if words[place]:
                vectors[place] = pool(pick(all_layers), axis=0)
        vectors = unit_length(vectors) if normalize else vectors
        return vectors[0] if isinstance(sentences, str) else vectors

    def similarity(
        self,
        a: Sentence,
        b: Sentence,
        words: tuple[str | int, str | int] | None = None,
        layers: str | int = "average",
    ) -> float:
        """Compute the cosine similarity (-1 to 1) of two sentences, or of one word in each.

        Args:
            words: a word of `a` and a word of `b`, such as `("bank", "bank")`, or their positions,
                counted from 0. None compares the mean vectors of all words.
        """
        one_layer(layers, "similarity")
        sentences = self._words([a, b])
        if words is None:
            for name, sentence in zip("ab", sentences, strict=True):
                if not sentence:
                    raise ParameterError(f"sentence {name} has no words to compare: add a word.")
            pair = self.embed_sentences(sentences, layers)
        else:
            places = map(position_of, words, sentences, [self.tokenizer] * 2)
            vectors = self.embed(sentences, layers)
            pair = np.stack([v[place] for v, place in zip(vectors, places, strict=True)])
        first, second = unit_length(pair)
        return float(first @ second)

    def predict(self, sentence: Sentence, top_k: int = 10) -> Prediction:
        """Predict the most likely words at each position, and substitutes for each word.

        Returns:
            the `top_k` most probable words of the forward model (from the words before), of the
            backward model (from the words after) and of both together (substitutes). `print` shows
            the first choices; `.table()` shows all of them.

        Raises:
            WeightsError: the model's file has no softmax with a vocabulary.
        """
        from elmolib.scoring.prediction import predict

        require_count(top_k, "top_k")
        words = self._words([sentence])
        return predict(self._encoder, self._require_softmax(), words, top_k)[0]

    def sentence_log_prob(self, sentence: Sentence) -> LogProbability:
        """Return the log probability (nats) of a sentence and its end; see `predict` for errors."""
        from elmolib.scoring.prediction import log_probability

        words = self.words(sentence)
        return log_probability(self._encoder, self._require_softmax(), words)

    def nearest(
        self,
        word: str | int,
        sentence: Sentence,
        corpus: str | Path | Iterable[Sentence],
        k: int = 10,
        layers: str | int = "top",
    ) -> Nearest:
        """Find the nearest neighbours of a word, in its context and by word2vec.

        Args:
            word: a word of `sentence`, or its position, counted from 0.
            corpus: the sentences to search in: a list, or a file that `embed_corpus` made with the
                same model and with the same `layers` or "all". On first use, word2vec is trained on
                the text of the file and saved next to the file.

        Returns:
            the `k` nearest words with similarity, sentence and position, and, if gensim is
            installed, the neighbours by word2vec, which ignores the sentence. `print` shows both.

        Raises:
            CorpusError: the file is damaged, or was made with another model or other layers.
        """
        from elmolib.embedding.vector_file import EmbeddedCorpus
        from elmolib.explore.neighbours import context_neighbours, embedded_lines, word2vec_or_none

        require_count(k, "k")
        one_layer(layers, "nearest")
        words = self.words(sentence)
        asked = [(position_of(word, words, self.tokenizer), words)]
        if isinstance(corpus, str | Path):
            embedded = EmbeddedCorpus(corpus)
            lines = embedded.lines_by(self._encoder, layers)
            sentences, cache = embedded.sentences(), embedded.cache_path("word2vec.bin")
        else:
            sentences, cache = self._words(corpus), None
            lines = embedded_lines(self._encoder, sentences, layers)
        vectors = word2vec_or_none(sentences, cache)
        return context_neighbours(self._encoder, asked, lines, vectors, k, layers)[0]

    def to_projector(
        self, path: str | Path, sentences: Iterable[Sentence], layers: str | int = "top"
    ) -> tuple[Path, Path]:
        """Export the vectors of all words of some sentences for https://projector.tensorflow.org.

        Returns:
            the paths of `vectors.tsv` and `metadata.tsv` in the folder `path`; load both files on
            that page.
        """
        from elmolib.explore.projector import write_projector

        one_layer(layers, "to_projector")
        words = self._words(sentences)
        vectors = self.embed(words, layers)
        return write_projector(path, zip(words, vectors, strict=True))

    def embed_corpus(
        self,
        path: str | Path,
        out: str | Path,
        layers: str | int = "average",
        dtype: Literal["float32", "float16"] = "float32",
        batch_size: int | None = None,
        progress: bool = True,
    ) -> Path:
        """Embed every line of a text file. After an interruption, repeat the call to resume.

        Args:
            path: a UTF-8 text file, plain or `.gz`; each line is one sentence.
            out: the HDF5 file to write. Until it is complete, it is named `<out>.part`.
            dtype: the dtype of the vectors; float16 halves the size of the file.
            progress: print the size and, in an interactive session, show a progress bar.

        Returns:
            `out`, a file with the layout of AllenNLP's command `elmo`. The datasets `"0"`, `"1"`,
            ... are the vectors of the lines. The keys of the JSON object `sentence_to_index` are
            the words of a line, separated by spaces. `elmolib.embedding.vector_file` reads `out`.

        Raises:
            TextError: the text is unreadable, changes meanwhile, or has a line too long for memory.
            CorpusError: `out` was made from another text or model, another process is writing it,
                the disk is too small, or a vector does not fit into float16.
        """
        from elmolib.embedding.embed_corpus import embed_corpus

        rest = layers, dtype, batch_size, progress
        return embed_corpus(self.encoder, self.tokenizer, Path(path), Path(out), *rest)

    def reset_state(self) -> None:
        """Set to zero the LSTM state that `embed(..., carry_state=True)` carries over."""
        self.encoder.reset_state()

    def heatmap(
        self,
        sentence: Sentence,
        layer: str | int = "top",
        other: Sentence | None = None,
        ax: Axes | None = None,
    ) -> Figure:
        """Draw the cosine similarities of a sentence's words, or of the words of two sentences.

        Args:
            sentence: the sentence of the rows.
            layer: "average", "top" or a layer number.
            other: the sentence of the columns; None means the same sentence.
            ax: the axes to draw into; None makes a new figure.

        Returns:
            the figure. A notebook shows it if the call is the last line of a cell.
        """
        from elmolib import plots

        one_layer(layer, "heatmap")
        words = self._words([sentence] if other is None else [sentence, other])
        vectors = self.embed(words, layers=layer)
        columns = () if other is None else (words[1], vectors[1])
        return plots.heatmap(words[0], vectors[0], *columns, ax=ax, title=self.heatmap_title(layer))

    def heatmap_title(self, layer: str | int) -> str:
        """Return the title of a heatmap of this layer."""
        from elmolib.plots import layer_name

        return layer_name(layer)

    def _words(self, sentences: str | Iterable[Sentence], several: bool = False) -> list[list[str]]:
        return words_of(sentences, self.tokenizer, several)
