"""Train a biLM: batches, the training step, the loop, checkpoints and fine-tuning."""
