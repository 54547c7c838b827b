"""Compute the vectors of words, with any runtime that can compute the layers of a model."""
