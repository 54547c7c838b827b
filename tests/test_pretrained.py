"""Downloads from a local server that breaks connections, changes files and sends wrong files."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import h5py
import pytest
from small_models import TINY, hdf5_form, random_arrays

from elmolib.errors import DownloadError
from elmolib.formats import published as pretrained
from elmolib.formats.options import options_of
from elmolib.formats.published import fetch, pretrained_path
from elmolib.formats.readers import read_model

CONTENT = bytes(range(256)) * 4096
NAME = "2x4_3_5cnn_1xhighway"


@dataclass
class Server:
    """The server's files, the fault that it simulates, and the paths that were requested."""

    files: dict[str, bytes] = field(default_factory=dict)
    states_length: bool = True
    chunked: bool = False
    statuses: list[int] = field(default_factory=list)
    breaks_after: list[int] = field(default_factory=list)
    requested: list[str] = field(default_factory=list)
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
            state.requested.append(self.path)
            content = state.files.get(self.path)
            if content is None:
                return self.send_error(404)
            if state.statuses:
                return self.send_error(state.statuses.pop(0))
            self.send_response(200)
            if state.chunked:
                self.send_header("Transfer-Encoding", "chunked")
            elif state.states_length:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            end = state.breaks_after.pop(0) if state.breaks_after else len(content)
            state.sent += len(content[:end])
            if state.chunked:
                self.wfile.write(f"{len(content):x}\r\n".encode())
            self.wfile.write(content[:end])
            if state.chunked and end == len(content):
                self.wfile.write(b"\r\n0\r\n\r\n")
            self.close_connection = True
            return None

        def log_message(self, *_: object) -> None:
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.address = f"http://127.0.0.1:{listener.server_address[1]}"
    thread = threading.Thread(target=listener.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setenv("ELMOLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)
    monkeypatch.setattr(pretrained, "_BASE_URL", state.address)
    yield state
    listener.shutdown()
    thread.join()
    listener.server_close()


@pytest.fixture
def url(server: Server) -> str:
    server.files["/model.zip"] = CONTENT
    return f"{server.address}/model.zip"


def cache_folder() -> Path:
    return Path(os.environ["ELMOLIB_CACHE"])


def files_in_cache() -> set[str]:
    return {p.name for p in cache_folder().rglob("*") if p.is_file()}


@pytest.fixture
def published(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A small model that the server offers under the name of a published model."""
    with h5py.File(tmp_path / "weights.hdf5", "w") as file:
        for name, values in hdf5_form(TINY, random_arrays(TINY)).items():
            file[name] = values
    weights = (tmp_path / "weights.hdf5").read_bytes()
    server.files[f"/{NAME}/elmo_{NAME}_options.json"] = json.dumps(options_of(TINY)).encode()
    server.files[f"/{NAME}/elmo_{NAME}_weights.hdf5"] = weights
    digest = hashlib.sha256(weights).hexdigest()
    monkeypatch.setitem(pretrained.PUBLISHED, "small", (NAME, digest, len(weights)))
    return weights


def test_named_model_is_downloaded_once_and_read(server: Server, published: bytes) -> None:
    model = read_model(fetch("small"))
    assert model.architecture == TINY
    expected = random_arrays(TINY)["char_cnn/embedding"]
    assert model.arrays["char_cnn/embedding"].tobytes() == expected.tobytes()
    assert files_in_cache() == {"options.json", f"elmo_{NAME}_weights.hdf5"}
    assert len(server.requested) == 2
    fetch("small")
    assert len(server.requested) == 2


def test_addresses_of_the_published_models() -> None:
    weights = {name: pretrained._files_of(name, None)[1] for name in pretrained.PUBLISHED}
    base = "https://s3-us-west-2.amazonaws.com/allennlp/models/elmo/"
    folder = "2x4096_512_2048cnn_2xhighway_5.5B"
    assert weights["original-5.5b"].url == f"{base}{folder}/elmo_{folder}_weights.hdf5"
    assert weights["small"].n_bytes == 54_402_456
    assert set(weights) == {"small", "medium", "original", "original-5.5b"}


def test_downloads_can_be_read_by_other_users_of_the_cache(server: Server, url: str) -> None:
    assert fetch(url).stat().st_mode & 0o044 == 0o044


def test_pretrained_model_is_named_or_a_path(server: Server, published: bytes) -> None:
    assert pretrained_path("small", Path("/runs")) == fetch("small")
    assert pretrained_path("tiny/elmo.h5", Path("/runs")) == Path("/runs/tiny/elmo.h5")
    assert pretrained_path("/tmp/elmo.h5", Path("/runs")) == Path("/tmp/elmo.h5")


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
    assert read_model(fetch(weights, options)).architecture == TINY


def test_same_file_name_at_two_addresses_is_two_models(server: Server, url: str) -> None:
    server.files["/other/model.zip"] = b"other"
    assert fetch(url).read_bytes() == CONTENT
    assert fetch(f"{server.address}/other/model.zip").read_bytes() == b"other"


def test_interrupted_transfer_is_repeated(server: Server, url: str) -> None:
    server.breaks_after = [300_000, 200_000]
    assert fetch(url).read_bytes() == CONTENT
    assert server.sent == len(CONTENT) + 500_000
    assert files_in_cache() == {"model.zip"}


def test_temporary_errors_of_the_server_are_retried(server: Server, url: str) -> None:
    server.statuses = [503, 500, 429]
    assert fetch(url).read_bytes() == CONTENT


def test_number_of_attempts_is_limited(server: Server, url: str) -> None:
    server.statuses = [503] * 100
    with pytest.raises(DownloadError, match="503 Server Error"):
        fetch(url)
    assert len(server.requested) == 4
    assert files_in_cache() == set()


def test_missing_file_is_not_requested_again(server: Server) -> None:
    with pytest.raises(DownloadError, match=r"absent\.zip could not .* answered 404 Not Found"):
        fetch(f"{server.address}/absent.zip")
    assert len(server.requested) == 1
    assert files_in_cache() == set()


def test_wrong_checksum_is_refused_and_removed(server: Server, published: bytes) -> None:
    weights = bytearray(published)
    weights[-1] ^= 1
    server.files[f"/{NAME}/elmo_{NAME}_weights.hdf5"] = bytes(weights)
    with pytest.raises(DownloadError, match="its SHA-256 is not that of the published file"):
        fetch("small")
    assert files_in_cache() == {"options.json"}
    server.files[f"/{NAME}/elmo_{NAME}_weights.hdf5"] = published
    assert read_model(fetch("small")).architecture == TINY


def test_wrong_size_is_refused_before_it_is_sent(server: Server, published: bytes) -> None:
    server.files[f"/{NAME}/elmo_{NAME}_weights.hdf5"] = b"<html>Sign in first</html>"
    with pytest.raises(DownloadError, match="26 bytes instead of"):
        fetch("small")
    assert files_in_cache() == {"options.json"}
    assert server.requested.count(f"/{NAME}/elmo_{NAME}_weights.hdf5") == 1


def test_damaged_file_in_the_cache_is_downloaded_again(server: Server, published: bytes) -> None:
    weights = fetch("small") / f"elmo_{NAME}_weights.hdf5"
    weights.write_bytes(published[:-1])
    fetch("small")
    assert weights.read_bytes() == published
    weights.write_bytes(published[:-1])
    server.files.clear()
    with pytest.raises(
        DownloadError, match=f"or save {server.address}.*_weights.hdf5 as {weights}"
    ):
        fetch("small")


def test_response_without_a_length_is_refused(server: Server, url: str) -> None:
    server.states_length = False
    with pytest.raises(DownloadError, match="does not report the size"):
        fetch(url)
    assert files_in_cache() == set()


def test_chunked_response_is_checked_for_completeness(server: Server, url: str) -> None:
    server.chunked = True
    server.breaks_after = [300_000]
    assert fetch(url).read_bytes() == CONTENT
    assert len(server.requested) == 2


def test_without_a_network_one_sentence_says_what_to_put_where(
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


def test_manually_placed_files_are_used(server: Server, published: bytes) -> None:
    home = cache_folder() / "small"
    home.mkdir(parents=True)
    (home / "options.json").write_text(json.dumps(options_of(TINY)))
    (home / f"elmo_{NAME}_weights.hdf5").write_bytes(published)
    assert read_model(fetch("small")).architecture == TINY
    assert server.requested == []


def test_simultaneous_callers_all_get_the_whole_file(server: Server, url: str) -> None:
    found: list[bytes] = []
    callers = [
        threading.Thread(target=lambda: found.append(fetch(url).read_bytes())) for _ in range(4)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert found == [CONTENT] * 4
    assert files_in_cache() == {"model.zip"}


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


def test_options_url_of_another_scheme_is_refused() -> None:
    with pytest.raises(DownloadError, match="is not the http"):
        fetch("http://host/model.hdf5", "file:///etc/passwd")


@pytest.mark.parametrize("name", ["..%2f..%2fevil.zip", "%2e%2e.zip", "a%20b.h5", ".hidden.zip"])
def test_url_cannot_lead_out_of_the_cache(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ELMOLIB_CACHE", str(tmp_path))
    path = cache_folder() / pretrained._files_of(f"http://host/{name}", None)[0].name
    assert path.resolve().parent.parent == tmp_path.resolve()
    assert not path.name.startswith(".")


def test_cache_folder_follows_the_environment(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    server.files["/model.zip"] = CONTENT

    def place(cache: str) -> Path:
        monkeypatch.setenv("ELMOLIB_CACHE", cache)
        return fetch(f"{server.address}/model.zip").parents[1]

    assert place("") == tmp_path / ".cache" / "elmolib"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert place("") == tmp_path / "xdg" / "elmolib"
    assert place("~/models") == tmp_path / "models"
