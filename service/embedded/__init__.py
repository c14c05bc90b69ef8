"""PostgreSQL, Valkey and a small LLM from wheels, run as child processes for `atp dev` and the tests."""
