"""What may be asked about keys and users: bodies, queries and paths, each with its bounds."""

import re
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, Field, model_validator

from service.errors import NotFound
from service.http.operation import Call
from service.keys.issuing import GRACE_S, MOST_GRACE_S, Wish
from service.routes.admin_requests import STRICT, Id, PageQuery, printable
from service.setting_types import Rate

LONGEST_DAYS = 36_500
PREFIX = re.compile(r"[0-9A-Za-z]{8}")

Scope = Literal["chat", "read", "keys", "admin"]
Role = Literal["user", "admin"]
# issuing.POLICIES, as a type
Limits = dict[Literal["chat", "api", "keys", "admin"], Rate]
# Beyond them some zone's clock shows a year that has not four digits, which PostgreSQL takes and Python cannot read.
YEARS = range(2000, 9000)


def of_our_time(moment: datetime) -> datetime:
    if moment.year not in YEARS:
        raise ValueError("must be a year of our time")
    return moment


KeyName = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(printable)]


class GenerateRequest(BaseModel):
    """A new key. It ends at `expires_at` or after `expires_in_days`, else never."""

    model_config = STRICT
    name: KeyName
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=4)] = ["chat", "read"]
    expires_in_days: Annotated[int | None, Field(ge=1, le=LONGEST_DAYS)] = None
    expires_at: Annotated[AwareDatetime | None, AfterValidator(lambda moment: moment and of_our_time(moment))] = None
    user_id: Id | None = None
    rate_limits: Limits | None = None

    @model_validator(mode="after")
    def one_end(self) -> "GenerateRequest":
        if self.expires_in_days is not None and self.expires_at is not None:
            raise ValueError("give either expires_in_days or expires_at")
        return self

    def wish(self, rate_limits: dict[str, str]) -> Wish:
        return Wish(self.name, self.scopes, self.expires_at, self.expires_in_days, rate_limits)


class RotateRequest(BaseModel):
    """`grace_s` is how long the old key is still good; 0 ends it at once."""

    model_config = STRICT
    grace_s: Annotated[int, Field(ge=0, le=MOST_GRACE_S)] = GRACE_S


class KeysQuery(PageQuery):
    """Whose keys: one's own unless an admin asks for another's or for all."""

    user_id: Id | None = None
    all: bool = False

    @model_validator(mode="after")
    def one_or_all(self) -> "KeysQuery":
        if self.all and self.user_id is not None:
            raise ValueError("give either user_id or all")
        return self


class NewUserRequest(BaseModel):
    model_config = STRICT
    username: Annotated[str, Field(max_length=64)]
    email: Annotated[str, Field(max_length=254)]
    role: Role = "user"


class UserChange(BaseModel):
    """What is absent stays as it is."""

    model_config = STRICT
    role: Role | None = None
    active: bool | None = None

    @model_validator(mode="after")
    def something(self) -> "UserChange":
        if self.role is None and self.active is None:
            raise ValueError("give role, active or both")
        return self


class UsersQuery(PageQuery):
    """`query` is the beginning of a username or an email address, in any case."""

    query: Annotated[str, Field(max_length=254), AfterValidator(printable)] = ""


def key_prefix(call: Call[Any]) -> str:
    """From the path; raises NotFound for what cannot be a key's prefix."""
    prefix = str(call.request.path_params["key_prefix"])
    if not PREFIX.fullmatch(prefix):
        raise NotFound("There is no such key.")
    return prefix
