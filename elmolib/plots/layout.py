"""Where the parts of a picture stand, found quickly enough to follow someone who types."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import LayoutEngine

PAD_INCHES = 0.04
"""Room around all, as much as Matplotlib's constrained layout leaves."""

BAR_HEIGHT, BAR_SHAPE, BAR_DISTANCE = 0.76, 19.0, 0.05
"""Height of a colour bar beside that of its axes, and beside its own width; its distance from the
axes beside their width."""


class QuickLayout(LayoutEngine):
    """Fill a figure with one pair of axes and, if there is one, a colour bar at their right.

    The constrained layout does the same, but measures all words six times over, which takes as long
    as to draw them. Here they are measured once: they are as large wherever they stand.
    """

    _adjust_compatible = False
    _colorbar_gridspec = False

    def execute(self, fig: Figure) -> None:
        """Place the axes so that what stands around them fits in; called before a figure is drawn.

        Args:
            fig: a figure with one or two pair of axes, and perhaps texts at its lower edge.
        """
        ax, *bars = fig.axes
        pad = PAD_INCHES * fig.dpi
        left, below, beside, above = _around(ax)
        floor = max((text.get_window_extent().y1 for text in fig.texts), default=0.0)
        y0, y1 = floor + below + pad, fig.bbox.y1 - above - pad
        x0, x1 = left + pad, fig.bbox.x1 - beside - pad
        for bar in bars:
            height = BAR_HEIGHT * (y1 - y0)
            width = height / BAR_SHAPE
            start = fig.bbox.x1 - pad - _around(bar)[2] - width
            # The distance is a share of the axes' width, which is what remains without it.
            x1 = x0 + (start - beside - x0) / (1 + BAR_DISTANCE)
            _place(bar, start, (y0 + y1 - height) / 2, width, height)
        _place(ax, x0, y0, max(x1 - x0, 1.0), max(y1 - y0, 1.0))


def _around(ax: Axes) -> tuple[float, float, float, float]:
    """How many pixels stand out from axes: left, below, right, above."""
    inside, outside = ax.bbox, ax.get_tightbbox()
    if outside is None:
        return 0.0, 0.0, 0.0, 0.0
    return (
        max(inside.x0 - outside.x0, 0.0),
        max(inside.y0 - outside.y0, 0.0),
        max(outside.x1 - inside.x1, 0.0),
        max(outside.y1 - inside.y1, 0.0),
    )


def _place(ax: Axes, x0: float, y0: float, width: float, height: float) -> None:
    whole = ax.figure.bbox
    ax.set_position(
        (x0 / whole.width, y0 / whole.height, width / whole.width, height / whole.height)
    )
