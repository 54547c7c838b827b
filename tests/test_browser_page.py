"""The page that computes vectors in the browser, without a network, compared with Python."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.jupyterlab import TIMEOUT, chromium
from benchmarks.typing import site
from elmolib import ElmoEmbedder

pytestmark = [pytest.mark.browser, pytest.mark.slow]

SENTENCES = [
    "It's Dr. Brown’s 3.5 km, isn't it?",
    "Der Fluss trat über die Ufer; das Geldhaus blieb geschlossen.",
    "Ştiinţa şi râul — «malul» era abrupt…",
    "e\u0301te\u0301, soft\u00adhyphen, \ufeffmark, a\u200bb",
    "東京都は日本の首都です。 🙂 👩‍👩‍👧",
    f"A {'very' * 20} long word.",
]
MOST_BYTES = 25_000_000

EMBED = """async sentence => {
    const { session, embed, wordsOf } = window.elmolib, words = wordsOf(sentence);
    const layers = await embed(session, words);
    return [words, layers.map(layer => layer.map(vector => [...vector]))];
}"""


def test_the_page_gives_the_vectors_of_python_offline(root: Path, tmp_path: Path) -> None:
    embedder = ElmoEmbedder("en-tiny")
    with site(tmp_path) as address, chromium() as browser:
        page = browser.new_page(viewport={"width": 1024, "height": 900})
        page.set_default_timeout(1000 * TIMEOUT)
        sizes: dict[str, int] = {}
        others: list[str] = []
        page.on("request", lambda r: r.url.startswith(address) or others.append(r.url))
        page.on(
            "requestfinished",
            lambda r: sizes.__setitem__(r.url, r.sizes()["responseBodySize"]),
        )
        page.goto(f"{address}/browser/")
        page.wait_for_selector("#elmolib-heatmap table")
        assert others == []
        # A module that is loaded by another one is counted too.
        assert 20_000_000 < sum(sizes.values()) < MOST_BYTES
        for sentence in SENTENCES:
            words, layers = page.evaluate(EMBED, sentence)
            assert words == embedder.words(sentence)
            expected = embedder.embed([words], layers="all")[0]
            np.testing.assert_allclose(layers, expected, atol=1e-4)
        box, sentence = page.locator("#elmolib-sentence"), "The bank of the river ."
        for layer, choice in ((0, "0"), ("average", "average"), (2, "2")):
            page.select_option("#elmolib-layer", choice)
            box.fill(sentence)
            drawn = json.dumps([sentence, choice], separators=(",", ":"), ensure_ascii=False)
            page.wait_for_function(
                "drawn => document.getElementById('elmolib-heatmap').dataset.drawn === drawn",
                arg=drawn,
            )
            rows = page.locator("#elmolib-heatmap tr")
            texts = [row.locator("td").all_inner_texts() for row in rows.all()[1:]]
            vectors = embedder.embed([sentence], layers=layer)[0]
            unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
            np.testing.assert_allclose(np.array(texts, float), unit @ unit.T, atol=0.00501)
        (root / "build" / "screenshots").mkdir(parents=True, exist_ok=True)
        page.screenshot(path=root / "build" / "screenshots" / "browser_page.png")
        page.fill("#elmolib-sentence", "")
        page.wait_for_function("!document.querySelector('#elmolib-heatmap table')")
