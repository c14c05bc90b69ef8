"""Plots of what grows, as SVG, from the figures that the last bench has kept: `.venv/bin/python -m bench.plots`."""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, log10

from bench.report import stored
from bench.scenario import Figures, medians
from bench.venvs import ROOT

FOLDER = ROOT / "docs" / "img"
WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 64, 32, 44, 76
TICKS = 4
COLOURS = ("#0b6bcb", "#7a7a7a", "#c2571a")

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Plot:
    """`curves` names figures by their pattern, with `N` where the size stands; `log` spaces the sizes by powers."""

    file: str
    title: str
    scenario: str
    x: str
    curves: Mapping[str, str]
    log: bool = False


SERVERS = {"ATP": "atp", "bare Starlette on hypercorn": "bare", "python-socketio": "socketio"}
PLOTS = (
    Plot(
        "socket-memory",
        "Resident memory of one idle WebSocket, KB",
        "sockets",
        "sockets",
        {name: f"{server}_N_rss_kb" for name, server in SERVERS.items()},
    ),
    Plot(
        "broadcast",
        "A broadcast to all sockets: p99 of its arrival, ms",
        "sockets",
        "sockets",
        {name: f"{server}_N_broadcast_p99_ms" for name, server in SERVERS.items()},
    ),
    Plot(
        "presence-stats",
        "Presence: time of get_stats, ms",
        "presence",
        "sessions",
        {
            "p50": "N_stats_p50_ms",
            "p50 with 1,000, by turns": "N_least_stats_p50_ms",
            "p99": "N_stats_p99_ms",
        },
        log=True,
    ),
    Plot(
        "usage-report",
        "A report of usage: p50, ms",
        "usage",
        "rows",
        {
            "one user of 3,000 rows, 30 days by day and agent": "N_own_days_p50_ms",
            "the same of all users": "N_all_days_p50_ms",
        },
        log=True,
    ),
)


class Scale:
    """Where a size and a value lie on the picture, in px; values begin at 0."""

    def __init__(self, points: Sequence[tuple[float, float]], log: bool) -> None:
        self._log = log
        sizes = [self._spaced(size) for size, _ in points]
        self._low = min(sizes) if log else 0.0
        self._span = max(sizes) - self._low or 1.0
        self.top = rounded(max(value for _, value in points))

    def _spaced(self, size: float) -> float:
        return log10(size) if self._log else size

    def x(self, size: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (self._spaced(size) - self._low) / self._span

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / self.top


def rounded(value: float) -> float:
    """The next number above that divides well by TICKS."""
    power = 10 ** (ceil(log10(value)) - 1)
    return float(next(step * power for step in (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10) if step * power >= value))


def drawn(plot: Plot, figures: Figures) -> str:
    """The whole SVG; colours read on white and on black."""
    curves = {name: points_of(pattern, figures) for name, pattern in plot.curves.items()}
    scale = Scale([point for points in curves.values() for point in points], plot.log)
    sizes = sorted({size for points in curves.values() for size, _ in points})
    parts = [
        text(LEFT, 24, plot.title, "font-size='15' font-weight='600'"),
        *value_axis(scale),
        *(text(scale.x(size), HEIGHT - BOTTOM + 18, f"{size:,.0f}", "text-anchor='middle'") for size in sizes),
        text(WIDTH / 2, HEIGHT - BOTTOM + 36, plot.x, "text-anchor='middle'"),
    ]
    for number, (name, points) in enumerate(curves.items()):
        parts += curve(scale, points, COLOURS[number])
        parts += legend(number, name, COLOURS[number])
    head = f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {HEIGHT}' font-family='sans-serif'"
    return "\n".join([f"{head} font-size='12' fill='#777'>", *parts, "</svg>\n"])


def points_of(pattern: str, figures: Figures) -> Points:
    matcher = re.compile(re.escape(pattern).replace("N", r"(\d+)"))
    found = ((matcher.fullmatch(name), value) for name, value in figures.items())
    return sorted((float(match[1]), value) for match, value in found if match)


def value_axis(scale: Scale) -> Iterator[str]:
    for tick in range(TICKS + 1):
        value = scale.top * tick / TICKS
        y = scale.y(value)
        yield f"<line x1='{LEFT}' x2='{WIDTH - RIGHT}' y1='{y:.1f}' y2='{y:.1f}' stroke='#7773'/>"
        yield text(LEFT - 8, y + 4, f"{value:,g}", "text-anchor='end'")


def curve(scale: Scale, points: Points, colour: str) -> Iterator[str]:
    places = [(scale.x(size), scale.y(value)) for size, value in points]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    yield f"<polyline points='{line}' fill='none' stroke='{colour}' stroke-width='2'/>"
    for (x, y), (_, value) in zip(places, points, strict=True):
        yield f"<circle cx='{x:.1f}' cy='{y:.1f}' r='3.5' fill='{colour}'><title>{value:.3g}</title></circle>"


def legend(number: int, name: str, colour: str) -> Iterator[str]:
    x, y = LEFT + 190 * number, HEIGHT - 16
    yield f"<rect x='{x}' y='{y - 9}' width='10' height='10' fill='{colour}'/>"
    yield text(x + 16, y, name)


def text(x: float, y: float, content: str, more: str = "") -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' {more}>{escape(content)}</text>"


def main() -> None:
    results = stored()
    FOLDER.mkdir(exist_ok=True)
    for plot in PLOTS:
        if plot.scenario not in results:
            sys.exit(f"bench: no figures of {plot.scenario}: run `python -m bench --only {plot.scenario}` first")
        (FOLDER / f"{plot.file}.svg").write_text(drawn(plot, medians(results[plot.scenario])))


if __name__ == "__main__":
    main()
