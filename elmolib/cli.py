"""The command line `elmolib`, which loads large libraries only after it has checked its arguments.

A command gets a `Given` and returns data for `--json`, text to print, and perhaps an exit code.
"""

import json
import os
import shutil
import sys
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import yaml

import elmolib
from elmolib.backend import show_messages
from elmolib.corpus.sources import find_files
from elmolib.errors import ElmolibError, ParameterError, TrainingError, WeightsError, needs_extras
from elmolib.formats.published import NAMES, is_published, pretrained_path
from elmolib.settings.parameters import Parameters, as_paths, project_root
from elmolib.settings.run_folder import CORPUS_RECORD, PROGRESS, WEIGHTS

INTERRUPTED = 130  # the usual exit code of a program that Ctrl-C ends


class Given(SimpleNamespace):
    """A command's options by name. `settings` has the parameters of `-f` and `-p`, or is None."""

    def run(self) -> Parameters:
        """Return the parameters, or report that none are given."""
        if self.settings is None:
            raise ParameterError("no parameters are given: give a file, for example -f tiny.")
        return self.settings

    def prepared(self) -> Any:
        """Return the prepared corpus. Report a missing file before large libraries are loaded."""
        p = self.run()
        if not (p.corpus_path / CORPUS_RECORD).is_file():
            with warnings.catch_warnings(action="ignore"):
                for name in (*as_paths(p.text), *as_paths(p.heldout_text)):
                    find_files(name, project_root(), p.run_path)
            if p.pretrained is not None:
                _found(p.pretrained, project_root())
        return elmolib.prepare_corpus(p)

    def model(self, *needed: str, most: int | None = 0) -> tuple[str, tuple[str, ...]]:
        """Return the model (with `-f`, the run's model) and the other arguments; check how many."""
        words, p = self.words, self.settings
        if p is None:
            if not words:
                raise ParameterError("no model is given: name one first, or give a run with -f.")
            model, words = _found(words[0], Path()), words[1:]
        else:
            model = _found(p.model or str(p.run_path / WEIGHTS), project_root())
        if len(words) < len(needed):
            raise ParameterError(f"{needed[len(words)]} is missing: give it after the model.")
        if most is not None and len(words) > max(most, len(needed)):
            raise ParameterError(f"{words[-1]!r} is one argument too many: leave it out.")
        return model, words

    def sentences(self, most: int | None = None) -> tuple[Any, tuple[str, ...]]:
        """Return an embedder and the sentences. With `-f`, `settings.sentence` is the default."""
        model, rest = self.model(*[] if self.settings else ["SENTENCE"], most=most)
        return self.embedder(model), rest or (self.settings.sentence,)

    def embedder(self, model: str) -> Any:
        """Return the embedder of a model."""
        return elmolib.ElmoEmbedder(model, self.options, self.runtime, self.precision)


class Command(click.Command):
    """A command that reports an error in one sentence and prints its result: text, or JSON data."""

    def invoke(self, ctx: click.Context) -> None:
        """Run the command, print its result and exit."""
        given = Given(**ctx.params, settings=None)
        with warnings.catch_warnings():
            warnings.showwarning = lambda text, *_: click.echo(f"Warning: {text}", err=True)
            try:
                if given.file is not None:
                    given.settings = Parameters.from_yaml(given.file, **dict(given.pairs))
                elif given.pairs:
                    given.settings = Parameters.from_mapping(dict(given.pairs), "-p")
                with redirect_stdout(sys.stderr if given.as_json else sys.stdout), needs_extras():
                    show_messages()
                    data, text, *code = self.callback(given)
            except ParameterError as error:
                raise click.UsageError(str(error), ctx) from None
            except (ElmolibError, OSError) as error:
                click.ClickException(str(error)).show()
                ctx.exit(getattr(error, "exit_code", 1))
            except KeyboardInterrupt:
                click.echo("\nInterrupted: give the same command again to continue.", err=True)
                ctx.exit(INTERRUPTED)
        if given.as_json:
            finite = json.loads(json.dumps(data), parse_constant=lambda _: None)  # JSON has no NaN
            text = json.dumps(finite, indent=2)
        click.echo(text, nl=bool(text))
        ctx.exit(*code)


def _found(model: str, base: Path) -> str:
    """Return a model's name, URL or path, if there is such a file."""
    path = base / Path(model).expanduser()
    found = os.path.exists(path) or os.path.exists(f"{path}.index")  # a checkpoint of bilm-tf
    if not is_published(model) and not found:
        raise WeightsError(
            f"There is no model {path}: name a file, a folder, a URL, or one of {', '.join(NAMES)}."
        )
    return model if is_published(model) else str(path)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(elmolib.__version__)
def main() -> None:
    """Train ELMo on your own text, evaluate the model, and compute vectors with it.

    MODEL is a file, a folder, an archive, a URL, or a name: en-tiny, small, medium, original,
    original-5.5b, or many-langs/ro and other languages. With -f, MODEL is optional; the default is
    the model of the run.

    Exit codes: 0 done; 1 an error; 2 a mistake in the command or in a parameter; 75 another worker
    of the training is missing or ended; 130 interrupted, or stopped before the end.
    """


def _command(example: str, words: str | None = None, embeds: bool = False) -> Callable:
    """Declare a command. `words` names the arguments after MODEL; with None, there is no MODEL."""
    option, about = click.option, "Set a parameter, whose key decides the type of the value."
    options = [
        option("--json", "as_json", is_flag=True, help="Print data; messages go to stderr."),
        option("-p", "pairs", type=(str, str), multiple=True, metavar="KEY VALUE", help=about),
        option("-f", "file", metavar="FILE", help="Parameter file, or a name such as tiny."),
    ]
    if words is not None:
        options += [option("--options", metavar="FILE", help="Options, if MODEL has none.")]
        options += [click.argument("words", nargs=-1, metavar=f"[MODEL] {words}".strip())]
    if embeds:
        runtimes = "numpy, onnx, tensorflow, jax, torch, or auto."
        options += [option("--runtime", default="auto", help=runtimes)]
        options += [option("--precision", default="float32", help="float32 or int8.")]

    def declare(function: Callable) -> click.Command:
        for add in options:
            add(function)
        return main.command(cls=Command, epilog=f"\b\nExample:\n  {example}")(function)

    return declare


@_command("elmolib prepare -f tiny -p text 'texts/*.txt' -p run_dir runs/mine")
@click.option("--timing/--no-timing", default=True, help="Whether to time ten training steps.")
def prepare(given: Given) -> tuple:
    """Prepare a text for training, and say which settings suit it."""
    corpus = given.prepared()
    from elmolib.training.advice import advise

    advice, counts = advise(corpus, given.settings, given.timing), corpus.record["counts"]
    data = {"corpus": str(corpus.path), "counts": counts, **advice._asdict()}
    return data, f"{len(corpus):,} training sentences are in {corpus.path}.\n{advice}"


@_command("elmolib train -f small -p text 'texts/*.txt' -p language ro -p run_dir runs/mine")
@click.option("--workers", metavar="N|HOST:PORT,...", help="Local processes, or all addresses.")
@click.option("--index", type=int, help="Number of this worker in the addresses, from 0.")
@click.option("--restarts", default=0, help="How often to start again if a worker is lost.")
@click.option("--wait", default=5.0, help="Minutes to wait for the other workers at the start.")
def train(given: Given) -> tuple:
    """Prepare a text and train a model, or resume an interrupted run.

    Ctrl-C ends training after the current step and saves everything. The environment variable
    TF_CONFIG, too, may list the workers.
    """
    from elmolib.training.launch import join_cluster, launch

    if given.workers or given.restarts:
        sys.exit(launch(given))
    workers = join_cluster(given.wait)
    corpus = workers[0].chief_first(given.prepared) if workers else given.prepared()
    training = elmolib.Training(given.settings, corpus, *workers)
    from elmolib.live.reports import DetailedMetrics
    from elmolib.live.watch import progress_callbacks

    reports = DetailedMetrics.of(corpus, given.settings)
    weights = training.run([*progress_callbacks(training), reports])
    step, last = training.step, training.last_step
    data = {"weights": str(weights), "step": step, "last_step": last, "history": training.history}
    if step == last:
        return data, f"The model is in {weights}." if training.workers.is_chief else ""
    text = f"Stopped after {step:,} of {last:,} steps and saved: give the same command to continue."
    return data, text, INTERRUPTED


@_command("elmolib watch runs/full")
@click.argument("run_dir", required=False)
@click.option("--stop", is_flag=True, help="Ask the run to stop after the current step.")
def watch(given: Given) -> tuple:
    """Show the progress of a run in another process until the run ends.

    In a terminal, the key s stops the run; q or Ctrl-C only closes this display. Outside a
    terminal, a line is printed every minute. With --json, print only the current progress.
    """
    folder = Path(given.run_dir).expanduser() if given.run_dir else given.run().run_path
    folder = folder if folder.is_dir() else project_root() / folder
    if not (folder / PROGRESS).is_file():
        raise TrainingError(f"There is no {folder / PROGRESS}: start the training first.")
    from elmolib.live.progress import read_progress, request_stop

    progress = read_progress(folder)
    if given.stop:
        if not progress.is_running:
            raise TrainingError(f"No training is running in {folder}: there is nothing to stop.")
        request_stop(folder)
        return {"stop": True}, "The run stops after the current step and saves everything."
    if not given.as_json:
        try:
            if sys.stdin.isatty() and sys.stdout.isatty():
                from elmolib.live.terminal import show_in_terminal

                show_in_terminal(folder)
            else:
                elmolib.watch(folder)
        except KeyboardInterrupt:
            return {}, "The run goes on."
        progress = read_progress(folder)
    is_dead = progress.state in ("running", "failed") and not progress.is_running
    return progress.model_dump(mode="json"), "", int(is_dead)


@_command("elmolib evaluate runs/mine/elmo.h5 test.txt", "[TEXT]...")
def evaluate(given: Given) -> tuple:
    """Compute the perplexity and the calibration of a model on texts.

    With -f and without TEXT, the text is the held-out text of the run.
    """
    model, texts = given.model(*[] if given.settings else ["TEXT"], most=None)
    find_files(texts)
    elmolib.perplexity  # noqa: B018  loads TensorFlow without its messages
    import numpy as np
    from tqdm import tqdm

    from elmolib.corpus.prepared import PreparedCorpus
    from elmolib.formats.readers import read_model
    from elmolib.scoring import heldout, metrics
    from elmolib.scoring.perplexity import Perplexity, scorer_and_windows

    if texts:
        scorer, windows = scorer_and_windows(model, texts, given.options)
        scores = scorer.score(tqdm(windows, "scoring", unit="window", disable=None))
        size = scorer.vocabulary_size
    else:
        corpus = PreparedCorpus(given.settings.corpus_path)
        scores = heldout.score_model(read_model(model, given.options), corpus)
        size = len(corpus.vocabulary)
    means, bins = scores.losses.mean(axis=1, dtype=np.float64), metrics.calibration(scores)
    found = Perplexity.of(means, scores.losses.shape[1], size)
    tables = {d: {"error": c.error, "bins": c.table.to_dict("records")} for d, c in bins.items()}
    errors = ", ".join(f"{c.error:.4f} {direction}" for direction, c in bins.items())
    return vars(found) | {"calibration": tables}, f"{found}\ncalibration error {errors}"


def _layer(_: click.Context, option: click.Parameter, text: str) -> int | str:
    return int(text) if text.isdecimal() else text


@_command("elmolib embed en-tiny lines.txt vectors.h5 --layers top", "TEXT OUT", embeds=True)
@click.option("--layers", callback=_layer, default="average", help="average, top, all or a number.")
@click.option("--dtype", default="float32", help="float32 or float16.")
@click.option("--engine", type=click.Choice(["ray"]), help="Write Parquet files with Ray Data.")
@click.option("--address", help="Address of a Ray cluster; the default is this machine.")
@click.option("--actors", type=int, help="Number of Ray's processes that embed.")
def embed(given: Given) -> tuple:
    """Write the vectors of each line of a text to an HDF5 file; repeat the command to resume.

    With --engine ray, TEXT may be several texts, and OUT is a folder of Parquet files.
    """
    by_ray = given.engine == "ray"
    model, (*texts, out) = given.model("TEXT", "OUT", most=None if by_ray else 0)
    find_files(texts)
    if by_ray:
        from elmolib.embedding.map_batches import embed_dataset

        how = given.layers, given.dtype, given.runtime, given.precision
        embed_dataset(texts, out, model, *how, address=given.address, actors=given.actors)
        return {"vectors": out, "layers": given.layers}, f"The vectors are in {out}."
    (text,) = texts
    embedder = given.embedder(model)
    embedder.embed_corpus(text, out, given.layers, given.dtype)
    data = {"vectors": out, "layers": given.layers, "dim": embedder.dim}
    return data, f"The vectors are in {out}."


@_command("elmolib predict elmo.h5 'The river bank was steep .'", "SENTENCE...", embeds=True)
@click.option("-k", "--top-k", default=5, help="Number of words at each position.")
def predict(given: Given) -> tuple:
    """Predict each word of the sentences from the words before it, after it, and around it."""
    embedder, sentences = given.sentences()
    data, lines = [], []
    for sentence in sentences:
        found = embedder.predict(sentence, given.top_k)
        for place, word in enumerate(found.sentence):
            row: dict[str, Any] = {"word": word}
            lines.append(word)
            for kind, expected in zip(found._fields[1:], found[1:], strict=True):
                pairs = zip(expected.words[place], expected.probabilities[place], strict=True)
                row[kind] = [[other, float(p)] for other, p in pairs]
                words = "  ".join(f"{other} {p:.1%}" for other, p in row[kind])
                lines.append(f"  {kind:<12}{words}")
            data.append(row)
    return data, "\n".join(lines)


@_command("elmolib heatmap en-tiny 'The river bank .' -o a.png", "SENTENCE [OTHER]", embeds=True)
@click.option("-o", "--output", default="heatmap.png", help="A .png or .svg file.")
@click.option("--layer", callback=_layer, default="top", help="average, top or a number.")
def heatmap(given: Given) -> tuple:
    """Draw how similar the words of a sentence, or of two sentences, are to each other."""
    embedder, (sentence, *other) = given.sentences(most=2)
    from elmolib import plots

    plots.save(embedder.heatmap(sentence, given.layer, *other), given.output)
    return {"picture": given.output}, f"The picture is in {given.output}."


@_command("elmolib convert runs/mine/elmo.h5 mine.onnx", "TARGET")
def convert(given: Given) -> tuple:
    """Write a model in another format. The ending of TARGET decides the format.

    With .onnx, TARGET is for computing vectors outside Python. With .h5 or .hdf5, it is a weight
    file. Without an ending, it is a folder with weights.hdf5, options.json and vocab.txt.
    """
    model, (target,) = given.model("TARGET")
    ending = Path(target).suffix
    if ending not in (".onnx", ".h5", ".hdf5", ""):
        raise ParameterError(f"{target} must end in .onnx, .h5 or .hdf5, or be a folder.")
    from elmolib.formats import readers, weights

    stored = readers.read_model(model, given.options, softmax=ending != ".onnx")
    write = weights.write_model if ending else weights.write_published
    if ending == ".onnx":
        from elmolib.embedding.onnx_file import write_onnx as write
    write(target, stored)
    return {"model": target}, f"The model is in {target}."


@_command("elmolib info en-tiny", "")
def info(given: Given) -> tuple:
    """Show the dimensions, vocabulary size, training record, format and hash of a model.

    For a model with stored 8-bit scales, `int8_clipped` is the share of clipped values.
    """
    model, _ = given.model()
    from elmolib.embedding.int8 import stored_scales
    from elmolib.files import sha256_of
    from elmolib.formats import options, readers

    stored = readers.read_model(model, given.options, softmax=False)
    path = pretrained_path(model, Path())
    file = path if path.is_file() else Path(stored.source)
    a, scales = stored.architecture, stored_scales(stored)
    made_by = (stored.training_record or {}).get("made_by", "bilm-tf or AllenNLP")
    lists = {"characters": stored.spelling.characters, "words": stored.spelling.words}
    data = {
        "model": str(file),
        "format": f"elmolib {stored.format}" if stored.format else made_by,
        "sha256": sha256_of(file) if file.is_file() else None,
        "layers": a.n_layers + 1,
        "dim": 2 * a.projection_dim,
        "parameters": a.n_parameters(),
        "vocabulary": stored.vocabulary and len(stored.vocabulary),
        "softmax": stored.has_softmax,
        "options": options.options_of(a),
        "tokenizer": stored.tokenizer.to_json(),
        "spelling": {name: len(each) for name, each in lists.items() if each} or "bytes",
        "mix": stored.mix and list(stored.mix),
        "record": stored.training_record,
        "int8_clipped": scales and scales.clipped,
    }
    look: dict[str, Any] = {"sort_keys": False, "default_flow_style": None, "width": 100}
    return data, yaml.safe_dump(data, allow_unicode=True, **look).rstrip()


@_command("elmolib notebooks my-elmo && cd my-elmo && jupyter lab")
@click.argument("folder", metavar="DIR")
def notebooks(given: Given) -> tuple:
    """Copy the notebooks and parameter files into a folder, in which the notebooks can run."""
    folders = Path(__file__).parents  # in a wheel, the notebooks are inside the package
    home = next(folder for folder in folders if (folder / "notebooks").is_dir())
    left_out = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints")
    made = [Path(given.folder) / name for name in ("notebooks", "params")]
    if any(folder.exists() for folder in made):
        raise ElmolibError(f"{given.folder} contains notebooks or params: choose another folder.")
    for folder in made:
        shutil.copytree(home / folder.name, folder, ignore=left_out)
    return list(map(str, made)), f"The notebooks are in {made[0]}."
