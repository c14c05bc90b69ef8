"""Answers kept for a while: in this node's memory, in Redis for all nodes, and one call for all who ask at once."""
