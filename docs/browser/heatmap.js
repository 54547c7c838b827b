// A sentence box with a live heatmap: en-tiny, computed in the browser by ONNX Runtime Web.

import * as ort from "./ort.wasm.min.mjs";

// Ids of elmolib/text/characters.py plus PREDICTION_SHIFT. Bytes have the ids 1 to 256.
const BEGIN_WORD = 259, END_WORD = 260, PADDING = 261, SHIFT = 1;
const MAX_CHARACTERS = 50, MOST_WORDS = 60, MOST_ANNOTATED = 12;
// Invisible characters that elmolib's tokenizer drops when they touch a word.
const INVISIBLE = /[\u00ad\u061c\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]/g;
const VIRIDIS = ["#440154", "#472d7b", "#3b528b", "#2c728e", "#21918c", "#28ae80", "#5ec962",
  "#addc30", "#fde725"].map((hex) => [1, 3, 5].map((k) => parseInt(hex.slice(k, k + 2), 16)));

const segmenter = new Intl.Segmenter("en", { granularity: "word" });
const encoder = new TextEncoder();

export function wordsOf(sentence) {
  const clean = sentence.replace(INVISIBLE, "").normalize("NFC").replaceAll("\u200b", " ");
  const pieces = Array.from(segmenter.segment(clean), (piece) => piece.segment);
  return pieces.flatMap((piece) => piece.split(/\s+/u)).filter((word) => word);
}

// Character ids, int64 (1, words, MAX_CHARACTERS).
export function characterIds(words) {
  const ids = new BigInt64Array(words.length * MAX_CHARACTERS).fill(BigInt(PADDING));
  words.forEach((word, place) => {
    const bytes = encoder.encode(word).slice(0, MAX_CHARACTERS - 2);
    const spelled = [BEGIN_WORD, ...Array.from(bytes, (byte) => byte + SHIFT), END_WORD];
    spelled.forEach((id, k) => { ids[place * MAX_CHARACTERS + k] = BigInt(id); });
  });
  return new ort.Tensor("int64", ids, [1, words.length, MAX_CHARACTERS]);
}

// Vectors as one array per layer and word: layers[layer][word] is a Float32Array of `dim` values.
export async function embed(session, words) {
  const { layers } = await session.run({ characters: characterIds(words) });
  const [nLayers, , nWords, dim] = layers.dims;
  const vector = (row) => layers.data.subarray(row * dim, (row + 1) * dim);
  return Array.from({ length: nLayers }, (_, layer) =>
    Array.from({ length: nWords }, (_, word) => vector(layer * nWords + word)));
}

function pick(layers, choice) {
  if (choice !== "average") return layers[Number(choice)];
  return layers[0].map((first, word) =>
    first.map((_, k) => layers.reduce((sum, layer) => sum + layer[word][k], 0) / layers.length));
}

export function cosines(vectors) {
  const dot = (a, b) => a.reduce((sum, value, k) => sum + value * b[k], 0);
  const norms = vectors.map((vector) => Math.sqrt(dot(vector, vector)));
  return vectors.map((a, i) => vectors.map((b, j) => dot(a, b) / (norms[i] * norms[j])));
}

function colour(value) {
  const place = Math.min(Math.max(value, 0), 1) * (VIRIDIS.length - 1);
  const low = Math.min(Math.floor(place), VIRIDIS.length - 2);
  const mixed = VIRIDIS[low].map((c, k) => c + (place - low) * (VIRIDIS[low + 1][k] - c));
  return `rgb(${mixed.map(Math.round).join(" ")})`;
}

function draw(target, words, similarities) {
  const table = document.createElement("table");
  table.className = "elmolib-cells";
  const label = (row, word) => {
    const cell = document.createElement("th");
    const text = document.createElement("bdi");
    text.textContent = word;
    cell.append(text);
    row.append(cell);
  };
  const head = table.insertRow();
  head.insertCell();
  words.forEach((word) => label(head, word));
  similarities.forEach((line, i) => {
    const row = table.insertRow();
    label(row, words[i]);
    line.forEach((value, j) => {
      const cell = row.insertCell();
      cell.style.background = colour(value);
      cell.style.color = value > 0.55 ? "black" : "white";
      cell.title = cell.dataset.value = `${words[i]} · ${words[j]}  ${value.toFixed(2)}`;
      if (words.length <= MOST_ANNOTATED) cell.textContent = value.toFixed(2);
    });
  });
  target.replaceChildren(table);
}

async function start() {
  const [sentence, layer, status, heatmap] = ["sentence", "layer", "status", "heatmap"].map((name) =>
    document.getElementById(`elmolib-${name}`));
  const folder = new URL(".", import.meta.url).href;
  ort.env.wasm.wasmPaths = folder;
  ort.env.wasm.numThreads = 1; // more threads need headers that few web servers send
  status.textContent = "Loading the model (20 MB) …";
  let session;
  try {
    session = await ort.InferenceSession.create(`${folder}en-tiny.onnx`);
  } catch (error) {
    status.textContent = `The model cannot be loaded: ${error.message}. Serve the site with a web server.`;
    return;
  }
  let isBusy = false, isStale = true;
  async function update() {
    isStale = true;
    if (isBusy) return;
    isBusy = true;
    while (isStale) {
      isStale = false;
      const text = sentence.value, choice = layer.value, began = performance.now();
      const words = wordsOf(text).slice(0, MOST_WORDS);
      if (words.length) {
        const layers = await embed(session, words);
        draw(heatmap, words, cosines(pick(layers, choice)));
      } else {
        heatmap.replaceChildren();
      }
      const seconds = (performance.now() - began) / 1000;
      status.textContent = `${words.length} words in ${seconds.toFixed(3)} s`;
      heatmap.dataset.drawn = JSON.stringify([text, choice]);
    }
    isBusy = false;
  }
  sentence.addEventListener("input", update);
  layer.addEventListener("change", update);
  window.elmolib = { session, embed, wordsOf, cosines };
  await update();
}

if (document.getElementById("elmolib")) start();
