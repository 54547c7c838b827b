"""Measure speed and memory against bilm-tf and simple-elmo; downstream tasks are in `tasks`."""
