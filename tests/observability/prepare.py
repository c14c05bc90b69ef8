"""What these tests fetch and build once for a checkout, under `.tools/`: `make test` does it before the suite.

A test that comes first would do it as well, and may run out of its time.
"""

import sys
import time
from collections.abc import Callable
from subprocess import SubprocessError

from tests.observability import bugsink, schema_check
from tests.observability.preview import bundle

PARTS: dict[str, Callable[[], object]] = {
    "Sentry's stand-in": bugsink.prepare,
    "Grafana's schema and grammar": schema_check.packages,
    "Grafana's components": bundle.bundled,
}


def main() -> None:
    for name, prepare in PARTS.items():
        started = time.monotonic()
        try:
            prepare()
        except (SubprocessError, OSError, RuntimeError) as error:  # the tests that need it say so too
            print(f"tools: {name}: {type(error).__name__}: {str(error)[-300:]}", file=sys.stderr)
            continue
        if (took := time.monotonic() - started) > 1:
            print(f"tools: {name}: ready in {took:.0f} s")


if __name__ == "__main__":
    main()
