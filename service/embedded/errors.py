"""What can keep an embedded part from starting; each message is one line that says what to do."""

from pathlib import Path

ALTERNATIVE = "set DATABASE_URL, REDIS_URL and OPENAI_BASE_URL to servers of your own and run `atp serve`"


class EmbeddedError(Exception):
    """Print `str(error)` and exit: the message is meant for the person who started ATP."""


class PartMissing(EmbeddedError):
    """The wheel is absent, or has no build for this platform."""

    def __init__(self, name: str, wheel: str) -> None:
        super().__init__(f"{name} cannot be embedded here (no usable build of the wheel {wheel}): {ALTERNATIVE}")


class PlatformUnsupported(EmbeddedError):
    def __init__(self, platform: str) -> None:
        super().__init__(f"the embedded parts need Linux, this is {platform}: {ALTERNATIVE}")


class PortTaken(EmbeddedError):
    def __init__(self, name: str, port: int) -> None:
        super().__init__(
            f"{name} cannot start: port {port} on 127.0.0.1 is taken by another program; stop that one or choose "
            f"another port for {name}"
        )
        self.name = name
        self.port = port


class StateUnusable(EmbeddedError):
    """The state folder is in use by another parent, or belongs to another user."""


class PartFailed(EmbeddedError):
    """The part ended, or was not ready in time."""

    def __init__(self, name: str, what: str, log: Path) -> None:
        super().__init__(f"{name} {what}; its log is {log}")
