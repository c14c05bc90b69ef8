"""`GET /api/v1/usage`: what was used, by day or hour, key, agent and model; as JSON or CSV."""

import csv
import io
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from service.errors import Invalid, NotFound
from service.http.contract import answers
from service.http.operation import Call
from service.keys.verifier import Identity
from service.routes.admin_requests import fitted, printable, without_nul
from service.routes.usage_answers import UsageAnswer
from service.usage.quantiles import QUANTILES
from service.usage.reports import COUNTS, Dimension, Interval, Question, Reports

DEFAULT_DAYS = 30
MOST_DAYS = {"day": 400, "total": 400, "hour": 31}
STEP = {"day": timedelta(days=1), "total": timedelta(days=1), "hour": timedelta(hours=1)}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EVERYBODY = "*"
# A spreadsheet takes what begins so for a formula; an apostrophe makes it text (OWASP, "CSV Injection").
FORMULA = ("=", "+", "-", "@", "\t", "\r")

Name = Annotated[str | None, Field(min_length=1, max_length=200), AfterValidator(lambda name: name and printable(name))]
# As a row has it: empty where there is none, several with commas. Eight names of 200 characters are the longest.
Named = Annotated[str | None, Field(max_length=2000), AfterValidator(lambda name: name and without_nul(name))]
AS_SHOWN = "As an item shows it: `a,b` of a chat with several, empty where there was none."


def with_zone(moment: datetime) -> datetime:
    """A date is its midnight in UTC; a time of day says its own zone. The ends of the calendar cannot be rounded."""
    if not 2000 <= moment.year < 9000:
        raise ValueError("must be a year of our time")
    if moment.tzinfo is None:
        if moment.time() != datetime.min.time():
            raise ValueError("must have a time zone, such as 2026-11-01T12:00:00Z")
        return moment.replace(tzinfo=UTC)
    return moment


def separated(text: Any) -> Any:
    return tuple(dict.fromkeys(part for part in text.split(",") if part)) if isinstance(text, str) else text


Dimensions = Annotated[tuple[Dimension, ...], BeforeValidator(separated)]
SHOWN = {"type": "string", "anyOf": [{"format": "date-time"}, {"format": "date"}]}
Moment = Annotated[datetime, AfterValidator(with_zone), WithJsonSchema(SHOWN)]


class UsageQuery(BaseModel):
    """The parameters of the address. `from` and `to` are widened to whole hours or days of UTC; `to` is exclusive."""

    model_config = ConfigDict(extra="forbid")
    start: Moment | None = Field(None, alias="from", description="A date is its midnight in UTC.")
    end: Moment | None = Field(None, alias="to", description="Exclusive.")
    interval: Interval = "day"
    group_by: Dimensions = ()
    key: Name = Field(None, description="Its prefix; `unknown`: keys that are no longer there.")
    agent: Named = Field(None, description=AS_SHOWN)
    model: Named = Field(None, description=AS_SHOWN)
    user: Name = None

    def period(self, now: datetime) -> tuple[datetime, datetime]:
        """Whole hours or days; raises Invalid when it is empty or too long."""
        step = STEP[self.interval]
        end = ceiled(self.end or now, step)
        start = floored(self.start or end - timedelta(days=DEFAULT_DAYS), step)
        if start >= end:
            raise Invalid("from must lie before to.")
        if end - start > timedelta(days=MOST_DAYS[self.interval]):
            raise Invalid(f"With interval={self.interval} from and to may be {MOST_DAYS[self.interval]} days apart.")
        return start, end


def floored(moment: datetime, step: timedelta) -> datetime:
    """The start of its hour or day in UTC."""
    return EPOCH + (moment - EPOCH) // step * step


def ceiled(moment: datetime, step: timedelta) -> datetime:
    whole = floored(moment, step)
    return whole if whole == moment else whole + step


@dataclass(frozen=True)
class UsageRoutes:
    reports: Reports

    @answers(UsageAnswer, media=("text/csv",), query=UsageQuery, errors=(NotFound,))
    async def report(self, call: Call[None]) -> Response:
        """Report what was used: requests, tokens, cost and latency, over time and by key, agent or model."""
        query = fitted(UsageQuery, call.request.query_params)
        start, end = query.period(datetime.now(UTC))
        user, group_by = whose(query, call.identity), query.group_by
        asked = Question(start, end, query.interval, group_by, user, query.key, query.agent, query.model)
        found = await self.reports.report(asked)
        if wants_csv(call.request):
            return as_csv(asked, found["items"])
        answer: UsageAnswer = {
            "from": start,
            "to": end,
            "interval": query.interval,
            "group_by": list(group_by),
            "totals": found["totals"],
            "items": found["items"],
        }
        return Response(to_json(answer), media_type="application/json")


def whose(query: UsageQuery, identity: Identity) -> str | None:
    """The user asked about, None for everybody; raises NotFound for what is another's."""
    admin = "admin" in identity.scopes
    if not admin and query.user not in (None, identity.user_id):
        raise NotFound("There is no such user.")
    return None if query.user == EVERYBODY else query.user or identity.user_id


def wants_csv(request: Request) -> bool:
    """Whether CSV is named before JSON or anything else."""
    first = request.headers.get("accept", "").partition(",")[0]
    return first.partition(";")[0].strip().lower() == "text/csv"


def as_csv(asked: Question, items: list[dict[str, Any]]) -> Response:
    """The items (RFC 4180), a header first."""
    about = [*(["start"] if asked.interval != "total" else []), *asked.group_by]
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([*about, *COUNTS, *(f"latency_{name}_s" for name in QUANTILES)])
    for item in items:
        told = [harmless(item[name]) for name in about]
        writer.writerow([*told, *(item[name] for name in COUNTS), *item["latency_s"].values()])
    headers = {"content-disposition": 'attachment; filename="usage.csv"'}
    return Response(text.getvalue(), headers=headers, media_type="text/csv")


def harmless(value: Any) -> str:
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"'{value}" if str(value).startswith(FORMULA) else str(value)
