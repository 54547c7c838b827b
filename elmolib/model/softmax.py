"""The cross entropy of the next word, over the whole vocabulary or over sampled negatives."""

from keras import ops

from elmolib.backend import jit


def softmax_loss(outputs, targets, W, b):
    """Compute the cross entropy (tokens,) in nats of each target over the whole vocabulary."""
    logits = ops.matmul(outputs, ops.transpose(W)) + b  # (tokens, vocabulary)
    target_logits = ops.take_along_axis(logits, targets[:, None], axis=1)[:, 0]
    return ops.logsumexp(logits, axis=1) - target_logits


def sampled_softmax_loss(
    outputs, targets, W, b, negatives, log_expected_targets, log_expected_negatives
):
    """Compute the cross entropy (tokens,) in nats of each target against the same negatives.

    The log of a word's expected count in the sample is subtracted from the logit of the word.
    If a negative equals the target of a token, this negative is left out for this token.

    Args:
        outputs: the outputs of the LSTMs, a float tensor (tokens, projection_dim).
        targets: row numbers in `W`, an integer tensor (tokens,).
        W, b: the used rows of the softmax, float tensors (rows, projection_dim) and (rows,).
        negatives: row numbers in `W`, all different, an integer tensor (samples,).
        log_expected_targets, log_expected_negatives: the logs of the expected counts, float tensors
            (tokens,) and (samples,).

    References:
        Jean et al. 2015, arXiv:1412.2007; TensorFlow's `sampled_softmax_loss`.
    """
    products = ops.sum(outputs * ops.take(W, targets, axis=0), axis=1)  # (tokens,)
    target_logits = products + ops.take(b, targets, axis=0) - log_expected_targets
    negative_W = ops.take(W, negatives, axis=0)
    negative_b = ops.take(b, negatives, axis=0) - log_expected_negatives
    numbers = ops.arange(negatives.shape[0], dtype="int32") + 1
    index_of_row = ops.scatter(negatives[:, None], numbers, (ops.shape(W)[0],)) - 1
    own = ops.take(index_of_row, targets, axis=0)  # among the negatives, or -1
    others = _log_sum_exp(outputs, negative_W, negative_b, own)
    return ops.softplus(others - target_logits)


@ops.custom_gradient
def _log_sum_exp(outputs, W, b, own):
    """Compute the log-sum-exp (tokens,) of each token's logits without the logit of index `own`.

    The arrays (tokens, samples) are the largest in training. The hand-written gradient needs one of
    them; automatic differentiation would need several.
    """
    products = ops.matmul(outputs, ops.transpose(W))  # (tokens, samples)
    exponentials, total, largest = jit(_exponentials)(products, b, own)

    def gradient(upstream):
        # Apply `scale` to arrays with short rows, because the rows of `exponentials` are long.
        scale = (upstream / total)[:, None]
        by_outputs = ops.matmul(exponentials, W) * scale
        by_W = ops.matmul(ops.transpose(exponentials), outputs * scale)
        by_b = ops.matmul(ops.transpose(scale), exponentials)[0]
        return by_outputs, by_W, by_b, None

    return ops.log(total) + largest, gradient


def _exponentials(products, b, own):
    """Return `exp(logits - row maximum)` (tokens, samples), its sum per row, and the row maxima."""
    indices = ops.arange(products.shape[1], dtype="int32")
    logits = ops.where(indices == own[:, None], -1e30, products + b)
    largest = ops.max(logits, axis=1)
    exponentials = ops.exp(logits - largest[:, None])
    return exponentials, ops.sum(exponentials, axis=1), largest
