"""A program that uses every public name. Type checkers read it; it is never run."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Literal, assert_type

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from elmolib import (
    ELMo,
    ElmoEmbedder,
    ElmoEmbedding,
    ElmoVectorizer,
    Parameters,
    Training,
    __version__,
    perplexity,
    prepare_corpus,
    watch,
)
from elmolib.corpus.prepared import PreparedCorpus
from elmolib.embedding.encoder import SentenceEncoder
from elmolib.explore.neighbours import Nearest
from elmolib.scoring.perplexity import Perplexity
from elmolib.scoring.prediction import LogProbability, Prediction

Vectors = NDArray[np.float32]

version: str = __version__


def embed(embedder: ElmoEmbedder, words: list[list[str]], dtype: Literal["float16"]) -> None:
    assert_type(embedder.embed("A river ."), Vectors)
    assert_type(embedder.embed("A river .", layers=2, normalize=True), Vectors)
    assert_type(embedder.embed(["A river .", ["a", "bank"]]), list[Vectors])
    assert_type(embedder.embed(words, "top", 16, carry_state=True), list[Vectors])
    assert_type(embedder.embed(line for line in ("one", "two")), list[Vectors])
    assert_type(embedder.get_elmo("A river ."), list[Vectors])
    assert_type(embedder.embed_sentences(words, pooling="max"), Vectors)
    assert_type(embedder.similarity("a", ["b"], words=("a", 0)), float)
    assert_type(embedder.predict("a b", top_k=3), Prediction)
    assert_type(embedder.predict("a b").forward.words, list[list[str]])
    assert_type(embedder.sentence_log_prob("a b"), LogProbability)
    assert_type(embedder.nearest("b", "a b", "vectors.h5", k=3), Nearest)
    assert_type(embedder.nearest(1, ["a", "b"], ["c d"]).in_context[0].similarity, float)
    assert_type(embedder.embed_corpus("text.txt", Path("vectors.h5"), dtype=dtype), Path)
    assert_type(embedder.to_projector("projector", words), tuple[Path, Path])
    assert_type(embedder.words("A river ."), list[str])
    assert_type(embedder.encoder, SentenceEncoder)
    assert_type(embedder.n_layers, int)
    assert_type(embedder.heatmap("a b", layer=0, other="c d"), Figure)
    assert_type(embedder.dim, int)
    assert_type(len(embedder), int)
    assert_type(copy.deepcopy(embedder), ElmoEmbedder)
    embedder.to_frame("a b", layers="all")
    embedder.reset_state()


def vectorize(embedder: ElmoEmbedder) -> Vectors:
    vectorizer = ElmoVectorizer("en-tiny", layers=2, pooling="max")
    assert_type(vectorizer.fit(["a b"]), ElmoVectorizer)
    assert_type(ElmoVectorizer(embedder).transform([["a"], "b"]), Vectors)
    return vectorizer.transform(["a b"])


def train_in_memory() -> ELMo:
    ELMo(word2idx={"a": 0}, params=Path("tiny.yaml"), sentences=["a b", ["c"]])
    return ELMo([["a", "b"], ["c"]], epochs=2, run_dir="runs/mine")


def train() -> ELMo:
    elmo = ELMo(["a.txt", Path("b.txt")], params="params/tiny.yaml", pretrained="small")
    elmo.train()
    elmo.save_elmo_weights("elmo.h5")
    elmo.load_pretrained_elmo(Path("elmo.h5"))
    assert_type(elmo.parameters, Parameters)
    assert_type(elmo.embed("A river ."), Vectors)
    assert_type(ELMo.from_pretrained("small"), ElmoEmbedder)
    embed(elmo, [["a"]], "float16")
    return elmo


def in_steps(parameters: Parameters) -> Perplexity:
    assert_type(Parameters.from_yaml("params/tiny.yaml", epochs=3), Parameters)
    assert_type(parameters.lstm_dim, int)
    corpus = prepare_corpus(parameters)
    assert_type(corpus, PreparedCorpus)
    assert_type(Training(parameters, corpus).run([]), Path)
    watch(Path("runs/tiny"))
    score = perplexity("elmo.h5", "text.txt")
    assert_type(score.forward, float)
    return score


def as_layer() -> ElmoEmbedding:
    layer = ElmoEmbedding.from_model("elmo.h5", l2=0.001)
    assert_type(layer, ElmoEmbedding)
    return layer
