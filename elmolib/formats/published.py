"""Find models by name or URL: `en-tiny` in this package, or models to download into a cache."""

import difflib
import hashlib
import os
import re
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import unquote

from elmolib.backend import is_watched
from elmolib.errors import DownloadError, reason

KEEP_VOCABULARY = "pretrained"
"""The value of `vocabulary_file` that stands for the words of the pretrained model's softmax."""

SHIPPED = {"en-tiny": Path(__file__).parents[1] / "models" / "en-tiny.h5"}
"""Models inside this package; see docs/en-tiny.md."""

# Each model's name on the authors' server and, if known, its file's SHA-256 and size in bytes.
PUBLISHED: dict[str, tuple] = {
    "small": (
        "2x1024_128_2048cnn_1xhighway",
        "747ba97abce8a5f446558369e10bb0f7931437a46867476fdd156f5d7f576229",
        54_402_456,
    ),
    "medium": ("2x2048_256_2048cnn_1xhighway",),
    "original": ("2x4096_512_2048cnn_2xhighway",),
    "original-5.5b": ("2x4096_512_2048cnn_2xhighway_5.5B",),
}

_LANGUAGES = (
    "ar bg ca cs cu da de el en es et eu fa fi fr ga gl grc he hi hr hu "
    "id it ja ko la lv nl nb nn pl pt ro ru sk sl sv tr ug uk ur vi zh"
)
MANY_LANGS = {f"many-langs/{code}": 136 + k for k, code in enumerate(_LANGUAGES.split())}
"""The models of ELMoForManyLangs by language, and their numbers in the NLPL repository. They are
from the authors' table; no download of them has been tried."""

NAMES = (*SHIPPED, *PUBLISHED, "many-langs/CODE")

_BASE_URL = "https://s3-us-west-2.amazonaws.com/allennlp/models/elmo"
_NLPL_URL = "http://vectors.nlpl.eu/repository/11"
_SCHEMES = ("https://", "http://")
_SUFFIXES = (".zip", ".tar.gz", ".hdf5", ".h5")
_TEMPORARY = (408, 429, 500, 502, 503, 504)


def is_published(name: str) -> bool:
    """Whether a string is the name of a published model or a URL, not a path."""
    return name in {**SHIPPED, **PUBLISHED, **MANY_LANGS} or name.startswith(_SCHEMES)


def pretrained_path(name: str, base: Path) -> Path:
    """Return a model's path from its name, its URL (see `fetch`) or a path relative to `base`."""
    return fetch(name) if is_published(name) else base / Path(name).expanduser()


def fetch(model: str, options_url: str | None = None) -> Path:
    """Return the local path of a published model, downloading it if it is not in the cache.

    The cache is the folder `ELMOLIB_CACHE`, or `elmolib` in the user's cache folder. The arguments
    are those of `ElmoEmbedder.from_pretrained`. `read_model` can read the result.

    Raises:
        DownloadError: the model is unknown, or cannot be downloaded. The message says what to
            download by hand and where to put it.

    References:
        Peters et al. 2018, arXiv:1802.05365; AllenNLP documents the URLs.
    """
    if options_url is not None and model in (*NAMES, *MANY_LANGS):
        raise DownloadError(f"{model} has options of its own: leave out {options_url}.")
    if model in SHIPPED:
        return SHIPPED[model]
    import pooch

    files = _files_of(model, options_url)
    cache = pooch.create(
        pooch.os_cache("elmolib"),
        base_url="",
        env="ELMOLIB_CACHE",
        registry={file.name: file.sha256 for file in files},
        urls={file.name: file.url for file in files},
        retry_if_failed=3,
    )
    for number, file in enumerate(files):
        hooks = {"response": partial(_check_response, n_bytes=file.n_bytes)}
        downloader = pooch.HTTPDownloader(is_watched(), chunk_size=2**18, hooks=hooks)
        try:
            cache.fetch(file.name, processor=_make_readable, downloader=downloader)
        except (_Refused, OSError, ValueError) as error:
            by_hand = (f"{each.url} as {cache.abspath / each.name}" for each in files[number:])
            problem = f"{model} could not be downloaded ({_cause(error)})"
            advice = f"try again, or save {' and '.join(by_hand)}"
            raise DownloadError(f"{problem}: {advice}.") from None
    path = cache.abspath / files[-1].name
    return path if len(files) == 1 else path.parent


class _File(NamedTuple):
    """A file to download: its URL, its path in the cache and, if known, its checksum and size."""

    url: str
    name: str
    sha256: str | None = None
    n_bytes: int | None = None


def _files_of(model: str, options_url: str | None) -> list[_File]:
    """List the files of a model, the weights last."""
    if model in PUBLISHED:
        name, *known = PUBLISHED[model]
        url = f"{_BASE_URL}/{name}/elmo_{name}"
        weights = _File(f"{url}_weights.hdf5", f"{model}/elmo_{name}_weights.hdf5", *known)
        return [_File(f"{url}_options.json", f"{model}/options.json"), weights]
    if model in MANY_LANGS:
        number = MANY_LANGS[model]
        return [_File(f"{_NLPL_URL}/{number}.zip", f"{model}/{number}.zip")]
    name = PurePosixPath(unquote(re.split("[?#]", model)[0])).name
    if not model.startswith(_SCHEMES) or not name.endswith(_SUFFIXES):
        nearest = difflib.get_close_matches(model, (*NAMES, *MANY_LANGS), n=1)
        end = f": did you mean {nearest[0]!r}?" if nearest else "."
        kinds = f"one of {', '.join(NAMES)} nor the http(s) URL of a {', '.join(_SUFFIXES)} file"
        raise DownloadError(f"{model!r} is neither {kinds}{end}")
    if options_url is not None and not options_url.startswith(_SCHEMES):
        raise DownloadError(f"{options_url} is not the http(s) URL of an options file.")
    name = re.sub(r"[^\w.-]", "_", name).lstrip(".")
    # Different URLs often end in the same name.
    digest = hashlib.sha256(f"{model} {options_url or ''}".encode()).hexdigest()[:12]
    folder = f"{PurePosixPath(name).stem}-{digest}"
    options = [_File(options_url, f"{folder}/options.json")] if options_url else []
    return [*options, _File(model, f"{folder}/{name}")]


class _Refused(Exception):
    """An error that a retry cannot fix. It is not an OSError, because pooch retries after those."""


def _check_response(response: Any, *_: Any, n_bytes: int | None, **__: Any) -> None:
    """Refuse a response before its content is transferred."""
    if response.is_redirect or response.status_code in _TEMPORARY:
        return
    if not response.ok:
        raise _Refused(f"its server answered {response.status_code} {response.reason}")
    length = response.headers.get("Content-Length")
    if length is None and response.headers.get("Transfer-Encoding") != "chunked":
        raise _Refused("its server does not report the size of the file")
    if n_bytes is not None and length not in (None, str(n_bytes)):
        raise _Refused(f"the file on its server has {length} bytes instead of {n_bytes}")


def _make_readable(path: str, action: str, _: object) -> None:
    # pooch makes downloads private to their owner, but a cache folder may be shared.
    if action != "fetch":
        os.chmod(path, 0o644)


def _cause(error: BaseException) -> str:
    if type(error) is ValueError and "hash" in str(error):
        return "its SHA-256 is not that of the published file"
    while error.__context__ is not None:
        error = error.__context__
    return reason(error)
