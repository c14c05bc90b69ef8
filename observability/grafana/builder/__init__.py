"""The dashboards as code: `make dashboards` writes `observability/grafana/dashboards/*.json`.

One file is one dashboard; `query`, `limits`, `links`, `panels` and `board` are the words they share.
"""
