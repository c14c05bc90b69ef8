"""The route table: a dictionary for plain paths, Starlette for the rest, and the same answers either way."""

from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from service.http.table import Table


async def show(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"{request.scope['route'].path} {dict(request.path_params)}")


def client() -> TestClient:
    app = Starlette()
    app.router = Table([Route("/plain", show), Route("/things/{name}", show), Route("/plain", show, methods=["PUT"])])
    return TestClient(app)


def test_plain_and_parameter_paths_are_found_with_their_route() -> None:
    assert client().get("/plain").text == "/plain {}"
    assert client().put("/plain").text == "/plain {}"
    assert client().get("/things/a").text == "/things/{name} {'name': 'a'}"


def test_what_is_not_there_is_404_and_a_wrong_method_405() -> None:
    assert client().get("/other").status_code == 404
    assert client().get("/plain/").status_code == 404  # no redirects: a path is itself or nothing
    assert client().delete("/plain").status_code == 405


def test_a_wrong_method_is_told_all_the_methods_of_the_path() -> None:
    assert client().delete("/plain").headers["allow"] == "GET, HEAD, PUT"


def test_a_lookup_does_not_try_the_patterns(monkeypatch: Any) -> None:
    ready = client()
    monkeypatch.setattr(Route, "matches", lambda *_: (_ for _ in ()).throw(AssertionError("a pattern was tried")))
    assert ready.get("/plain").status_code == 200
