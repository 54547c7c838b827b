"""Measure how well a model predicts text: perplexity, predictions, intervals, calibration."""
