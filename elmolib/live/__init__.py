"""Reports on a model in training, its dashboard, and a box that draws heatmaps of typed text."""
