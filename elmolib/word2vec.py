"""Word2vec's neighbours of a word: the same whatever the sentence, to set beside ELMo's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from gensim.models import KeyedVectors, Word2Vec

from elmolib.errors import CorpusError
from elmolib.files import replacing

DIM = 100
MIN_COUNT = 2
WORDS_TO_READ = 2**23
"""Words read over all epochs, so that even a large text takes no more than half a minute or so."""
MOST_EPOCHS = 20


def word2vec_neighbours(vectors: KeyedVectors, word: str, n: int) -> list[tuple[str, float]]:
    """Name the words most like a word wherever they stand.

    Args:
        vectors: as `word2vec` gives them.
        word: the word.
        n: how many to name.

    Returns:
        pairs of a word and its cosine, by falling similarity; none for a word that was too rare.
    """
    return vectors.most_similar(word, topn=n) if word in vectors else []


def word2vec(
    sentences: Iterable[Sequence[str]],
    cache: Path | None = None,
    dim: int = DIM,
    words_to_read: int = WORDS_TO_READ,
    seed: int = 1,
    threads: int = 1,
) -> KeyedVectors:
    """Train word2vec's skip-gram on a text, or find it trained.

    The same text always gives the same vectors, unless several threads learn from it at once.

    Args:
        sentences: the words of each; gone through several times.
        cache: file to keep the vectors in, in word2vec's own binary format, or to find them.
        dim: length of a vector.
        words_to_read: over all epochs, of which there are `MOST_EPOCHS` at most. Of a text of more
            words only the beginning is read.
        seed: of the first vectors and of what is drawn.
        threads: how many learn side by side.

    Returns:
        KeyedVectors: float32 vectors of all words that stand there twice.

    Raises:
        CorpusError: the cache is damaged.

    References:
        Mikolov et al. 2013, arXiv:1310.4546.
    """
    if cache is not None and cache.exists():
        return _read(cache)
    model = Word2Vec(vector_size=dim, min_count=MIN_COUNT, sg=1, seed=seed, workers=threads)
    beginning = _Beginning(sentences, words_to_read)
    model.build_vocab(beginning)
    if len(model.wv):
        n_words = model.corpus_total_words
        epochs = max(1, min(MOST_EPOCHS, words_to_read // n_words))
        model.train(beginning, total_words=n_words, epochs=epochs)
    if cache is not None:
        with replacing(cache) as unfinished:
            model.wv.save_word2vec_format(str(unfinished), binary=True)
    return model.wv


class _Beginning:
    """The first sentences of a text, as often as they are asked for."""

    def __init__(self, sentences: Iterable[Sequence[str]], n_words: int) -> None:
        self._sentences = sentences
        self._n_words = n_words

    def __iter__(self) -> Iterator[Sequence[str]]:
        left = self._n_words
        for sentence in self._sentences:
            if left <= 0:
                return
            left -= len(sentence)
            yield sentence


def _read(cache: Path) -> KeyedVectors:
    try:
        return KeyedVectors.load_word2vec_format(str(cache), binary=True)
    except (OSError, EOFError, ValueError, UnicodeDecodeError):
        raise CorpusError(f"{cache} is damaged: delete it to have it made again.") from None
