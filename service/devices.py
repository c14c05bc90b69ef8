"""The four classes of devices, and which of them a client is: by its own word, else by its User-Agent."""

from functools import lru_cache
from typing import Literal, get_args

Device = Literal["mobile", "tablet", "desktop", "unknown"]
DEVICES: tuple[Device, ...] = get_args(Device)

# Longer ones are cut: what names the device stands at the beginning, and a header may have 16 KB.
USER_AGENT_CHARACTERS = 512
REMEMBERED_USER_AGENTS = 4096
DESKTOP_SYSTEMS = frozenset({"Windows", "Mac OS X", "Linux", "Ubuntu", "Fedora", "Debian", "Chrome OS", "FreeBSD"})


def device_of(said: str, user_agent: str) -> Device:
    """What the client says of itself when that is one of the four, else what its User-Agent tells."""
    for device in DEVICES:
        if said == device:
            return device
    return by_user_agent(user_agent[:USER_AGENT_CHARACTERS])


@lru_cache(REMEMBERED_USER_AGENTS)
def by_user_agent(user_agent: str) -> Device:
    """The operating system comes from ua-parser. Android's word for a phone is `Mobile`, absent on its tablets
    (developer.chrome.com, "User-Agent Strings"); an iPad names itself, unless it asks for desktop sites."""
    from ua_parser import parse  # loading its rules takes 0.1 s and 12 MB: not for `atp keys list`

    parsed = parse(user_agent)
    system = parsed.os.family if parsed.os else ""
    family = parsed.device.family if parsed.device else ""
    if system == "iOS":
        return "tablet" if family == "iPad" else "mobile"
    if system == "Android":
        return "mobile" if "Mobile" in user_agent else "tablet"
    return "desktop" if system in DESKTOP_SYSTEMS and family != "Spider" else "unknown"
