"""Live sockets of this process, and the bus that joins them to those of every other node."""
