"""Signatures of callbacks, against what the specification's own libraries sign."""

import pytest
from pydantic import SecretStr

from service.errors import SettingsError
from service.settings import load
from service.tasks.webhooks import headers, keys_of

# libraries/python/tests/test_webhooks.py of github.com/standard-webhooks/standard-webhooks
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ID, TIMESTAMP_S, BODY = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_message_is_signed_as_the_specifications_libraries_sign_it() -> None:
    assert headers(keys_of(SecretStr(SECRET)), ID, TIMESTAMP_S, BODY) == {
        "webhook-id": ID,
        "webhook-timestamp": "1614265330",
        "webhook-signature": SIGNATURE,
    }


def test_while_receivers_change_over_it_is_signed_with_both_secrets() -> None:
    told = headers(keys_of(SecretStr(f"a-text-of-enough-characters {SECRET}")), ID, TIMESTAMP_S, BODY)
    first, second = told["webhook-signature"].split(" ")
    assert (first[:3], len(first), second) == ("v1,", 47, SIGNATURE)


def test_without_a_secret_it_is_not_signed() -> None:
    assert headers(keys_of(SecretStr("")), ID, 1, b"") == {"webhook-id": ID, "webhook-timestamp": "1"}


@pytest.mark.parametrize("secret", ["", SECRET, "a-text-of-enough-characters", f"{SECRET} {SECRET}"])
def test_a_secret_may_be_base64_after_its_prefix_or_a_text(secret: str) -> None:
    assert load(task_callback_secret=secret).task_callback_secret.get_secret_value() == secret


@pytest.mark.parametrize(
    ("secret", "said"),
    [
        ("whsec_not base64!", "base64"),
        ("whsec_MfKQ9r8G", "24 to 64 bytes"),
        ("too short", "24 to 64 bytes"),
        (f"{SECRET} x", "24 to 64 bytes"),
        ("whsec_" + "QUJD" * 30, "24 to 64 bytes"),
    ],
)
def test_a_secret_that_signs_badly_is_refused_at_the_start(secret: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said) as raised:
        load(task_callback_secret=secret)
    assert secret not in str(raised.value)
