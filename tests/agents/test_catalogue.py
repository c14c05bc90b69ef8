"""Agents and models: what ships, what a file may say, and the fault it is told."""

from pathlib import Path

import pytest

from service.agents.catalogue import Catalogue, Parameters, load
from service.errors import NotFound, SettingsError
from service.settings import load as settings


def catalogue(tmp_path: Path, text: str, **more: object) -> Catalogue:
    file = tmp_path / "agents.toml"
    file.write_text(text)
    return load(settings(agents_file=file, openai_models="small,large", **more))


ONE = '[agents.one]\nname = "One"\ndescription = "d"\ninstructions = "i"\n'


def test_the_five_agents_of_the_guide_ship() -> None:
    shipped = load(settings(openai_models="m"))
    assert list(shipped.agents) == ["reasoning", "coding", "research", "writing", "summary"]
    assert shipped.default_model.id == "m"


def test_an_agents_model_is_its_own_else_the_first_and_a_request_may_choose(tmp_path: Path) -> None:
    found = catalogue(tmp_path, ONE + 'model = "large"\n' + ONE.replace("one", "two"))
    assert found.model(None, found.agent("one")).id == "large"
    assert found.model(None, found.agent("two")).id == "small"
    assert found.model("small", found.agent("one")).id == "small"


def test_what_there_is_not_is_said_with_what_there_is(tmp_path: Path) -> None:
    found = catalogue(tmp_path, ONE)
    with pytest.raises(NotFound) as raised:
        found.agent("two")
    assert raised.value.extra == {"known": ["one"]}
    with pytest.raises(NotFound) as raised:
        found.model("huge")
    assert raised.value.extra == {"known": ["large", "small"]}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no [agents.<id>]"),
        ("[agents", "is not TOML"),
        ('[agents.one]\nname = "One"\n', "agents.one.description: Field required"),
        (ONE + "temprature = 1\n", "agents.one.temprature: Extra inputs are not permitted"),
        (ONE + "parameters = { temperature = 9 }\n", "agents.one.parameters.temperature: Input should be less than"),
        (ONE.replace("one", "Not-An-Id"), "agents.Not-An-Id"),
        (ONE + 'model = "huge"\n', "agent 'one' wants model 'huge', which no provider has"),
    ],
)
def test_a_faulty_file_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SettingsError) as raised:
        catalogue(tmp_path, text)
    assert said in str(raised.value)


def test_a_missing_file_is_one_line() -> None:
    with pytest.raises(SettingsError, match="AGENTS_FILE: cannot read /nowhere: No such file"):
        load(settings(agents_file="/nowhere"))


def test_several_providers_and_the_first_to_name_a_model_serves_it() -> None:
    providers = (
        '{"a": {"base_url": "http://a/v1/", "api_key": "ka", "models": {"m": {"input_usd_per_mtok": 2.5}}},'
        ' "b": {"base_url": "http://b/v1", "models": {"m": {}, "n": {}}, "extra_body": {"top_k": 1}}}'
    )
    found = load(settings(providers=providers))
    assert found.models["m"].provider.name == "a"
    assert found.models["m"].provider.base_url == "http://a/v1"
    assert found.models["m"].price.input_usd_per_mtok == 2.5
    assert found.models["n"].provider.extra_body == {"top_k": 1}
    assert "ka" not in repr(found.models["m"])


def test_a_revision_changes_when_the_agent_would_answer_differently(tmp_path: Path) -> None:
    one = catalogue(tmp_path, ONE).agent("one").revision
    assert catalogue(tmp_path, ONE).agent("one").revision == one
    assert catalogue(tmp_path, ONE.replace('"i"', '"other"')).agent("one").revision != one
    assert catalogue(tmp_path, ONE + "parameters = { temperature = 1 }\n").agent("one").revision != one


def test_a_requests_parameters_win_where_they_speak() -> None:
    merged = Parameters(temperature=1.0).over(Parameters(temperature=0.0, max_tokens=5))
    assert (merged.temperature, merged.max_tokens, merged.top_p) == (1.0, 5, None)
