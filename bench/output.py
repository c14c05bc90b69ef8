"""What a measuring process printed."""

import asyncio
import json
from typing import Any

PATIENCE_S = 240.0


async def printed(*command: str, patience_s: float = PATIENCE_S) -> dict[str, Any]:
    """Run it, on this process's cores unless it says others, and parse its one JSON document; RuntimeError when it
    fails."""
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(patience_s):
            output, _ = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    if process.returncode:
        raise RuntimeError(f"{command[-2]} failed with exit code {process.returncode}")
    return dict(json.loads(output))
