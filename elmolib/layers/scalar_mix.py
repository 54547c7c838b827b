"""The learnt average of a biLM's layers that a task reads."""

from __future__ import annotations

import keras
from keras import ops

EPSILON = 1e-12


@keras.saving.register_keras_serializable(package="elmolib")
class ScalarMix(keras.Layer):
    """Mix layers by weights that a task learns: `gamma * sum_l softmax(scalars)_l * layer_l`.

    All scalars begin at 0 and gamma at 1, which is the average of the layers.

    Args:
        n_layers: how many layers are mixed; for a biLM its LSTM layers and the character CNN.
        do_layer_norm: first shift and scale each layer to mean 0 and variance 1. There is one mean
            and one variance per layer, over all positions of the batch that are not masked and all
            features, so a sentence's vectors then depend on its batch.
        l2: strength of the pull of the weights towards the average: `l2 * sum(scalars ** 2)` is
            added to the loss.

    Call arguments:
        layers: list of `n_layers` float tensors of one shape (batch, time, features).
        mask: boolean tensor (batch, time), True where there is a word, or None where there are
            words everywhere. Keras hands on the masks of the layers by itself.

    Returns:
        float tensor (batch, time, features), zero where the mask is False.

    Raises:
        ValueError: `n_layers` is below 1, `l2` below 0, or there are not `n_layers` layers.

    Example:
        >>> mix = ScalarMix(3)
        >>> mix([keras.ops.ones((1, 4, 8)) * k for k in (1, 2, 6)])[0, 0, 0]
        <tf.Tensor: shape=(), dtype=float32, numpy=3.0>

    References:
        Peters et al. 2018, arXiv:1802.05365, section 3.2, equation 1, and section 3.3 on l2;
        `weight_layers` of bilm-tf, whose statistics leave out `<S>` and `</S>`. The class `Elmo`
        of AllenNLP counts them in: give the layers with these positions for that.
    """

    def __init__(
        self, n_layers: int, do_layer_norm: bool = False, l2: float = 0.0, **kwargs
    ) -> None:
        super().__init__(**kwargs)
        if n_layers < 1:
            raise ValueError(f"n_layers is {n_layers}; there must be at least one layer to mix.")
        if not l2 >= 0.0:
            raise ValueError(f"l2 is {l2}; it must be at least 0.")
        self.n_layers = n_layers
        self.do_layer_norm = do_layer_norm
        self.l2 = l2
        self.supports_masking = True

    def build(self, input_shape: list[tuple[int | None, ...]]) -> None:
        """Create the scalars and gamma."""
        if len(input_shape) != self.n_layers:
            raise ValueError(f"{self.name} mixes {self.n_layers} layers, not {len(input_shape)}.")
        self.scalars = self.add_weight(
            name="scalars",
            shape=(self.n_layers,),
            initializer="zeros",
            regularizer=keras.regularizers.L2(self.l2) if self.l2 else None,
        )
        self.gamma = self.add_weight(name="gamma", shape=(), initializer="ones")
        self.built = True

    def call(self, layers, mask=None):
        """Mix the layers."""
        mask = self._common(mask)
        if self.do_layer_norm:
            layers = [_normalized(layer, mask) for layer in layers]
        weights = self.layer_weights()
        mix = self.gamma * sum(weights[k] * layer for k, layer in enumerate(layers))
        return mix if mask is None else ops.where(mask[..., None], mix, 0.0)

    def layer_weights(self):
        """Return each layer's share of the mix: float tensor (n_layers,) with sum 1."""
        return ops.softmax(self.scalars)

    def compute_mask(self, layers, previous_mask=None):
        """Hand on the mask of the layers."""
        return self._common(previous_mask)

    def _common(self, mask):
        """Make one mask of what Keras gives, which is a list of one for each layer."""
        if not isinstance(mask, (list, tuple)):
            return mask
        # All layers are of the same words.
        return next((each for each in mask if each is not None), None)

    def compute_output_shape(self, input_shape):
        """Return the shape of one layer."""
        return tuple(input_shape[0])

    def get_config(self) -> dict:
        """Return the arguments that make this layer again."""
        return {
            **super().get_config(),
            "n_layers": self.n_layers,
            "do_layer_norm": self.do_layer_norm,
            "l2": self.l2,
        }


def _normalized(layer, mask):
    """Shift and scale to mean 0 and variance 1 over everything that the mask keeps."""
    # Half precision can neither sum so much nor hold epsilon.
    x = ops.cast(layer, "float32")  # (batch, time, features)
    kept = ops.ones_like(x[..., :1]) if mask is None else ops.cast(mask[..., None], "float32")
    n_values = ops.maximum(ops.sum(kept), 1.0) * x.shape[-1]
    mean = ops.sum(x * kept) / n_values
    variance = ops.sum(ops.square((x - mean) * kept)) / n_values
    return ops.cast((x - mean) * ops.rsqrt(variance + EPSILON), layer.dtype)
