"""Unhandled errors to Sentry, when a DSN is set: no bodies, no local variables, no flood."""

import time
from collections.abc import Callable
from typing import Any

from opentelemetry import trace

from service.errors import SettingsError, Unavailable
from service.settings import Settings
from service.telemetry.allowance import Allowance
from service.telemetry.scrubbing import scrub

# A crash loop must not spend the project's quota nor hide the first error.
EVENTS_PER_MINUTE = 30
# Of one group: more of the same say nothing new, and would leave no room for what is.
GROUP_PER_MINUTE = 3
# More than there are: routes times the exceptions that they may meet.
GROUPS = 1000


class ErrorReporter:
    """Sends exceptions to Sentry; does nothing without a DSN."""

    def __init__(
        self,
        settings: Settings,
        release: str,
        dropped: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._enabled = bool(settings.sentry_dsn.get_secret_value())
        self._clock, self._allowance = clock, Allowance(EVENTS_PER_MINUTE, clock)
        self._groups: dict[tuple[str, ...], Allowance] = {}
        self._dropped = dropped
        if self._enabled:
            try:
                self._start(settings, release)
            except ValueError:  # sentry_sdk's BadDsn; its text quotes the DSN
                raise SettingsError("SENTRY_DSN: copy it from the project's settings in Sentry") from None

    def _start(self, settings: Settings, release: str) -> None:
        import sentry_sdk

        from service.telemetry.sentry_transport import counting

        sentry_sdk.init(
            dsn=settings.sentry_dsn.get_secret_value(),
            environment=settings.environment,
            release=release,
            # Bodies up to 10 kB would be sent whatever send_default_pii says.
            max_request_body_size="never",
            include_local_variables=False,
            max_breadcrumbs=0,
            default_integrations=False,
            shutdown_timeout=2,
            before_send=self._before_send,
            # Sentry is sent nothing but errors: of what is lost, our own counter tells.
            auto_session_tracking=False,
            send_client_reports=False,
            transport=counting(self._dropped),
        )

    def _before_send(self, event: Any, _: dict[str, Any]) -> Any:
        if self._allowance.take():
            link_trace(event)
            return scrub(event)
        return None  # the transport is told of it as lost

    def _room(self, *group: str) -> bool:
        """GROUP_PER_MINUTE of a group are sent. The others are no loss: what is told of is counted elsewhere."""
        if len(self._groups) >= GROUPS:
            self._groups.clear()
        return self._groups.setdefault(group, Allowance(GROUP_PER_MINUTE, self._clock)).take()

    def capture(self, error: BaseException, **tags: str) -> None:
        """Queue one exception with its tags (request_id, route, task_id), in the trace that is current here; returns at
        once."""
        if not (self._enabled and self._room(type(error).__qualname__, tags.get("route", ""))):
            return
        import sentry_sdk

        with sentry_sdk.new_scope() as scope:
            scope.set_tags(tags)
            scope.capture_exception(error)

    def background(self, error: Exception, work: str) -> None:
        """Queue what ended a periodic work, which begins anew. That a dependency is away, alerts tell."""
        if not isinstance(error, Unavailable):
            self.capture(error, route=f"background {work}")

    def tell(self, text: str, fingerprint: tuple[str, ...], **tags: str) -> None:
        """Queue a message of the group `fingerprint`, whose words are of closed sets; returns at once."""
        if not (self._enabled and self._room(*fingerprint)):
            return
        import sentry_sdk

        with sentry_sdk.new_scope() as scope:
            scope.set_tags(tags)
            scope.fingerprint = list(fingerprint)
            scope.capture_message(text, level="error")

    def close(self) -> None:
        """Send what is queued, for at most 2 s; blocks, so call it off the loop."""
        if self._enabled:
            import sentry_sdk

            sentry_sdk.get_client().close(timeout=2)


def link_trace(event: Any) -> None:
    """Put the current span in the place of the one that Sentry's SDK makes up, so that Sentry and Tempo speak of the
    same trace."""
    contexts, span = event.setdefault("contexts", {}), trace.get_current_span().get_span_context()
    contexts.pop("trace", None)
    if span.is_valid:
        ids = {"trace_id": format(span.trace_id, "032x"), "span_id": format(span.span_id, "016x")}
        contexts["trace"] = ids
        event.setdefault("tags", {})["trace_id"] = ids["trace_id"]
