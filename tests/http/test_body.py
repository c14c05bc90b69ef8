"""Parsing a body: what is told of a fault, and what never is."""

import pytest
from pydantic import BaseModel, ConfigDict

from service.errors import BadRequest, Invalid
from service.http.body import SHOWN_FAULTS, parse


class Small(BaseModel):
    model_config = ConfigDict(extra="forbid")
    number: int


def test_a_fault_names_its_field_and_not_the_value() -> None:
    with pytest.raises(Invalid) as raised:
        parse(b'{"number": "my secret"}', Small)
    assert raised.value.extra["errors"] == [{"field": "number", "message": "Input should be a valid integer"}]


@pytest.mark.parametrize("number", ['"1"', "1.0", "true"])
def test_a_number_is_a_number_and_nothing_that_could_be_read_as_one(number: str) -> None:
    with pytest.raises(Invalid):
        parse(b'{"number": %b}' % number.encode(), Small)


def test_json_that_breaks_off_says_where() -> None:
    with pytest.raises(BadRequest, match="EOF while parsing an object at line 1 column 12"):
        parse(b'{"number": 1', Small)


def test_a_thousand_faults_are_told_in_twenty() -> None:
    body = "{" + ",".join(f'"f{number}": 1' for number in range(1000)) + "}"
    with pytest.raises(Invalid) as raised:
        parse(body.encode(), Small)
    assert len(raised.value.extra["errors"]) == SHOWN_FAULTS == 20
