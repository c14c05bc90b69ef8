"""Problem documents."""

import json

import pytest

from service.errors import AtpError, Invalid, Unauthorized, Unavailable
from service.http.problems import problem, problem_response


def classes(root: type[AtpError] = AtpError) -> list[type[AtpError]]:
    return [root, *(found for child in root.__subclasses__() for found in classes(child))]


def test_a_problem_has_the_members_of_rfc_9457_and_its_own() -> None:
    assert problem(Invalid("No.", errors=[{"field": "task", "message": "Field required"}]), "request-1") == {
        "type": "urn:atp:problem:invalid",
        "title": "The request does not fit the schema",
        "status": 422,
        "detail": "No.",
        "request_id": "request-1",
        "errors": [{"field": "task", "message": "Field required"}],
    }


def test_a_refused_caller_is_told_how_to_authenticate_and_a_busy_one_when_to_return() -> None:
    assert problem_response(Unauthorized(), "r").headers["www-authenticate"] == 'Bearer realm="atp"'
    busy = problem_response(Unavailable(retry_after_s=1.2), "r")
    assert (busy.status_code, busy.headers["retry-after"]) == (503, "2")
    assert json.loads(bytes(busy.body))["type"] == "urn:atp:problem:unavailable"


@pytest.mark.parametrize("error", classes(), ids=lambda error: error.__name__)
def test_every_error_has_a_status_a_title_and_a_line_in_the_docs(error: type[AtpError]) -> None:
    from tests.commands.running import ROOT

    assert 400 <= error.status <= 599
    assert error.title
    assert f"| `{error.code}` | {error.status} |" in (ROOT / "docs" / "problems.md").read_text()
