"""`make bench`: ATP beside its peers on this machine, as one table of ratios. Linux, two cores.

Every round measures every scenario once, so that a noisy minute meets all sides; the table has the medians.
"""

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Sequence

from bench.report import store, table, write
from bench.scenario import Figures, Round, Scenario
from bench.scenarios import scenarios
from bench.servers import open_stage

QUICK_S, USUAL_S = 1.5, 4.0


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="ATP beside its peers: a table of ratios.")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="rounds; medians are shown (default: 5)")
    parser.add_argument("--only", action="append", choices=[s.name for s in scenarios()], help="just this scenario")
    parser.add_argument("--quick", action="store_true", help="one short round: to see that it works, not for figures")
    parsed = parser.parse_args()
    if parsed.quick:
        parsed.rounds = 1
    return parsed


async def run(chosen: Sequence[Scenario], rounds: int, seconds: float, keep: bool) -> dict[str, list[Figures]]:
    """The figures of each round, by scenario; with `keep` they are stored as they come, so that none is lost."""
    results: dict[str, list[Figures]] = {}
    this = asyncio.current_task()
    assert this is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)  # as Ctrl-C: every server is stopped
    async with open_stage() as stage:
        for number in range(1, rounds + 1):
            for scenario in (each for each in chosen if number == rounds or not each.once):
                so_far = results.setdefault(scenario.name, [])
                so_far.append(await scenario.measure(Round(stage, seconds, tuple(so_far))))
                shown = {key: round(value, 3) for key, value in so_far[-1].items()}
                print(f"bench: round {number} {scenario.name} {json.dumps(shown)}", file=sys.stderr, flush=True)
                if keep:
                    store(results)
    return results


def main() -> None:
    chosen_options = options()
    known = scenarios(chosen_options.quick)
    chosen = [s for s in known if not chosen_options.only or s.name in chosen_options.only]
    seconds = QUICK_S if chosen_options.quick else USUAL_S
    keep = not chosen_options.quick
    results = asyncio.run(run(chosen, chosen_options.rounds, seconds, keep))
    print(table(chosen, results))
    if keep:
        write(known)


if __name__ == "__main__":
    main()
