"""Where tasks may call back: URLs under the beginnings that the operator allows, TASK_CALLBACK_URLS.

What is no plain URL is refused (`plain_url.py`); what was checked is then sent as it stands.
"""

from collections.abc import Sequence

from service.plain_url import beginning, place


class AllowList:
    """Of beginnings of URLs; one that is not plain, or has a query, allows nothing."""

    def __init__(self, beginnings: Sequence[str]) -> None:
        read = {text: beginning(text) for text in beginnings}
        self._beginnings = {text: found for text, found in read.items() if found}

    def beginning(self, url: str) -> str | None:
        """The one that allows this URL; None: it may not be called."""
        asked = place(url)
        return next((text for text, found in self._beginnings.items() if asked and asked.under(found)), None)
