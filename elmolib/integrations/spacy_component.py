"""The spaCy component `elmo`, which gives each document the vectors of its tokens."""

# `from __future__ import annotations` would hide the argument types that spaCy reads.
from collections.abc import Iterable, Iterator

import numpy as np
from spacy.language import Language
from spacy.tokens import Doc
from spacy.util import minibatch

from elmolib.embedder import ElmoEmbedder


class ElmoComponent:
    """Set `doc._.elmo` to the vectors of a document's tokens, float32 (tokens, features).

    With layers "all", the shape is (layers, tokens, features). spaCy splits the text into tokens.
    If an earlier component finds sentences, each sentence is read on its own; otherwise, the
    document is read as one sentence. White-space tokens are not read; their vectors are zeros.

    Args:
        model: the name, URL or path of a model, as in `ElmoEmbedder`.
        layers: "all", "average", "top" or a layer number.

    Example:
        ```python
        nlp = spacy.load("en_core_web_sm")
        nlp.add_pipe("elmo", config={"model": "en-tiny", "layers": "top"})
        nlp("The river bank was steep.")._.elmo.shape  # (6, 128)
        ```
    """

    def __init__(self, model: str, layers: str | int) -> None:
        self.embedder = ElmoEmbedder(model)
        self._pick = self.embedder.encoder.picker(layers)
        if not Doc.has_extension("elmo"):
            Doc.set_extension("elmo", default=None)

    def __call__(self, doc: Doc) -> Doc:
        return next(self.pipe([doc]))

    def pipe(self, stream: Iterable[Doc], batch_size: int = 128) -> Iterator[Doc]:
        """Set the vectors of many documents, `batch_size` documents at a time."""
        for docs in minibatch(stream, batch_size):
            spans = [doc.sents if doc.has_annotation("SENT_START") else [doc[:]] for doc in docs]
            tokens = [[[t for t in span if not t.is_space] for span in each] for each in spans]
            clean = self.embedder.tokenizer.clean_word
            words = [[clean(token.text) for token in span] for each in tokens for span in each]
            vectors = iter(self.embedder.encoder.encode(words))
            for doc, each in zip(docs, tokens, strict=True):
                layers = np.zeros((len(self.embedder), len(doc), self.embedder.dim), np.float32)
                for span in each:
                    layers[:, [token.i for token in span]] = next(vectors)
                doc._.elmo = self._pick(layers)
                yield doc


@Language.factory("elmo", default_config={"model": "en-tiny", "layers": "average"})
def make_component(nlp: Language, name: str, model: str, layers: str | int) -> ElmoComponent:
    return ElmoComponent(model, layers)
