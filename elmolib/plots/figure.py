"""The style of all pictures, and functions that create, draw and save figures."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock

import matplotlib
import seaborn as sns
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from elmolib.errors import ElmolibError
from elmolib.files import atomic_write, write_errors
from elmolib.plots.fonts import USUAL

PALETTE = sns.color_palette("colorblind")
COLOURS = dict(zip(("forward", "backward", "mean"), PALETTE, strict=False))
MARKERS = "osD^vP*X"  # shapes of points, for readers who cannot distinguish the colours
SHAPES = {"mean": "o", "forward": "s", "backward": "D"}
PLAIN_NUMBERS = "{x:,.10g}"  # the format of tick labels: 10,000, not 1e4 or 10000.00

_STYLE = {
    **sns.axes_style("ticks"),
    **sns.plotting_context("notebook"),
    "axes.prop_cycle": cycler(color=PALETTE),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.dpi": 100,
    "font.family": [USUAL],
}
_LOCK = RLock()


@contextmanager
def style() -> Iterator[None]:
    """Use elmolib's style in one thread at a time, because settings belong to the whole process."""
    with _LOCK, matplotlib.rc_context(_STYLE):
        yield


class Picture(Figure):
    """A figure in elmolib's style, which notebooks show without pyplot."""

    def __init__(self, width: float, height: float) -> None:
        with style():
            super().__init__(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(self)

    def draw(self, renderer: RendererBase) -> None:
        """Draw in elmolib's style, because Matplotlib creates most ticks only while it draws."""
        with style():
            super().draw(renderer)

    def _repr_png_(self) -> bytes:
        return png(self)


def png(figure: Picture) -> bytes:
    """Draw a picture, and return the bytes of a PNG file."""
    canvas: FigureCanvasAgg = figure.canvas
    file = io.BytesIO()
    canvas.print_png(file)  # savefig would run the layout twice
    return file.getvalue()


def save(figure: Figure, path: str | Path) -> None:
    """Replace a `.png` or `.svg` file atomically; raise an ElmolibError if it is not possible."""
    suffix = Path(path).suffix.lower()
    if suffix not in (".png", ".svg"):
        raise ElmolibError(f"{path} must end in .png or .svg.")
    with write_errors(path, ElmolibError, "choose another place"), atomic_write(path) as unfinished:
        figure.savefig(unfinished, format=suffix[1:], dpi=150)


@style()
def new_axes(width: float = 7.2, height: float = 4.2) -> Axes:
    """Create a figure of this size in inches, and return its only axes."""
    return Picture(width, height).add_subplot()


def show_message(ax: Axes, text: str) -> Figure:
    """Show a message instead of data, and return the figure."""
    ax.set_axis_off()
    ax.text(0.5, 0.5, text, ha="center", va="center", transform=ax.transAxes)
    return ax.get_figure(root=True)


def perplexity_ticks(axis: Axis, low: float, high: float) -> None:
    """Label a logarithmic axis of any range, from `low` to `high`."""
    digits = (1, 2, 5) if high < 200 * low else (1,)
    # A narrow range may contain none of the usual ticks (1, 2 or 5 times a power of ten).
    usual = LogLocator(subs=digits, numticks=20)
    axis.set_major_locator(MaxNLocator(5) if high < 4 * low else usual)
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(PLAIN_NUMBERS)
