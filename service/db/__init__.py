"""PostgreSQL: one pool, forward-only migrations. Capabilities keep their SQL in their own store files."""
