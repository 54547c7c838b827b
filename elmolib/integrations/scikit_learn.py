"""A scikit-learn transformer that turns texts into vectors."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from elmolib.embedder import ElmoEmbedder
from elmolib.embedding.sentences import Sentence
from elmolib.errors import ParameterError


class ElmoVectorizer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """A pipeline step that computes a vector for each text with `ElmoEmbedder.embed_sentences`.

    Args:
        model: an `ElmoEmbedder`, or the name, URL or path of a model.
        layers: "average", "top" or a layer number.
        pooling: "mean" over the words, or "max" per feature.

    Attributes:
        embedder_: the embedder. `fit` loads the embedder, and learns nothing from the texts.

    Example:
        ```python
        classifier = make_pipeline(ElmoVectorizer("en-tiny"), LogisticRegression())
        cross_val_score(classifier, texts, labels)
        ```
    """

    def __init__(
        self,
        model: str | Path | ElmoEmbedder = "en-tiny",
        layers: str | int = "average",
        pooling: Literal["mean", "max"] = "mean",
    ) -> None:
        self.model = model
        self.layers = layers
        self.pooling = pooling

    def fit(self, X: Iterable[Sentence], y: Any = None) -> Self:
        """Load the model. This raises the same errors as `ElmoEmbedder` and `embed_sentences`."""
        given = self.model
        self.embedder_ = given if isinstance(given, ElmoEmbedder) else ElmoEmbedder(given)
        self._n_features_out = self.embedder_.dim
        self.transform([])  # checks the arguments
        return self

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.string, tags.input_tags.two_d_array = True, False
        return tags

    def transform(self, X: Iterable[Sentence]) -> NDArray[np.float32]:
        """Return the vectors of texts (strings or lists of words), float32 (texts, features)."""
        check_is_fitted(self)
        if isinstance(X, str):
            raise ParameterError(f"X must be a list of texts, such as [{X!r:.40}].")
        words = [self.embedder_.words(each) if isinstance(each, str) else each for each in X]
        return self.embedder_.embed_sentences(words, self.layers, self.pooling)
