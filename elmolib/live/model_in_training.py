"""A copy of the model in training, for the thread or the process that draws its heatmap."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from elmolib.embedder import ElmoEmbedder
from elmolib.embedding.encoder import SentenceEncoder
from elmolib.embedding.numpy_runtime import NumpyRuntime
from elmolib.formats.weights import StoredModel
from elmolib.settings.parameters import Parameters
from elmolib.text.tokenizer import Tokenizer
from elmolib.training.checkpoint import Checkpoints, read_layers

if TYPE_CHECKING:
    from elmolib.training.loop import Training


class ModelInTraining(ElmoEmbedder):
    """A recent copy of the model in training. One other thread draws heatmaps with it.

    The training thread copies the weights between two steps, and the other thread uses the latest
    copy. A drawing therefore never uses a half-finished step, and training never waits for it.

    Attributes:
        step: the number of training steps before the current copy was made.
    """

    def __init__(self, training: "Training") -> None:
        self._training = training
        self.copy_weights()
        self.step, arrays = self._copy
        self._load(training.stored_model(dict(arrays)), "numpy")

    def copy_weights(self) -> None:
        """Copy the weights; only the training thread may call this."""
        weights = self._training.bilm.arrays(softmax=False)
        arrays = {name: values.copy() for name, values in weights.items()}
        # Assign both at once, so that another thread never gets the step of a different copy.
        self._copy = self._training.step, arrays

    def embed(self, *args: Any, **kwargs: Any) -> Any:
        """Embed with the latest copy; see `ElmoEmbedder.embed`."""
        step, arrays = self._copy
        if step != self.step:
            self._encoder = SentenceEncoder(NumpyRuntime(self._encoder.architecture, arrays))
            self.step = step
        return super().embed(*args, **kwargs)

    def heatmap_title(self, layer: str | int) -> str:
        """Return a title for a heatmap, with the number of training steps of the current copy."""
        return f"{super().heatmap_title(layer)}, after {self.step:,} steps"


class ModelOnDisk(ModelInTraining):
    """The latest checkpoint of a run that another process trains."""

    def __init__(self, parameters: Parameters) -> None:
        self._checkpoints = Checkpoints(parameters.run_path, keep=1)
        self._path: Path | None = None
        self.read_latest()
        self.step, arrays = self._copy
        rules = {name: getattr(parameters, name) for name in Tokenizer.model_fields}
        tokenizer, architecture = Tokenizer(**rules), parameters.architecture
        self._load(StoredModel(architecture, dict(arrays), tokenizer=tokenizer), "numpy")

    def read_latest(self) -> bool:
        """Read the latest checkpoint. Return whether it differs from the checkpoint read before."""
        path, before = self._checkpoints.latest(), self._path
        if path != before and path is not None:
            self._copy, self._path = read_layers(path), path
        return self._path != before
