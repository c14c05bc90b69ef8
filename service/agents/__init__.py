"""Agents, the models they run on, and running them."""
