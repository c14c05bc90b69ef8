"""Redis, the breaker that watches it, and the one fallback to memory."""
