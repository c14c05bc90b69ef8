"""Handlers, one file per group: parse, one capability call, respond."""
