"""`python -m tests.embedded.parent STATE_DIR`: a parent as `atp dev` is one; prints `up`, then waits to be ended."""

import asyncio
import sys
from pathlib import Path

from service.embedded.parts import EmbeddedParts


async def main() -> None:
    async with EmbeddedParts(Path(sys.argv[1]), say=lambda line: print(line, flush=True)):
        print("up", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        print("stopped", flush=True)
