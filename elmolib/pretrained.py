"""Models by name or address: one lies in this package, others are kept in one cache folder."""

from __future__ import annotations

import difflib
import fcntl
import hashlib
import http.client
import os
import re
import socket
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from tqdm.auto import tqdm

from elmolib.errors import DownloadError


@dataclass(frozen=True)
class Published:
    """A model of the authors.

    Args:
        folder: its name on their server.
        n_bytes: size of its weight file, where known.
        sha256: checksum of its weight file, where known.
    """

    folder: str
    n_bytes: int | None = None
    sha256: str | None = None


PUBLISHED = {
    "small": Published(
        "2x1024_128_2048cnn_1xhighway",
        54_402_456,
        "747ba97abce8a5f446558369e10bb0f7931437a46867476fdd156f5d7f576229",
    ),
    "medium": Published("2x2048_256_2048cnn_1xhighway"),
    "original": Published("2x4096_512_2048cnn_2xhighway"),
    "original-5.5b": Published("2x4096_512_2048cnn_2xhighway_5.5B"),
}

SHIPPED = {"en-tiny": Path(__file__).parent / "models" / "en-tiny.h5"}
"""Models inside this package, which are there without any network; see docs/en-tiny.md."""

_BASE_URL = "https://s3-us-west-2.amazonaws.com/allennlp/models/elmo"
_MODEL_SUFFIXES = (".zip", ".hdf5", ".h5")

_TIMEOUT_SECONDS = 30
_ATTEMPTS = 5
_FIRST_PAUSE_SECONDS = 1.0
_BUFFER_BYTES = 1 << 18
_PASSING_TROUBLES = (408, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class _File:
    """One file of a model: where it comes from, where it belongs, and how to know it."""

    url: str
    path: Path
    n_bytes: int | None = None
    sha256: str | None = None

    @property
    def part(self) -> Path:
        return self.path.with_name(self.path.name + ".part")

    @property
    def validator(self) -> Path:
        """Holds what the server called the version of which `part` is the beginning."""
        return self.path.with_name(self.path.name + ".part.version")


class _Failed(Exception):
    """Trying again will not help."""


class _Interrupted(Exception):
    """Trying again may help."""


def cache_folder() -> Path:
    """The folder for downloaded models.

    Returns:
        The folder named by the environment variable `ELMOLIB_CACHE`, else `elmolib` in the
        user's cache folder (`XDG_CACHE_HOME`, or `~/.cache`). It need not exist.
    """
    if chosen := os.environ.get("ELMOLIB_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "elmolib"


def fetch(model: str, options_url: str | None = None) -> Path:
    """Give the place of a model on this machine, downloading it if need be.

    A model in the cache is used without any network. A broken download is resumed, or begun again
    where the server cannot resume, and gets its name only once it is complete.

    Args:
        model: `"en-tiny"`, which lies in this package, `"small"`, `"medium"`, `"original"`,
            `"original-5.5b"`, or the `http(s)` address of a `.zip`, `.hdf5` or `.h5` file.
        options_url: address of the `options.json`, for a weight file that has none inside.

    Returns:
        A path for `weights.read_model`.

    Raises:
        DownloadError: the model is unknown, cannot be had, or is not what it should be; the
            message says which files to put where by hand.

    Example:
        ```python
        model = read_model(fetch("small"))
        ```

    References:
        Peters et al. 2018, arXiv:1802.05365; the addresses are those that AllenNLP documents.
    """
    if model in SHIPPED:
        _refuse_options(model, options_url)
        return SHIPPED[model]
    files = _files_of(model, options_url)
    folder = files[0].path.parent
    missing = [file for file in files if not file.path.exists()]
    if missing:
        try:
            with _alone_in(folder):
                for file in missing:
                    # Another process may have fetched it while this one waited.
                    if not file.path.exists():
                        _download(file)
        except (_Failed, OSError) as error:
            by_hand = " and ".join(
                f"{file.url} as {file.path}" for file in missing if not file.path.exists()
            )
            raise DownloadError(
                f"{model} could not be downloaded ({error}): try again, or fetch {by_hand}."
            ) from None
    for file in files:
        if file.n_bytes is not None and file.path.stat().st_size != file.n_bytes:
            raise DownloadError(
                f"{file.path} has not the {file.n_bytes:,} bytes of the published file: delete it."
            )
    return folder if len(files) > 1 else files[0].path


def _files_of(model: str, options_url: str | None) -> list[_File]:
    if model in PUBLISHED:
        _refuse_options(model, options_url)
        published = PUBLISHED[model]
        folder = cache_folder() / model
        stem = f"elmo_{published.folder}"
        address = f"{_BASE_URL}/{published.folder}/{stem}"
        return [
            _File(f"{address}_options.json", folder / "options.json"),
            _File(
                f"{address}_weights.hdf5",
                folder / f"{stem}_weights.hdf5",
                published.n_bytes,
                published.sha256,
            ),
        ]
    name = _name_in(model)
    # Different addresses often end in the same name.
    digest = hashlib.sha256(f"{model} {options_url or ''}".encode()).hexdigest()[:12]
    folder = cache_folder() / f"{PurePosixPath(name).stem}-{digest}"
    files = [_File(model, folder / name)]
    if options_url is not None:
        if urlsplit(options_url).scheme not in ("http", "https"):
            raise DownloadError(f"{options_url} is no http(s) address of an options file.")
        files.insert(0, _File(options_url, folder / "options.json"))
    return files


def _refuse_options(model: str, options_url: str | None) -> None:
    if options_url is not None:
        raise DownloadError(f"{model} has options of its own: leave out {options_url}.")


def _name_in(url: str) -> str:
    address = urlsplit(url)
    name = PurePosixPath(unquote(address.path)).name
    if address.scheme in ("http", "https") and name.endswith(_MODEL_SUFFIXES):
        return re.sub(r"[^\w.-]", "_", name).lstrip(".")
    names = [*SHIPPED, *PUBLISHED]
    nearest = difflib.get_close_matches(url, names, n=1)
    raise DownloadError(
        f"{url!r} is neither one of {', '.join(names)} nor the http(s) address of a "
        f"{', '.join(_MODEL_SUFFIXES)} file"
        + (f": did you mean {nearest[0]!r}?" if nearest else ".")
    )


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    # The system gives the lock back even when a process is killed.
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _download(file: _File) -> None:
    for attempt in range(_ATTEMPTS):
        try:
            _receive(file)
            break
        except _Interrupted as error:
            if attempt == _ATTEMPTS - 1:
                raise _Failed(f"{error}, in {_ATTEMPTS} attempts") from None
            time.sleep(_FIRST_PAUSE_SECONDS * 2**attempt)
    if file.sha256 is not None:
        with file.part.open("rb") as part:
            found = hashlib.file_digest(part, "sha256").hexdigest()
        if found != file.sha256:
            _discard(file)
            raise _Failed(f"its SHA-256 came out as {found} instead of {file.sha256}")
    os.replace(file.part, file.path)
    _discard(file)


def _receive(file: _File) -> None:
    """Bring `file.part` to its full length, from where it stands if the server can."""
    response, done = _opened(file)
    with response:
        total = _total(response, done)
        if file.n_bytes is not None and total not in (None, file.n_bytes):
            _discard(file)
            raise _Failed(f"its server has {total:,} bytes instead of {file.n_bytes:,}")
        if total is None and file.n_bytes is None and not response.chunked:
            raise _Failed("its server does not tell its size")
        file.validator.write_text(_version(response), encoding="latin-1")
        bar = tqdm(
            desc=file.path.name,
            total=total or file.n_bytes,
            initial=done,
            unit="B",
            unit_scale=True,
            disable=not _is_watched(),
        )
        with file.part.open("ab" if done else "wb") as part, bar:
            while received := _read(response):
                part.write(received)
                bar.update(len(received))
            part.flush()
            os.fsync(part.fileno())
    expected = file.n_bytes if total is None else total
    if expected is not None and file.part.stat().st_size != expected:
        raise _Interrupted(f"the connection ended before all of its {expected:,} bytes were there")


def _opened(file: _File) -> tuple[http.client.HTTPResponse, int]:
    """Ask the server for the rest of the file, and find out from which byte on it answers."""
    request = urllib.request.Request(file.url, headers={"User-Agent": "elmolib"})
    done = file.part.stat().st_size if file.part.exists() else 0
    version = file.validator.read_text(encoding="latin-1") if file.validator.exists() else ""
    if done and version:
        request.add_header("Range", f"bytes={done}-")
        request.add_header("If-Range", version)
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        reason = f"its server answers {error.code} {error.reason}"
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            _discard(file)
            raise _Interrupted(reason) from None
        raise (_Interrupted if error.code in _PASSING_TROUBLES else _Failed)(reason) from None
    except urllib.error.URLError as error:
        lasting = (socket.gaierror, ConnectionRefusedError, ssl.SSLCertVerificationError)
        kind = _Failed if isinstance(error.reason, lasting) else _Interrupted
        raise kind(str(error.reason)) from None
    except (OSError, http.client.HTTPException) as error:
        raise _Interrupted(str(error) or type(error).__name__) from None
    if response.status != http.HTTPStatus.PARTIAL_CONTENT:
        return response, 0
    content_range = response.headers.get("Content-Range", "")
    if not content_range.startswith(f"bytes {done}-"):
        response.close()
        _discard(file)
        raise _Interrupted(f"its server answers with the wrong bytes ({content_range!r})")
    return response, done


def _total(response: http.client.HTTPResponse, done: int) -> int | None:
    return None if response.length is None else done + response.length


def _version(response: http.client.HTTPResponse) -> str:
    # A weak tag does not promise the same bytes, so it cannot be used to resume.
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified", "")


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read(_BUFFER_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise _Interrupted(str(error) or type(error).__name__) from None


def _discard(file: _File) -> None:
    file.part.unlink(missing_ok=True)
    file.validator.unlink(missing_ok=True)


def _is_watched() -> bool:
    # The streams of a notebook are no terminals, but its bar is a widget.
    return sys.stderr.isatty() or "ipykernel" in sys.modules
