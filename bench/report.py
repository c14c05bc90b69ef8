"""The table of ratios, and docs/bench.md around it."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from bench.machine import facts
from bench.scenario import Figures, Line, Scenario, medians, ratio
from bench.venvs import ROOT

HEAD = "| what | ATP | peer | peer's | ratio | reach | met |\n|---|---:|---|---:|---:|---|---|"
PAGE = """# Bench

One run of `{command}` on {date}, one after the other on one machine: {facts}. Medians of {rounds} interleaved rounds.
Ratios are medians of the rounds' ratios, so they may differ from the quotient of the two medians beside them.

{table}

## How it is measured
{method}
## How noisy it was
{noise}
"""
METHOD = """
- The server under test runs alone on core 0. On core 1: the load generator, the scripted model, PostgreSQL (fsync on),
  Valkey, the trace collector.
"""


def table(scenarios: Sequence[Scenario], results: Mapping[str, Sequence[Figures]]) -> str:
    rows = [row(line, results[scenario.name]) for scenario in scenarios for line in scenario.lines]
    return "\n".join([HEAD, *rows])


def row(line: Line, rounds: Sequence[Figures]) -> str:
    middle = medians(rounds)
    times = ratio(line, rounds) if line.peer else None
    cells = [
        line.what,
        line.shown.format(middle[line.atp]),
        line.peer_name or "-",
        line.shown.format(middle[line.peer]) if line.peer else "-",
        line.shown_ratio.format(times) if times is not None else "-",
        *judged(line, middle[line.atp], times),
    ]
    return f"| {' | '.join(cells)} |"


def judged(line: Line, value: float, times: float | None) -> tuple[str, str]:
    if line.reach is None:
        return "", ""
    bounded = times if line.reach.on_ratio else value
    assert bounded is not None, "a bound on a ratio needs a peer"
    return line.reach.text, "yes" if line.reach.met(bounded) else "**no**"


def noise(results: Mapping[str, Sequence[Figures]]) -> str:
    """How much of the server's core other processes took, by load: the median and the worst round."""
    lines = []
    for name, rounds in results.items():
        shares = {key: [figures[key] for figures in rounds] for key in rounds[0] if key.endswith("others_share")}
        for key, values in shares.items():
            middle = sorted(values)[len(values) // 2]
            lines.append(f"- {name}, {key.removesuffix('_others_share')}: {middle:.0%}, at worst {max(values):.0%}")
    return "\n".join(lines)


def write(
    made: str, scenarios: Sequence[Scenario], results: Mapping[str, Sequence[Figures]], arguments: list[str]
) -> None:
    """docs/bench.md, whole."""
    page = PAGE.format(
        command=" ".join(["make bench" if not arguments else "python -m bench", *arguments]),
        date=datetime.now(UTC).date(),
        facts=facts(),
        rounds=len(next(iter(results.values()))),
        table=made,
        method=METHOD.strip() + "\n",
        noise=noise(results),
    )
    (ROOT / "docs" / "bench.md").write_text(page)
