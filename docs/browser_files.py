"""Add the files that the page `browser.md` loads: en-tiny as an ONNX file and ONNX Runtime Web."""

from __future__ import annotations

import hashlib
import logging
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import pooch
from mkdocs.structure.files import File, Files

from elmolib.embedding.onnx_file import write_onnx
from elmolib.formats.published import SHIPPED
from elmolib.formats.readers import read_model

NAME, VERSION = "onnxruntime-web", "1.30.0"
SHA256 = "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71"
FILES = "ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"
"""The npm package, the hash of its archive, and its files that the page loads."""

log = logging.getLogger("mkdocs.plugins.browser_files")


def on_files(files: Files, config: Any, **_: Any) -> Files:
    """Add the files. Without npm, leave them out, and say so: the page then shows only its text."""
    folder = Path(pooch.os_cache("elmolib"), f"{NAME}-{VERSION}")
    if not folder.is_dir():
        if shutil.which("npm") is None:
            log.info("npm is not installed, so the page browser.md will not work.")
            return files
        _download(folder)
    for name in FILES:
        files.append(File.generated(config, f"browser/{name}", abs_src_path=str(folder / name)))
    with tempfile.TemporaryDirectory() as temporary:
        model = Path(temporary, "en-tiny.onnx")
        write_onnx(model, read_model(SHIPPED["en-tiny"]))
        files.append(File.generated(config, f"browser/{model.name}", content=model.read_bytes()))
    return files


def _download(folder: Path) -> None:
    """Download the package with npm, check its hash, and move its files into a new folder."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        subprocess.run(["npm", "pack", "--silent", f"{NAME}@{VERSION}"], cwd=temporary, check=True)
        archive = Path(temporary, f"{NAME}-{VERSION}.tgz")
        if hashlib.sha256(archive.read_bytes()).hexdigest() != SHA256:
            raise ValueError(f"{archive.name} from npm is not the file with the SHA-256 {SHA256}.")
        unpacked = Path(temporary, "files")
        unpacked.mkdir()
        with tarfile.open(archive) as packed:
            for name in FILES:
                unpacked.joinpath(name).write_bytes(
                    packed.extractfile(f"package/dist/{name}").read()
                )
        unpacked.rename(folder)
