"""The parameters of a run, their checks, and the names of the files in a run's folder."""
