"""The learned weighted sum of a biLM's layers, for use in a task's own model."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="elmolib")
class ScalarMix(keras.Layer):
    """Mix layers with weights that a task learns: `gamma * sum_l softmax(scalars)_l * layer_l`.

    At first, all scalars are 0 and gamma is 1, so the mix is the average of the layers.

    Args:
        n_layers: the number of layers; for a biLM, its LSTM layers and the character CNN.
        do_layer_norm: whether to normalize each layer first, over all features and all unmasked
            positions of the batch. The vectors of a sentence then depend on its batch.
        l2: the factor of the regularization `l2 * sum(scalars ** 2)`, which is added to the loss
            and makes the layer weights more equal.

    Call arguments:
        layers: a list of `n_layers` float tensors of the same shape (batch, time, features).
        mask: a boolean tensor (batch, time), True where there is a word; None means everywhere.
            Keras passes the masks of the layers automatically.

    Returns:
        a float tensor (batch, time, features), zero where the mask is False.

    Raises:
        ValueError: `n_layers` is below 1, `l2` is below 0, or `layers` has another length.

    Example:
        >>> mix = ScalarMix(3)
        >>> mix([keras.ops.ones((1, 4, 8)) * k for k in (1, 2, 6)])[0, 0, 0]
        <tf.Tensor: shape=(), dtype=float32, numpy=3.0>

    References:
        Peters et al. 2018, arXiv:1802.05365, section 3.2, equation 1, and section 3.3 on l2;
        `weight_layers` of bilm-tf, which normalizes without `<S>` and `</S>`. AllenNLP's class
        `Elmo` includes both marks: to reproduce its results, give layers that contain both.
    """

    def __init__(self, n_layers: int, do_layer_norm: bool = False, l2: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        if n_layers < 1:
            raise ValueError(f"n_layers is {n_layers}; there must be at least one layer to mix.")
        if not l2 >= 0.0:
            raise ValueError(f"l2 is {l2}; it must be at least 0.")
        self.n_layers, self.do_layer_norm, self.l2 = n_layers, do_layer_norm, l2
        self.supports_masking = True

    def build(self, input_shape: list[tuple[int | None, ...]]) -> None:
        if len(input_shape) != self.n_layers:
            raise ValueError(f"{self.name} mixes {self.n_layers} layers, not {len(input_shape)}.")
        regularizer = keras.regularizers.L2(self.l2) if self.l2 else None
        self.scalars = self.add_weight(
            name="scalars", shape=(self.n_layers,), initializer="zeros", regularizer=regularizer
        )
        self.gamma = self.add_weight(name="gamma", shape=(), initializer="ones")
        self.built = True

    def call(self, layers, mask=None):
        mask = self.compute_mask(layers, mask)
        if self.do_layer_norm:
            layers = [_normalized(layer, mask) for layer in layers]
        weights = self.layer_weights()
        mix = self.gamma * sum(weights[k] * layer for k, layer in enumerate(layers))
        return mix if mask is None else ops.where(mask[..., None], mix, 0.0)

    def layer_weights(self):
        """Return each layer's weight in the mix: float tensor (n_layers,) with sum 1."""
        return ops.softmax(self.scalars)

    def compute_mask(self, layers, previous_mask=None):
        # All layers have the same mask.
        if not isinstance(previous_mask, list | tuple):
            return previous_mask
        return next((mask for mask in previous_mask if mask is not None), None)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape[0])


def _normalized(layer, mask):
    """Shift and scale a layer to mean 0 and variance 1 over its unmasked values."""
    # In half precision, the sums would overflow and 1e-12 would be 0.
    x = ops.cast(layer, "float32")  # (batch, time, features)
    kept = ops.ones_like(x[..., :1]) if mask is None else ops.cast(mask[..., None], "float32")
    n_values = ops.maximum(ops.sum(kept), 1.0) * x.shape[-1]
    mean = ops.sum(x * kept) / n_values
    variance = ops.sum(ops.square((x - mean) * kept)) / n_values
    return ops.cast((x - mean) * ops.rsqrt(variance + 1e-12), layer.dtype)
