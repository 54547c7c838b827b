"""Downloads from a server that breaks, changes and lies, on this machine."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import h5py
import pytest
from small_models import TINY, random_arrays

from elmolib import pretrained
from elmolib.errors import DownloadError
from elmolib.pretrained import Published, cache_folder, fetch
from elmolib.weights import read_model

CONTENT = bytes(range(256)) * 4096
NAME = "2x4_3_5cnn_1xhighway"


@dataclass
class Server:
    """What the server holds, how it misbehaves, and what it was asked."""

    files: dict[str, bytes] = field(default_factory=dict)
    resumes: bool = True
    etag: str | None = '"1"'
    modified: bool = False
    states_length: bool = True
    chunked: bool = False
    statuses: list[int] = field(default_factory=list)
    breaks_after: list[int] = field(default_factory=list)
    content_range: str | None = None
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    sent: int = 0
    address: str = ""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        @property
        def protocol_version(self) -> str:
            return "HTTP/1.1" if state.chunked else "HTTP/1.0"

        def do_GET(self) -> None:
            asked_range = self.headers.get("Range")
            state.asked.append((self.path, asked_range))
            content = state.files.get(self.path)
            if content is None or (state.statuses and self.send_failure()):
                return None if content is not None else self.send_error(404)
            start = int(asked_range.removeprefix("bytes=").rstrip("-")) if asked_range else 0
            if not state.resumes or self.headers.get("If-Range") not in self.versions():
                start = 0
            if start and start >= len(content):
                return self.send_error(416)
            self.send_response(206 if start else 200)
            if start:
                true = f"bytes {start}-{len(content) - 1}/{len(content)}"
                self.send_header("Content-Range", state.content_range or true)
            if state.etag:
                self.send_header("ETag", state.etag)
            if state.modified:
                self.send_header("Last-Modified", formatdate(0, usegmt=True))
            if state.chunked:
                self.send_header("Transfer-Encoding", "chunked")
            elif state.states_length:
                self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            end = start + state.breaks_after.pop(0) if state.breaks_after else len(content)
            state.sent += len(content[start:end])
            if state.chunked:
                self.wfile.write(f"{len(content) - start:x}\r\n".encode())
            self.wfile.write(content[start:end])
            if state.chunked and end == len(content):
                self.wfile.write(b"\r\n0\r\n\r\n")
            return None

        def versions(self) -> list[str]:
            strong = [state.etag] if state.etag and not state.etag.startswith("W/") else []
            return strong + ([formatdate(0, usegmt=True)] if state.modified else [])

        def send_failure(self) -> bool:
            self.send_error(state.statuses.pop(0))
            return True

        def log_message(self, *_: object) -> None:
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.address = f"http://127.0.0.1:{listener.server_address[1]}"
    thread = threading.Thread(target=listener.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setenv("ELMOLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(pretrained, "_FIRST_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(pretrained, "_BASE_URL", state.address)
    yield state
    listener.shutdown()
    thread.join()
    listener.server_close()


@pytest.fixture
def url(server: Server) -> str:
    server.files["/model.zip"] = CONTENT
    return f"{server.address}/model.zip"


def files_in_cache() -> set[str]:
    return {p.name for p in cache_folder().rglob("*") if p.is_file() and p.name != ".lock"}


@pytest.fixture
def published(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A small model on the server under one of the names of the authors' models."""
    with h5py.File(tmp_path / "weights.hdf5", "w") as file:
        for name, values in random_arrays(TINY).items():
            file[name] = values
    weights = (tmp_path / "weights.hdf5").read_bytes()
    server.files[f"/{NAME}/elmo_{NAME}_options.json"] = json.dumps(TINY.to_json()).encode()
    server.files[f"/{NAME}/elmo_{NAME}_weights.hdf5"] = weights
    digest = hashlib.sha256(weights).hexdigest()
    monkeypatch.setitem(pretrained.PUBLISHED, "small", Published(NAME, len(weights), digest))
    return weights


def test_named_model_is_downloaded_once_and_read(server: Server, published: bytes) -> None:
    model = read_model(fetch("small"))
    assert model.options == TINY
    assert model.arrays["char_embed"].tobytes() == random_arrays(TINY)["char_embed"].tobytes()
    assert files_in_cache() == {"options.json", f"elmo_{NAME}_weights.hdf5"}
    assert len(server.asked) == 2
    fetch("small")
    assert len(server.asked) == 2


def test_addresses_of_the_published_models() -> None:
    weights = {name: pretrained._files_of(name, None)[1] for name in pretrained.PUBLISHED}
    base = "https://s3-us-west-2.amazonaws.com/allennlp/models/elmo/"
    folder = "2x4096_512_2048cnn_2xhighway_5.5B"
    assert weights["original-5.5b"].url == f"{base}{folder}/elmo_{folder}_weights.hdf5"
    assert weights["small"].n_bytes == 54_402_456
    assert set(weights) == {"small", "medium", "original", "original-5.5b"}


def test_cached_model_needs_no_network(
    server: Server, published: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = fetch("small")

    def no_network(*_: object, **__: object) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr("socket.socket.connect", no_network)
    for folder in (cache_folder(), path):
        folder.chmod(0o555)
    try:
        assert fetch("small") == path
    finally:
        for folder in (cache_folder(), path):
            folder.chmod(0o755)


def test_address_of_weights_and_of_their_options(server: Server, published: bytes) -> None:
    weights = f"{server.address}/{NAME}/elmo_{NAME}_weights.hdf5"
    options = f"{server.address}/{NAME}/elmo_{NAME}_options.json"
    assert read_model(fetch(weights, options)).options == TINY


def test_same_file_name_at_two_addresses_is_two_models(server: Server, url: str) -> None:
    server.files["/other/model.zip"] = b"other"
    assert fetch(url).read_bytes() == CONTENT
    assert fetch(f"{server.address}/other/model.zip").read_bytes() == b"other"


@pytest.mark.parametrize("etag, modified", [('"1"', False), (None, True), ('W/"1"', True)])
def test_broken_transfer_is_resumed(
    server: Server, url: str, etag: str | None, modified: bool
) -> None:
    server.etag, server.modified = etag, modified
    server.breaks_after = [300_000, 200_000]
    path = fetch(url)
    assert path.read_bytes() == CONTENT
    assert [asked for _, asked in server.asked] == [None, "bytes=300000-", "bytes=500000-"]
    assert server.sent == len(CONTENT)
    assert files_in_cache() == {"model.zip"}


def test_broken_transfer_is_resumed_by_a_later_call(
    server: Server, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrained, "_ATTEMPTS", 1)
    server.breaks_after = [300_000]
    with pytest.raises(DownloadError, match="before all of its 1,048,576 bytes were there"):
        fetch(url)
    assert "model.zip" not in files_in_cache()
    assert fetch(url).read_bytes() == CONTENT
    assert server.sent == len(CONTENT)


def test_server_that_cannot_resume_sends_all_again(server: Server, url: str) -> None:
    server.resumes = False
    server.breaks_after = [300_000]
    assert fetch(url).read_bytes() == CONTENT
    assert server.sent == len(CONTENT) + 300_000


@pytest.mark.parametrize("etag", [None, 'W/"1"'])
def test_nothing_is_resumed_without_a_version(server: Server, url: str, etag: str | None) -> None:
    server.etag = etag
    server.breaks_after = [300_000]
    assert fetch(url).read_bytes() == CONTENT
    assert [asked for _, asked in server.asked] == [None, None]


def test_file_that_changed_in_between_is_not_mixed(
    server: Server, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrained, "_ATTEMPTS", 1)
    server.breaks_after = [300_000]
    with pytest.raises(DownloadError):
        fetch(url)
    server.files["/model.zip"], server.etag = CONTENT[::-1], '"2"'
    assert fetch(url).read_bytes() == CONTENT[::-1]


def test_rest_that_starts_at_the_wrong_byte_is_not_appended(server: Server, url: str) -> None:
    server.breaks_after = [300_000]
    server.content_range = "bytes 5-10/11"
    assert fetch(url).read_bytes() == CONTENT
    assert [asked for _, asked in server.asked] == [None, "bytes=300000-", None]


def test_leftover_longer_than_the_file_is_thrown_away(server: Server, url: str) -> None:
    file = pretrained._files_of(url, None)[0]
    file.path.parent.mkdir(parents=True)
    file.part.write_bytes(CONTENT + b"x")
    file.validator.write_text('"1"')
    assert fetch(url).read_bytes() == CONTENT


def test_passing_trouble_is_waited_out(server: Server, url: str) -> None:
    server.statuses = [503, 500, 429]
    assert fetch(url).read_bytes() == CONTENT


def test_attempts_are_bounded(server: Server, url: str) -> None:
    server.statuses = [503] * 100
    with pytest.raises(DownloadError, match=r"503 .* in 5 attempts"):
        fetch(url)
    assert len(server.asked) == 5


def test_absent_file_is_not_asked_for_again(server: Server) -> None:
    with pytest.raises(DownloadError, match=r"absent\.zip could not .* answers 404 Not Found"):
        fetch(f"{server.address}/absent.zip")
    assert len(server.asked) == 1
    assert files_in_cache() == set()


def test_wrong_checksum_is_refused_and_removed(server: Server, published: bytes) -> None:
    weights = bytearray(published)
    weights[-1] ^= 1
    server.files[f"/{NAME}/elmo_{NAME}_weights.hdf5"] = bytes(weights)
    with pytest.raises(DownloadError, match="SHA-256 came out as"):
        fetch("small")
    assert files_in_cache() == {"options.json"}
    server.files[f"/{NAME}/elmo_{NAME}_weights.hdf5"] = published
    assert read_model(fetch("small")).options == TINY


def test_wrong_size_is_refused_before_it_is_sent(server: Server, published: bytes) -> None:
    server.files[f"/{NAME}/elmo_{NAME}_weights.hdf5"] = b"<html>Sign in first</html>"
    with pytest.raises(DownloadError, match=r"26 bytes instead of"):
        fetch("small")
    assert files_in_cache() == {"options.json"}


def test_wrong_size_in_the_cache_is_refused(server: Server, published: bytes) -> None:
    weights = fetch("small") / f"elmo_{NAME}_weights.hdf5"
    weights.write_bytes(published[:-1])
    with pytest.raises(DownloadError, match="delete it"):
        fetch("small")


def test_length_that_nobody_tells_is_refused(server: Server, url: str) -> None:
    server.states_length = False
    with pytest.raises(DownloadError, match="does not tell its size"):
        fetch(url)
    assert files_in_cache() == set()


def test_length_told_piece_by_piece_is_enough(server: Server, url: str) -> None:
    server.chunked = True
    server.breaks_after = [300_000]
    server.resumes = False
    assert fetch(url).read_bytes() == CONTENT
    assert len(server.asked) == 2


def test_no_network_says_in_one_sentence_what_to_put_where(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: Server
) -> None:
    server_address = "http://127.0.0.1:1"
    monkeypatch.setattr(pretrained, "_BASE_URL", server_address)
    with pytest.raises(DownloadError) as caught:
        fetch("medium")
    folder = "2x2048_256_2048cnn_1xhighway"
    stem = f"elmo_{folder}"
    home = tmp_path / "cache" / "medium"
    message = str(caught.value)
    assert "Connection refused" in message
    assert f"{server_address}/{folder}/{stem}_options.json as {home / 'options.json'}" in message
    assert f"{stem}_weights.hdf5 as {home / f'{stem}_weights.hdf5'}." in message
    assert "\n" not in message


def test_files_put_by_hand_are_used(server: Server, published: bytes) -> None:
    home = cache_folder() / "small"
    home.mkdir(parents=True)
    (home / "options.json").write_text(json.dumps(TINY.to_json()))
    (home / f"elmo_{NAME}_weights.hdf5").write_bytes(published)
    assert read_model(fetch("small")).options == TINY
    assert server.asked == []


def test_callers_at_the_same_time_share_one_download(server: Server, url: str) -> None:
    found: list[bytes] = []
    callers = [
        threading.Thread(target=lambda: found.append(fetch(url).read_bytes())) for _ in range(4)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert found == [CONTENT] * 4
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "model, hint",
    [
        ("smal", "did you mean 'small'"),
        ("file:///etc/model.zip", "neither one of en-tiny, small, medium"),
        ("http://host/model.tar", "neither one of en-tiny, small, medium"),
        ("ftp://host/model.zip", "neither one of en-tiny, small, medium"),
    ],
)
def test_unknown_model_is_refused(model: str, hint: str) -> None:
    with pytest.raises(DownloadError, match=hint):
        fetch(model)


def test_named_model_takes_no_other_options() -> None:
    with pytest.raises(DownloadError, match="small has options of its own"):
        fetch("small", "http://host/options.json")


def test_options_of_a_foreign_scheme_are_refused() -> None:
    with pytest.raises(DownloadError, match="no http"):
        fetch("http://host/model.hdf5", "file:///etc/passwd")


@pytest.mark.parametrize("name", ["..%2f..%2fevil.zip", "%2e%2e.zip", "a%20b.h5", ".hidden.zip"])
def test_address_cannot_lead_out_of_the_cache(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ELMOLIB_CACHE", str(tmp_path))
    path = pretrained._files_of(f"http://host/{name}", None)[0].path
    assert path.resolve().parent.parent == tmp_path.resolve()
    assert not path.name.startswith(".")


def test_cache_folder_follows_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ELMOLIB_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == tmp_path / ".cache" / "elmolib"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "elmolib"
    monkeypatch.setenv("ELMOLIB_CACHE", "~/models")
    assert cache_folder() == tmp_path / "models"
