"""How long a client may do nothing."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long one connection may do nothing, in seconds."""

    keep_alive_s: float = 75.0  # above nginx's 60 s, so that it is nginx that closes: no request meets a closed socket
    header_deadline_s: float = 10.0  # for a whole request head, from the connect or from its first byte
    body_gap_s: float = 30.0  # silence in the middle of a body
    write_deadline_s: float = 5.0  # not a byte taken by the client while we hold more for it
    unacknowledged_s: float = 10.0  # the same where all that is left is in the kernel (TCP_USER_TIMEOUT)
    retire_s: float = 1.0  # draining: an idle connection may still send the request that is under way
