"""Train, score, embed with and look into ELMo, the bidirectional language model over characters.

The names below load their module on first use, so that `import elmolib` costs nothing and
TensorFlow starts only when a model is built.
"""

from __future__ import annotations

from importlib import import_module

from elmolib.quiet import quiet_start

__version__ = "0.1.0"

_HOME = {
    "BiLM": "bilm",
    "BiLMOptions": "options",
    "CharCNN": "layers.char_cnn",
    "DetailedMetrics": "callbacks",
    "ELMo": "elmo",
    "ElmoEmbedder": "elmo",
    "ElmoEmbedding": "layers.elmo_embedding",
    "ElmolibError": "errors",
    "EmbeddedCorpus": "corpus_embedding",
    "Highway": "layers.highway",
    "Parameters": "parameters",
    "PreparedCorpus": "corpus",
    "ProjectedLSTM": "layers.projected_lstm",
    "ScalarMix": "layers.scalar_mix",
    "TimestepDropout": "layers.timestep_dropout",
    "Training": "training",
    "Vocabulary": "vocabulary",
    "perplexity": "scoring",
    "prepare_corpus": "corpus",
    "project_root": "parameters",
    "read_model": "weights",
    "write_model": "weights",
}

__all__ = ["__version__", *_HOME]


# Modules that notebooks use whole.
_MODULES = ("evaluation", "overview", "plots")


def __getattr__(name: str) -> object:
    if name in _MODULES:
        with quiet_start():
            return import_module(f"elmolib.{name}")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with quiet_start():
        value = getattr(import_module(f"elmolib.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
