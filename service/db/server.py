"""Where PostgreSQL is, as spans tell it."""

import psycopg
from psycopg.conninfo import conninfo_to_dict


def server_of(dsn: str) -> dict[str, str | int]:
    """The one server's address; of several it is not known which one answers."""
    try:
        told = conninfo_to_dict(dsn)
    except psycopg.Error:  # connecting says it, with words
        return {}
    host, port = str(told.get("host") or ""), str(told.get("port") or 5432)
    if not host or "," in host:
        return {}
    return {"server.address": host, **({"server.port": int(port)} if port.isdigit() else {})}
