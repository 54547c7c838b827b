"""Train ELMo on your own text, evaluate it, and compute and explore its vectors.

The names below are imported on first use, so `import elmolib` is fast and loads no large library
such as TensorFlow.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from elmolib.backend import is_notebook, show_messages, silence_tensorflow
from elmolib.errors import needs_extras

if TYPE_CHECKING:
    from elmolib.corpus.prepare import prepare_corpus as prepare_corpus
    from elmolib.elmo import ELMo as ELMo
    from elmolib.embedder import ElmoEmbedder as ElmoEmbedder
    from elmolib.embedding.keras_layer import ElmoEmbedding as ElmoEmbedding
    from elmolib.integrations.scikit_learn import ElmoVectorizer as ElmoVectorizer
    from elmolib.live.watch import watch as watch
    from elmolib.scoring.perplexity import perplexity as perplexity
    from elmolib.settings.parameters import Parameters as Parameters
    from elmolib.training.loop import Training as Training

__version__ = "0.2.0"

_HOME = {
    "ELMo": "elmo",
    "ElmoEmbedder": "embedder",
    "ElmoEmbedding": "embedding.keras_layer",
    "ElmoVectorizer": "integrations.scikit_learn",
    "Parameters": "settings.parameters",
    "Training": "training.loop",
    "perplexity": "scoring.perplexity",
    "prepare_corpus": "corpus.prepare",
    "watch": "live.watch",
}

if is_notebook():
    show_messages()

if not TYPE_CHECKING:  # type checkers use the imports above; at run time, names load on first use
    __all__ = sorted([*_HOME, "__version__"])

    def __getattr__(name: str) -> object:
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        with silence_tensorflow(), needs_extras():
            value = getattr(import_module(f"elmolib.{_HOME[name]}"), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return __all__
