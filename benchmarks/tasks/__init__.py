"""Measure on evaluation datasets how useful a model's vectors are for downstream tasks."""
