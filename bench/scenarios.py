"""Every scenario of `make bench`, in the order of the table."""

from bench import chat, models, streams

SCENARIOS = (models.SCENARIO, chat.SCENARIO, streams.SCENARIO)
