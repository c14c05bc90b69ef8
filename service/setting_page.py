"""`docs/settings.md`, made from the settings: `python -m service.setting_page` writes it."""

from pathlib import Path

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from service.settings import SECRETS, Settings


def as_markdown() -> str:
    """Every setting as a row of a table."""
    rows = [
        f"| `{name.upper()}`{' (secret)' if name in SECRETS else ''} | {default_of(field)} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    head = "# Settings\n\nEnvironment variables; made from `service/settings.py` by `make docs`. A secret may also be "
    head += (
        "given as `<NAME>_FILE`, the path of a file that holds it.\n\n| variable | default | what |\n|---|---|---|\n"
    )
    return head + "\n".join(rows) + "\n"


def default_of(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    shown = value.get_secret_value() if isinstance(value, SecretStr) else value
    if isinstance(shown, list):
        shown = ",".join(shown)
    return f"`{shown}`" if shown not in ("", None, {}) else "empty"


if __name__ == "__main__":
    Path("docs/settings.md").write_text(as_markdown())
