"""Pictures of data that other modules compute.

Every function that draws returns a Matplotlib `Figure`. A notebook shows the figure if the call is
the last line of a cell; `save` writes it to a file. With `ax=`, the function draws into these axes;
otherwise, it creates a figure. Drawing does not use pyplot or change settings of Matplotlib.
"""

from elmolib.errors import needs_extras

with needs_extras():
    from elmolib.plots.exploring import occurrence_maps as occurrence_maps
    from elmolib.plots.exploring import self_similarity as self_similarity
    from elmolib.plots.figure import Picture as Picture
    from elmolib.plots.figure import png as png
    from elmolib.plots.figure import save as save
    from elmolib.plots.heatmaps import heatmap as heatmap
    from elmolib.plots.heatmaps import layer_heatmaps as layer_heatmaps
    from elmolib.plots.heatmaps import layer_name as layer_name
    from elmolib.plots.scores import layer_weights as layer_weights
    from elmolib.plots.scores import learning_curve as learning_curve
    from elmolib.plots.scores import loss_by_frequency as loss_by_frequency
    from elmolib.plots.scores import loss_by_length as loss_by_length
    from elmolib.plots.scores import perplexities as perplexities
    from elmolib.plots.scores import reliability as reliability
    from elmolib.plots.scores import runs as runs
    from elmolib.plots.text import characters as characters
    from elmolib.plots.text import coverage as coverage
    from elmolib.plots.text import sentence_lengths as sentence_lengths
    from elmolib.plots.text import word_lengths as word_lengths
    from elmolib.plots.text import zipf as zipf
