"""The cross entropy of the next word, over all words or over a sample of them."""

from __future__ import annotations

from keras import ops


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
    logits = ops.matmul(outputs, ops.transpose(negative_W)) + negative_b  # (tokens, samples)
    is_target = targets[:, None] == negatives[None, :]
    logits = ops.where(is_target, -1e9, logits)
    all_logits = ops.concatenate([target_logits[:, None], logits], axis=1)
    return ops.logsumexp(all_logits, axis=1) - target_logits
