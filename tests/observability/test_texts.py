"""What panels and runbooks say is so: the settings that they name."""

import re
from collections.abc import Iterator

import pytest

from service.settings import SECRETS, Settings
from tests.observability.boards import BOARDS, panels
from tests.observability.rules import RULES, RUNBOOKS

SETTING = re.compile(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b")


def texts() -> Iterator[tuple[str, str]]:
    for uid, board in BOARDS.items():
        for panel in panels(board):
            content = panel.get("options", {}).get("content", "")
            yield f"{uid} / {panel['title']}", f"{panel['title']} {panel['description']} {content}"
    for file in (*RULES, *RUNBOOKS):
        yield file.name, file.read_text()


NAMED = sorted({(name, where) for where, text in texts() for name in SETTING.findall(text)})


def test_panels_and_runbooks_name_settings() -> None:
    assert {
        ("MAX_WEBSOCKET_CONNECTIONS", "atp-overview / Sockets of the limit"),
        ("MAX_WEBSOCKET_CONNECTIONS", "AtpWSCapacity.md"),
        ("DB_TIMEOUT", "work.rules.yml"),
    } <= set(NAMED)


@pytest.mark.parametrize(("name", "where"), NAMED)
def test_a_setting_that_is_named_exists(name: str, where: str) -> None:
    assert name in {field.upper() for field in Settings.model_fields} | {f"{field.upper()}_FILE" for field in SECRETS}
