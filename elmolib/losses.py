"""The cross entropy of the next word, over all words or over a sample of them."""

from __future__ import annotations

from keras import ops

from elmolib.fused import fused


def softmax_loss(outputs, targets, W, b):
    """Cross entropy over the whole vocabulary.

    Args:
        outputs: float tensor (tokens, projection_dim).
        targets: integer tensor (tokens,), the ids to predict.
        W: float tensor (vocabulary, projection_dim).
        b: float tensor (vocabulary,).

    Returns:
        float tensor (tokens,), in nats.
    """
    logits = ops.matmul(outputs, ops.transpose(W)) + b  # (tokens, vocabulary)
    target_logits = ops.take_along_axis(logits, targets[:, None], axis=1)[:, 0]
    return ops.logsumexp(logits, axis=1) - target_logits


def sampled_softmax_loss(
    outputs, targets, negatives, W, b, log_expected_targets, log_expected_negatives
):
    """Cross entropy over each token's target and a sample of other words common to all tokens.

    The logarithm of how often a word is expected in such a sample is subtracted from its logit.
    A negative that is a token's target is left out for that token.

    Args:
        outputs: float tensor (tokens, projection_dim).
        targets: integer tensor (tokens,), rows of `W`.
        negatives: integer tensor (samples,), rows of `W`, all different.
        W: float tensor (rows, projection_dim), of which only the rows named are used.
        b: float tensor (rows,).
        log_expected_targets: float tensor (tokens,).
        log_expected_negatives: float tensor (samples,).

    Returns:
        float tensor (tokens,), in nats.

    References:
        Jean et al. 2015, arXiv:1412.2007; TensorFlow's `sampled_softmax_loss`.
    """
    target_logits = (
        ops.sum(outputs * ops.take(W, targets, axis=0), axis=1)
        + ops.take(b, targets, axis=0)
        - log_expected_targets
    )  # (tokens,)
    negative_W = ops.take(W, negatives, axis=0)
    negative_b = ops.take(b, negatives, axis=0) - log_expected_negatives
    own = _places(targets, negatives, ops.shape(W)[0])
    others = _log_sum_exp(outputs, negative_W, negative_b, own)
    return ops.softplus(others - target_logits)


def _places(targets, negatives, n_rows):
    """Find where each target stands among the negatives; -1 where it does not."""
    numbers = ops.arange(negatives.shape[0], dtype="int32") + 1
    place_of_row = ops.scatter(negatives[:, None], numbers, (n_rows,)) - 1
    return ops.take(place_of_row, targets, axis=0)


@ops.custom_gradient
def _log_sum_exp(outputs, W, b, own):
    """Logarithm of the summed exponentials of a token's logits, leaving out the one at `own`.

    The largest arrays of training are made here, (tokens, samples). Written out, the gradient
    needs one new one where automatic differentiation makes several.

    Args:
        outputs: float tensor (tokens, projection_dim).
        W: float tensor (samples, projection_dim).
        b: float tensor (samples,).
        own: int32 tensor (tokens,), a place to leave out, or -1.

    Returns:
        float tensor (tokens,).
    """
    products = ops.matmul(outputs, ops.transpose(W))  # (tokens, samples)
    exponentials, total, largest = fused(_exponentials)(products, b, own)

    def gradient(upstream):
        # Rows are scaled where they are short, not where they are as long as there are samples.
        scale = (upstream / total)[:, None]
        by_outputs = ops.matmul(exponentials, W) * scale
        by_W = ops.matmul(ops.transpose(exponentials), outputs * scale)
        by_b = ops.matmul(ops.transpose(scale), exponentials)[0]
        return by_outputs, by_W, by_b, None

    return ops.log(total) + largest, gradient


def _exponentials(products, b, own):
    """Return (tokens, samples) shares not yet divided by their sums, the sums, and the maxima."""
    places = ops.arange(products.shape[1], dtype="int32")
    logits = ops.where(places == own[:, None], -1e30, products + b)
    largest = ops.max(logits, axis=1)
    exponentials = ops.exp(logits - largest[:, None])
    return exponentials, ops.sum(exponentials, axis=1), largest
