"""Signatures of callbacks, as the Standard Webhooks specification 1.0.0 has them: HMAC-SHA256 over
`id.timestamp.body`, told in `webhook-signature` as `v1,` and base64, one for each secret.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import hashlib
import hmac

from pydantic import SecretStr

PREFIX = "whsec_"


def keys_of(secrets: SecretStr) -> list[bytes]:
    """Of a setting: secrets between spaces, the present one first. `whsec_` and base64, or a text as it stands."""
    return [key_of(secret) for secret in secrets.get_secret_value().split()]


def key_of(secret: str) -> bytes:
    if secret.startswith(PREFIX):
        return base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    return secret.encode()


def signature(key: bytes, message_id: str, timestamp_s: int, body: bytes) -> str:
    signed = hmac.digest(key, f"{message_id}.{timestamp_s}.".encode() + body, hashlib.sha256)
    return f"v1,{base64.b64encode(signed).decode()}"


def headers(keys: list[bytes], message_id: str, timestamp_s: int, body: bytes) -> dict[str, str]:
    """`message_id` is the same at every try, `timestamp_s` (Unix) the try's own. Without a key nothing is signed."""
    told = {"webhook-id": message_id, "webhook-timestamp": str(timestamp_s)}
    if keys:
        told["webhook-signature"] = " ".join(signature(key, message_id, timestamp_s, body) for key in keys)
    return told
