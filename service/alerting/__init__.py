"""Alerts on their way to on-call: from Alertmanager's webhook to Sentry."""
