"""Texts without secrets: what looks like one goes, and what is known to be one goes wherever it stands. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

REDACTED = "[redacted]"

_WORDS = (
    r"pass(?:word|phrase|wd)?|pwd|secret|token|credential|sas|signature"
    r"|api[_-]?key|access[_-]?key|account[_-]?key|private[_-]?key"
)
_NAME = rf"""(?i)(["']?[\w.-]*(?:{_WORDS})[\w.-]*["']?\s*[:=]\s*)"""

_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    # whole private keys, also where line breaks are written as \n
    (re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?-----END [A-Z0-9 ]*PRIVATE KEY-----", re.DOTALL), REDACTED),
    (re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*", re.DOTALL), REDACTED),  # one that is cut off
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}"), REDACTED),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"), REDACTED),  # a JSON web token
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.+/=~-]{8,}"), rf"\1 {REDACTED}"),
    (re.compile(r"(?i)([a-z][a-z0-9+.-]*://[^\s/@:]*):[^\s/@]+@"), rf"\1:{REDACTED}@"),  # https://user:password@host
    (re.compile(r"(?i)([?&](?:sig|token|x-amz-[\w-]+|code|key)=)[^&\s\"']+"), rf"\1{REDACTED}"),
    (re.compile(_NAME + r'"[^"\n]*"'), rf'\1"{REDACTED}"'),
    (re.compile(_NAME + r"""(?!["\[{])[^\s,;"'}]+"""), rf"\1{REDACTED}"),
)


class Redactor:
    """Takes secrets out of texts.

    Args:
        known: secrets by value (passphrases, keys' texts, credentials of the environment). Short ones are left to the
            patterns: a word of three letters would take half of every log with it.
    """

    def __init__(self, known: Iterable[str] = ()) -> None:
        values: set[str] = set()
        for secret in known:
            lines = [line.strip() for line in secret.splitlines()]
            values |= {line for line in (secret.strip(), *lines) if len(line) >= 8 and not line.startswith("-----")}
        self._known = sorted(values, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """The text without secrets."""
        for secret in self._known:
            text = text.replace(secret, REDACTED)
        for pattern, instead in _PATTERNS:
            text = pattern.sub(instead, text)
        return text
