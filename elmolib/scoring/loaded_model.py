"""A model in memory, as a Python object that can be described, copied and pickled."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from elmolib.embedding.encoder import SentenceEncoder
from elmolib.embedding.runtimes import make_runtime
from elmolib.embedding.words import remembered
from elmolib.errors import ElmolibError, WeightsError
from elmolib.formats.names import SOFTMAX
from elmolib.formats.published import is_published
from elmolib.formats.readers import OptionsSource, read_model, read_softmax
from elmolib.formats.weights import StoredModel
from elmolib.scoring.softmax import Softmax
from elmolib.text.tokenizer import Tokenizer


class LoadedModel:
    """A stored model with the encoder that computes its vectors.

    Copies share the weights. A pickle holds the path or name of the model, its options and a hash,
    but no weights; unpickling fails if the model has changed. Carried state is never copied.
    """

    _stored: StoredModel | None = None
    _encoder: SentenceEncoder
    _softmax: Softmax | None = None
    _reads_softmax = False  # whether to read the softmax with the model, not on first use
    _source: tuple[str | Path, OptionsSource | None] = "", None
    _runtime: tuple[Any, ...] = ()

    @property
    def encoder(self) -> SentenceEncoder:
        """The encoder that computes the vectors. Pass it to functions that need an encoder."""
        self._require_model()
        return self._encoder

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the model. Its `clean_word` returns a word as the model reads it."""
        return self._require_model().tokenizer

    @property
    def n_layers(self) -> int:
        """The number of LSTM layers per direction, which is also the index of the top layer."""
        return self.encoder.architecture.n_layers

    @property
    def dim(self) -> int:
        """The number of features of a word's vector in each layer, `2 * projection_dim`."""
        return 2 * self.encoder.architecture.projection_dim

    @property
    def no_softmax(self) -> str:
        """The reason why the model cannot predict words, as text; empty if it can predict words."""
        return self._require_model().no_softmax()

    def __len__(self) -> int:
        """Return the number of layers, including layer 0."""
        return self.n_layers + 1

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        if self._stored is None:
            return f"{type(self).__name__}(without weights)"
        words = self._stored.vocabulary
        vocabulary = "" if words is None else f", vocabulary of {len(words):,} words"
        return (
            f"{type(self).__name__}({self._stored.source!r}, {len(self)} layers of {self.dim} "
            f"features{vocabulary}, {self._encoder.runtime.name})"
        )

    def __copy__(self) -> Self:
        twin = object.__new__(type(self))
        vars(twin).update(vars(self))
        if self._stored is not None:
            known = self._encoder.remembered
            twin._encoder = SentenceEncoder(self._encoder.runtime, remembered=known)
        return twin

    def __deepcopy__(self, _: dict) -> Self:
        return self.__copy__()

    def __getstate__(self) -> dict[str, Any]:
        left_out = ("_stored", "_encoder", "_softmax")
        state = {name: value for name, value in vars(self).items() if name not in left_out}
        is_loaded = self._stored is not None
        return state | {"sha256": self._encoder.runtime.fingerprint() if is_loaded else None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        expected = state.pop("sha256")
        vars(self).update(state)
        if expected is not None:
            self._read(*self._source, *self._runtime)
            if self._encoder.runtime.fingerprint() != expected:
                problem = f"{self._source[0]} is not the model that was pickled"
                raise WeightsError(f"{problem}: restore the old file, or create the object again.")

    def _read(self, path: str | Path, options: OptionsSource | None, *runtime: Any) -> None:
        self._load(read_model(path, options, softmax=self._reads_softmax), *runtime)
        # Make the path absolute, because other processes may have another working directory.
        is_name = isinstance(path, str) and is_published(path)
        absolute = path if is_name else Path(path).expanduser().absolute()
        is_file = isinstance(options, str | Path)
        self._source = absolute, Path(options).absolute() if is_file else options
        # Pickle the scales too, so that an unpickled object gives the same vectors everywhere.
        self._runtime = (*runtime[:2], self._encoder.runtime.scales)[: len(runtime)]

    def _load(self, stored: StoredModel, *runtime: Any) -> None:
        """Create the encoder with `make_runtime(stored, *runtime)`; keep the softmax in NumPy."""
        W, b = (stored.arrays.pop(name, None) for name in SOFTMAX)
        has_softmax = W is not None and stored.vocabulary is not None
        self._softmax = Softmax(stored.vocabulary, W, b) if has_softmax else None
        known = remembered(stored)
        self._encoder = SentenceEncoder(make_runtime(stored, *runtime), remembered=known)
        self._stored = replace(stored, arrays={})

    def _require_model(self) -> StoredModel:
        if self._stored is None:
            raise ElmolibError(
                "This ELMo has no weights yet: call train() or load_pretrained_elmo(path) first."
            )
        return self._stored

    def _require_softmax(self) -> Softmax:
        """Return the softmax, which the first call reads; raise a WeightsError if it cannot."""
        stored = self._require_model()
        if self._softmax is None:
            stored.require_softmax("it cannot predict words")
            again = read_softmax(*self._source)
            if again.stamp != stored.stamp:
                problem = f"{stored.source} has changed since it was loaded"
                raise WeightsError(f"{problem}: create the embedder again.")
            self._softmax = Softmax(again.vocabulary, *(again.arrays[name] for name in SOFTMAX))
        return self._softmax
