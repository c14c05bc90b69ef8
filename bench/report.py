"""The table of ratios, and docs/bench.md around it."""

import json
import statistics
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from bench.machine import facts
from bench.scenario import Figures, Line, Scenario, medians, ratio
from bench.venvs import FOLDER, ROOT

Results = Mapping[str, Sequence[Figures]]  # rounds by scenario

RESULTS = FOLDER / "results.json"

HEAD = "| what | ATP | peer | peer's | ratio | reach | met |\n|---|---:|---|---:|---:|---|---|"
PAGE = """# Bench

`make bench` measures all of this; `python -m bench --only NAME` one scenario, and the rest stays as it was. {facts}.

Medians of interleaved rounds: {rounds}.
Ratios are medians of the rounds' ratios, so they may differ from the quotient of the two medians beside them.

{table}

## How it is measured
{method}
## How noisy it was
The share of core 0 that other processes took, in the attempts that count: the median, and the worst round.

{noise}
"""
METHOD = """
- The server under test runs alone on core 0, one process, started anew for every round. On core 1: the load generator,
  the scripted model, PostgreSQL (fsync on), Valkey, the trace collector. Other jobs of the machine may run on both.
- Each load waits for a quiet moment, runs again when others took more than 5 % of core 0, and the quietest attempt
  counts. A failed or cut answer ends the bench.
- **models**: 16 keep-alive clients in a closed loop. ATP does what it does in production: request id, key, metrics,
  span, one JSON log line per request into a file; "every trace exported" sends each span to a collector over OTLP/HTTP.
  The peer returns the same bytes from a bare route on plain hypercorn with uvloop.
- **chat**: the scripted model answers 20 ms after it was asked. "Added" is the client's quantile minus the same
  quantile of the same load on the model itself. ATP answers when the usage row is on disk; LiteLLM has no database.
- **streams**: every token is the time it was sent, so its lateness is read off one clock. A number of streams passes
  when p99 lateness is at most 20 ms and none is cut; the largest passing one counts, found to about 15 %.
- **sockets**: raw clients in two processes of half the sockets each, 200 handshakes in flight. A socket counts as
  connected when the server has said so over it. RSS is what the server has grown by since it held none. A broadcast
  carries the moment at which it was asked for over HTTP (ATP writes an audit row first, and reads it back from Redis
  like every node); its lateness is taken at each socket. Figures are medians of ten broadcasts; one that does not reach
  every socket once ends the bench. The bare server gathers a send to each of a set of sockets. python-socketio has its
  Redis manager, runs in a venv of its own on uvicorn with uvloop and httptools, WebSocket transport only, and answers
  echoes by acknowledgement. Stalled clients have a small receive buffer and the segment size of the internet, and stop
  reading: the first broadcasts fill what the kernel holds for them. In the storm every client is closed at once and
  connects again at once; meanwhile 40 requests a second are sent at fixed moments, whatever became of the last ones.
- **presence**: the tracker's own calls from a process on core 0; a Valkey without persistence on core 1, with one
  session for each user. "The script alone" is the same Lua called for one session at a time through the same client.
- **cached**: the same question, which every server has answered before; ATP's row is on disk before each answer, its
  span is exported. With 64 clients a core is full; with 16 ATP waits a tenth of the time for its databases, and the
  bare server has none. That reads the same body and returns the same bytes. LiteLLM has its Redis cache on.
- **telemetry**: that question again, 64 clients, to seven nodes that run side by side with more or less of their
  telemetry on, in eight turns of a second, each time in another order; the peer is the node with metrics alone. Spans
  go to a collector, Sentry to a server that takes everything; nothing fails. The scrape is OpenMetrics by the real
  route, of a process with all the label sets and exemplars that it may have; the stall is the longest that a timer of
  1 ms was late.
- **limits**: the limiter's own calls from a process on core 0, a Valkey on core 1; the `limits` library does what an
  answer with headers needs, `hit` and `get_window_stats`. Over-admission: one key, asked evenly, a node at a time;
  in any second counts what was asked and answered within it, so certainly admitted in it.
- **ledger**: the ledger's own calls from a process on core 0, PostgreSQL with fsync on core 1; "rows without sums" is
  the same insert without the hourly and daily sums.
- **tasks**: the worker, alone on core 0 but for an idle node, begins when all tasks are in the queue; no two texts are
  the same, the model answers at once. The bare engine is procrastinate as it comes, with as many jobs that do nothing.
  A lone user's task goes over HTTP, its start is read off its row: both clocks are one machine's. Scheduled ones are
  due in a week; behind another's, every place of the worker is taken, by tasks of half a second, and the wait counts
  from the first that ends.
- **usage**: rows are real at every size, a hundred users over 13 months. The one user has the same 3,000 rows at every
  size: what is shown is what others' rows cost him. Filled once, in the last round, and each question asked 150 times.
- LiteLLM proxy runs in a venv of its own, one worker, one model, a master key, telemetry off.
- `server CPU` is the kernel's own count of the server's time per answer: neighbours hardly move it.
- The generator answers for itself: against the scripted model it does above 40,000 req/s, and in no measurement did it
  use more than {generator:.0%} of its core.
"""


def table(scenarios: Sequence[Scenario], results: Results) -> str:
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


def noise(results: Results) -> str:
    """How much of the server's core other processes took, by load; with nothing under test there is none to tell."""
    lines = []
    for name, rounds in results.items():
        keys = [key for key in rounds[0] if key.endswith("_others_share") and not key.startswith("direct")]
        for key in keys:
            shares = [figures[key] for figures in rounds]
            load = key.removesuffix("_others_share").replace("_", " ")
            lines.append(f"- {name}, {load}: {statistics.median(shares):.0%}, {max(shares):.0%}")
    return "\n".join(lines)


def generator_share(results: Results) -> float:
    rounds = [figures for of_scenario in results.values() for figures in of_scenario]
    return max(value for figures in rounds for key, value in figures.items() if key.endswith("_cpu_share"))


def store(results: Results) -> None:
    """Keep every round's figures; scenarios that were not measured keep those they had."""
    today = datetime.now(UTC).date().isoformat()
    new = {name: {"on": today, "rounds": rounds} for name, rounds in results.items()}
    RESULTS.write_text(json.dumps({**kept(), **new}, indent=1))


def kept() -> dict[str, Any]:
    return dict(json.loads(RESULTS.read_text())) if RESULTS.exists() else {}


def stored() -> Results:
    return {name: measured["rounds"] for name, measured in kept().items()}


def write(scenarios: Sequence[Scenario]) -> bool:
    """docs/bench.md, whole, from the figures that are kept; False while some scenario has none."""
    found, results = kept(), stored()
    if any(scenario.name not in found for scenario in scenarios):
        return False
    told = [f"{each.name} {len(results[each.name])} ({found[each.name]['on']})" for each in scenarios]
    page = PAGE.format(
        facts=facts(),
        rounds=", ".join(told),
        table=table(scenarios, results),
        method=METHOD.strip().format(generator=generator_share(results)) + "\n",
        noise=noise({each.name: results[each.name] for each in scenarios}),
    )
    (ROOT / "docs" / "bench.md").write_text(page)
    return True
