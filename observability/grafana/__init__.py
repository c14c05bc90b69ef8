"""Grafana: the provisioning, the dashboards, and the Python that writes them."""
