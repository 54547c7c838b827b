"""The one style of all pictures, and the figures they are drawn on.

Nothing here touches pyplot's hidden current figure, so any thread may draw. Figures show
themselves as the last expression of a notebook's cell: `heatmap(...).figure`.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import LayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from elmolib.errors import ElmolibError
from elmolib.files import replacing

sns.set_theme(
    context="notebook",
    style="ticks",
    palette="colorblind",
    rc={"axes.spines.top": False, "axes.spines.right": False, "figure.dpi": 100},
)

FORWARD_COLOUR, BACKWARD_COLOUR, MEAN_COLOUR = sns.color_palette("colorblind")[:3]
COLOURS = {"mean": MEAN_COLOUR, "forward": FORWARD_COLOUR, "backward": BACKWARD_COLOUR}

MARKERS = "osD^vP*X"
"""What belongs together has a shape of its own too, for those who cannot tell the colours apart."""

THOUSANDS = FuncFormatter(lambda value, _: f"{value:,.0f}")
"""Writes 10000 as 10,000."""


class Picture(Figure):
    """A figure that notebooks can show without pyplot."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        FigureCanvasAgg(self)

    def _repr_png_(self) -> bytes:
        return png(self)


def png(figure: Figure) -> bytes:
    """Draw a figure as the bytes of a PNG file.

    Args:
        figure: any figure.
    """
    canvas = figure.canvas
    if not isinstance(canvas, FigureCanvasAgg):
        canvas = FigureCanvasAgg(figure)
    with io.BytesIO() as file:
        # `savefig` would draw twice.
        canvas.print_png(file)
        return file.getvalue()


class _Abandoned(Exception):
    """Nobody wants the picture any more."""


def png_if_wanted(figure: Figure, is_wanted: Callable[[], bool]) -> bytes | None:
    """Draw a figure that may become stale meanwhile.

    Args:
        figure: any figure; one that was abandoned can be drawn anew.
        is_wanted: asked again and again while it is drawn.

    Returns:
        the bytes of a PNG file, or None as soon as the picture was no longer wanted.
    """
    renderer = FigureCanvasAgg(figure).get_renderer()

    def checked(act: Callable) -> Callable:
        def checked_act(*args, **kwargs):
            if not is_wanted():
                raise _Abandoned
            return act(*args, **kwargs)

        return checked_act

    # What all words of a picture come by, so every few milliseconds.
    names = ("draw_text", "get_text_width_height_descent")
    for name in names:
        setattr(renderer, name, checked(getattr(renderer, name)))
    try:
        return png(figure)
    except _Abandoned:
        return None
    finally:
        for name in names:
            delattr(renderer, name)


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure to a file, whole or not at all.

    Args:
        figure: any figure.
        path: ends in `.png` or `.svg`; replaced if it exists.

    Raises:
        ElmolibError: the path ends in something else, or cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (".png", ".svg"):
        raise ElmolibError(f"{path} must end in .png or .svg, the two forms of a picture.")
    try:
        with replacing(path) as unfinished:
            figure.savefig(unfinished, format=suffix[1:], dpi=150)
    except OSError as error:
        raise ElmolibError(f"{path} cannot be written: {error.strerror}.") from None


def new_axes(
    width: float = 7.2, height: float = 4.2, layout: str | LayoutEngine = "constrained"
) -> Axes:
    """Make a figure of so many inches with one pair of axes."""
    return Picture(figsize=(width, height), layout=layout).add_subplot()


def note(ax: Axes, text: str) -> Axes:
    """Say in words why there is nothing to draw."""
    ax.set_axis_off()
    ax.text(0.5, 0.5, text, ha="center", va="center", transform=ax.transAxes)
    return ax


def all_digits() -> FuncFormatter:
    """Write numbers with all digits that a narrow range needs."""
    return FuncFormatter(lambda value, _: f"{value:,.10g}")


def logarithmic(ax: Axes) -> None:
    """Make the vertical axis logarithmic, with numbers on it whatever its range."""
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    # Powers of ten and their halves leave a narrow range without any number.
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)) if high > 4 * low else MaxNLocator(5))
    ax.yaxis.set_major_formatter(all_digits())
    ax.yaxis.set_minor_locator(NullLocator())
