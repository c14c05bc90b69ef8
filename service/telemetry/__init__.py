"""Metrics, traces, logs and Sentry."""
