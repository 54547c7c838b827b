"""Check the arguments of an embedder: sentences, words, layers and counts."""

import re
import warnings
from collections.abc import Iterable, Sequence

from elmolib.errors import ParameterError
from elmolib.text.lines import count_marks, warn_of_marks
from elmolib.text.tokenizer import Tokenizer

Sentence = str | Sequence[str]

_SPACE, _TAB = re.compile(r"\s"), re.compile(r"[\t\n\r]")


def words_of(
    sentences: str | Iterable[Sentence], tokenizer: Tokenizer, several: bool = False
) -> list[list[str]]:
    """Return the words of each sentence: a string is split, the words of a list are cleaned.

    One string is one sentence. If `several` is true, warn when every sentence has only one word.
    """
    sentences = [sentences] if isinstance(sentences, str) else list(sentences)
    words = [words_in(sentence, place, tokenizer) for place, sentence in enumerate(sentences)]
    strings = [sentence for sentence in sentences if isinstance(sentence, str)]
    warn_of_marks(count_marks(strings), "The sentences")
    are_strings = len(strings) == len(words)
    if several and are_strings and len(words) > 1 and all(len(each) == 1 for each in words):
        warnings.warn(
            f"Each of the {len(words):,} sentences is a single word: if they are the words of one "
            "sentence, give this sentence as one string, or as a list in a list.",
            stacklevel=4,
        )
    return words


def words_in(sentence: Sentence, place: int, tokenizer: Tokenizer) -> list[str]:
    """Return the words of one sentence; `place` is the sentence's number in error messages."""
    if isinstance(sentence, str):
        return tokenizer.words(sentence)
    if isinstance(sentence, Iterable) and not isinstance(sentence, bytes):
        words = list(sentence)
        if all(isinstance(word, str) for word in words):
            space = _TAB if tokenizer.tokenized == "tabs" else _SPACE
            if space.search("x".join(words)):
                word = next(filter(space.search, words))
                raise ParameterError(
                    f"sentence {place} is a list, so its items are words, but {word!r:.40} holds "
                    "white space: give a sentence as a string, or pass several sentences to embed."
                )
            return list(map(tokenizer.clean_word, words))
    raise ParameterError(
        f"sentence {place} must be a string or a list of words, not {sentence!r:.60}."
    )


def position_of(word: str | int, sentence: list[str], tokenizer: Tokenizer | None = None) -> int:
    """Return the first position of a word in a sentence. If given a position, check it."""
    if isinstance(word, str) and tokenizer is not None:
        word = tokenizer.clean_word(word)
    if word in (sentence if isinstance(word, str) else range(len(sentence))):
        return sentence.index(word) if isinstance(word, str) else int(word)
    raise ParameterError(
        f"{word!r} is not a word or position of the sentence {' '.join(sentence)!r}: choose one."
    )


def one_layer(layers: str | int, method: str) -> None:
    """Refuse the value "all" of `layers`."""
    if isinstance(layers, str) and layers == "all":
        raise ParameterError(f"{method} needs a single layer: 'average', 'top' or a number.")


def require_count(number: int, name: str) -> None:
    """Refuse anything but a whole number above 0."""
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise ParameterError(f"{name} must be a whole number of at least 1, not {number!r}.")
