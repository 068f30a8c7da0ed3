"""Where a site's machine gets torch from: its image, or a package index that the machine asks itself.

`torch: image`, or `torch: {index: https://…, version: "2.13.0"}`: the same grammar in federation.yml and in a kit's
signed participant.yml.
"""

from __future__ import annotations

import difflib
import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

IMAGE = "image"
EXAMPLE = '{index: https://download.pytorch.org/whl/cu126, version: "2.13.0"}'
_KEYS = ("index", "version")
_VERSION = re.compile(r"\d+(?:\.\d+){1,3}(?:(?:a|b|rc)\d+)?(?:\+[A-Za-z0-9.]+)?")
_UNPRINTABLE = re.compile(r"[\s\x00-\x1f\"'`\\<>]")


@dataclass(frozen=True)
class TorchSource:
    """Both texts are empty for the image's torch; else a package index's URL (https) and the exact version."""

    index: str = ""
    version: str = ""

    @property
    def from_image(self) -> bool:
        """Whether the machine's image is to have it."""
        return not self.index

    def document(self) -> Any:
        """As it stands in federation.yml and in participant.yml."""
        return {"index": self.index, "version": self.version} if self.index else IMAGE

    def __str__(self) -> str:
        return f"torch {self.version} from {self.index}" if self.index else "the image's torch"


def torch_source(value: Any) -> TorchSource:
    """What a spec or a kit says about torch.

    Raises:
        ValueError: it is neither `image` nor an index with a version; the URL is not https, or carries a password.
    """
    if isinstance(value, TorchSource):
        return value
    if value == IMAGE:
        return TorchSource()
    if not isinstance(value, Mapping):
        raise ValueError(f"{IMAGE}, or {EXAMPLE} is wanted, not {value!r}")
    for key in value:
        if key not in _KEYS:
            near = difflib.get_close_matches(str(key), _KEYS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {' and '.join(_KEYS)}"
            raise ValueError(f"{key} is not known here; {hint}")
    missing = [key for key in _KEYS if key not in value]
    if missing:
        raise ValueError(f"{missing[0]} is missing; like {EXAMPLE}")
    return TorchSource(_index(value["index"]), _version(value["version"]))


def _index(value: Any) -> str:
    example = "such as https://download.pytorch.org/whl/cu126"
    if not isinstance(value, str) or _UNPRINTABLE.search(value):
        raise ValueError(f"index: an https URL is wanted, {example}")
    try:
        parts = urllib.parse.urlsplit(value)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"index: {error}") from None
    if parts.username is not None or parts.password is not None or "@" in parts.netloc:
        raise ValueError(
            "index: holds a user or a password; kits are handed out, so put it into the machine's ~/.netrc or pip.conf"
        )
    if parts.scheme != "https" or not parts.hostname or (port is not None and port < 1):
        raise ValueError(f"index: an https URL is wanted, {example}")
    if parts.query or parts.fragment:
        raise ValueError(f"index: a URL without ? and # is wanted, {example}")
    return value.rstrip("/")


def _version(value: Any) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        raise ValueError(f'version: put quotes round it, or YAML reads a number: "{value}"')
    if not isinstance(value, str) or not _VERSION.fullmatch(value):
        raise ValueError('version: an exact version is wanted, such as "2.13.0"')
    return value
