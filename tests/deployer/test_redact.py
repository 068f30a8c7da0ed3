"""Secrets leave a text by their looks or by value; what helps stays."""

from __future__ import annotations

import pytest

from deployer.redact import REDACTED, Redactor


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ('{"password": "a b c", "user": "ana"}', f'{{"password": "{REDACTED}", "user": "ana"}}'),
        ("ARM_CLIENT_SECRET=abc~def", f"ARM_CLIENT_SECRET={REDACTED}"),
        ("https://ana:pw@host:3128/x", f"https://ana:{REDACTED}@host:3128/x"),
        ("https://host/blob?sv=1&sig=abc%3D&se=2", f"https://host/blob?sv=1&sig={REDACTED}&se=2"),
        ("Authorization: Bearer abcdefgh12345678", f"Authorization: Bearer {REDACTED}"),
        ("the pass is closed; tokens: 3 of 4", "the pass is closed; tokens: "),
        ("SHA256:abcdef fingerprint of site-1", "SHA256:abcdef fingerprint of site-1"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n-----END OPENSSH PRIVATE KEY-----\nrest", f"{REDACTED}\nrest"),
        ("-----BEGIN PRIVATE KEY-----\\nabc\\n-----END PRIVATE KEY-----", REDACTED),
    ],
)
def test_what_looks_like_a_secret_goes_and_the_rest_stays(text: str, left: str) -> None:
    assert Redactor()(text).startswith(left)


def test_known_secrets_go_wherever_they_stand_but_not_short_words() -> None:
    redact = Redactor(["correct horse battery\n", "a\nlonger-line-of-a-key\n"])
    assert redact("x=correct horse battery; a longer-line-of-a-key") == f"x={REDACTED}; a {REDACTED}"
