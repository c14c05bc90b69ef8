"""The token: `atp_live_<prefix8>_<secret><crc6>`.

prefix8 is public and names the key in lists and logs. The secret is 33 base62 characters, 196 bits. crc6 is the CRC-32
(zlib) of everything before it in base62, so that a typo, or a scanner's guess, is refused without a database call.
"""

import hashlib
import re
import secrets
import string
import zlib
from dataclasses import dataclass

ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
SECRET_CHARACTERS = 33  # 33 * log2(62) = 196.5 bits
CRC_CHARACTERS = 6  # 62^6 > 2^32
TOKEN = re.compile(
    rf"atp_live_([0-9A-Za-z]{{8}})_([0-9A-Za-z]{{{SECRET_CHARACTERS}}})([0-9A-Za-z]{{{CRC_CHARACTERS}}})"
)


@dataclass(frozen=True)
class Token:
    """A key as it is shown once: `text`, its public `prefix`, and the SHA-256 `digest` that is stored."""

    text: str
    prefix: str

    @property
    def digest(self) -> bytes:
        return digest(self.text)


def mint() -> Token:
    """A new token from the system's randomness."""
    prefix = random_base62(8)
    body = f"atp_live_{prefix}_{random_base62(SECRET_CHARACTERS)}"
    return Token(body + checksum(body), prefix)


def well_formed(text: str) -> bool:
    """Whether the text could be a token of ours: shape and checksum."""
    return TOKEN.fullmatch(text) is not None and checksum(text[:-CRC_CHARACTERS]) == text[-CRC_CHARACTERS:]


def digest(text: str) -> bytes:
    """SHA-256 of the whole token, 32 bytes. The secret has 196 random bits, so a slow hash would add nothing."""
    return hashlib.sha256(text.encode()).digest()


def checksum(body: str) -> str:
    number, characters = zlib.crc32(body.encode()), []
    for _ in range(CRC_CHARACTERS):
        number, rest = divmod(number, 62)
        characters.append(ALPHABET[rest])
    return "".join(reversed(characters))


def random_base62(length: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(length))
