"""GET /openapi.json, GET /docs and its files."""

import re

import httpx2
import pytest

from tests.nodes import RunningNode


@pytest.fixture
async def anybody(node: RunningNode) -> httpx2.AsyncClient:
    """A client without a key."""
    del node.http.headers["x-api-key"]
    return node.http


async def test_everybody_may_read_the_document(anybody: httpx2.AsyncClient) -> None:
    response = await anybody.get("/openapi.json")
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    assert response.json()["info"]["title"] == "ATP"
    assert response.headers["cache-control"] == "public, max-age=60"


async def test_who_has_the_document_is_told_so(anybody: httpx2.AsyncClient) -> None:
    etag = (await anybody.get("/openapi.json")).headers["etag"]
    again = await anybody.get("/openapi.json", headers={"if-none-match": f'"other", W/{etag}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    changed = await anybody.get("/openapi.json", headers={"if-none-match": '"other"'})
    assert changed.status_code == 200


async def test_the_page_has_all_it_needs_on_this_host(anybody: httpx2.AsyncClient) -> None:
    page = await anybody.get("/docs")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    files = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(files) == 5
    for file in files:
        assert file.startswith("/")
        found = await anybody.get(file)
        assert found.status_code == 200, file
        assert found.headers["x-content-type-options"] == "nosniff"
    assert "://" not in page.text


async def test_the_page_s_policy_allows_nothing_inline_and_no_other_host(anybody: httpx2.AsyncClient) -> None:
    page = await anybody.get("/docs")
    assert page.headers["content-security-policy"] == (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    assert page.headers["referrer-policy"] == "no-referrer"
    assert re.findall(r"<script(?! src)|<style|style=| on\w+=", page.text) == []


async def test_its_files_are_kept_for_ever_under_a_name_of_their_content(anybody: httpx2.AsyncClient) -> None:
    page = (await anybody.get("/docs")).text
    found = re.search(r'src="(/docs/[0-9a-f]{16})/swagger-ui-bundle.js"', page)
    assert found
    script = await anybody.get(f"{found[1]}/start.js")
    assert script.headers["content-type"] == "text/javascript; charset=utf-8"
    assert script.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert 'url: "/openapi.json"' in script.text


@pytest.mark.parametrize("name", ["LICENSE", "../LICENSE", "%2e%2e/__init__.py", "swagger-ui.js", ""])
async def test_no_other_file_of_the_package_is_served(anybody: httpx2.AsyncClient, name: str) -> None:
    page = (await anybody.get("/docs")).text
    folder = re.search(r"/docs/[0-9a-f]{16}", page)
    assert folder
    assert (await anybody.get(f"{folder[0]}/{name}")).status_code == 404
