"""Train word2vec on the text of a biLM, as a baseline for contextual vectors."""

import warnings
from collections.abc import Iterable, Sequence
from itertools import accumulate, takewhile
from pathlib import Path

from elmolib.errors import CorpusError, needs_extras
from elmolib.files import atomic_write, write_errors

with needs_extras():
    from gensim.models import KeyedVectors, Word2Vec
    from gensim.utils import ClippedCorpus

MIN_COUNT, MAX_EPOCHS = 2, 20


def word2vec(
    sentences: Iterable[Sequence[str]],
    cache: Path | None = None,
    dim: int = 100,
    words_to_read: int = 2**23,  # takes about half a minute
    seed: int = 1,
    threads: int = 1,
) -> KeyedVectors:
    """Train a word2vec skip-gram model (Mikolov et al. 2013, arXiv:1310.4546), or read the cache.

    Return the vectors of all words that occur at least `MIN_COUNT` times, float32 of length `dim`.
    With one thread, the same text and seed give the same vectors.

    Args:
        sentences: the words of each sentence; they are read several times.
        cache: the file for the vectors, in the binary format of word2vec.
        words_to_read: the maximum number of tokens to read in all epochs together. A longer text is
            read once, up to this limit. A shorter text is read at most `MAX_EPOCHS` times.

    Raises:
        CorpusError: the cache is damaged. If it cannot be written, there is only a warning.
    """
    if cache is not None and cache.exists():
        try:
            return KeyedVectors.load_word2vec_format(str(cache), binary=True)
        except (OSError, EOFError, ValueError, UnicodeDecodeError):
            raise CorpusError(f"{cache} is damaged: delete it, and run this again.") from None
    model = Word2Vec(vector_size=dim, min_count=MIN_COUNT, sg=1, seed=seed, workers=threads)
    ends = takewhile(lambda end: end < words_to_read, accumulate(map(len, sentences)))
    beginning = ClippedCorpus(sentences, 1 + sum(1 for _ in ends))
    model.build_vocab(beginning)
    if len(model.wv):
        n_words = model.corpus_total_words
        epochs = max(1, min(MAX_EPOCHS, words_to_read // n_words))
        model.train(beginning, total_words=n_words, epochs=epochs)
    # In the file format, a space ends each word, so words with spaces cannot be stored.
    if cache is not None and not any(" " in word for word in model.wv.key_to_index):
        advice = "word2vec is trained again next time"
        try:
            with write_errors(cache, CorpusError, advice), atomic_write(cache) as unfinished:
                model.wv.save_word2vec_format(str(unfinished), binary=True)
        except CorpusError as problem:
            warnings.warn(str(problem), stacklevel=2)
    return model.wv
