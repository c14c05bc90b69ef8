"""The server: hypercorn hardened, draining, and the supervisor of several processes."""
