"""Plain data from files that anybody may have written: YAML and JSON, within limits, nothing that JSON can't hold."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import yaml

MAX_BYTES = 1024 * 1024  # of a file
MAX_VALUES = 200_000  # as it would be written out: YAML's aliases make a few bytes stand for billions of values
MAX_DEPTH = 64


def read_plain(path: Path) -> Any:
    """A .json file as JSON, any other as YAML.

    Raises:
        ValueError: it is too long, or neither; says what and where.
        OSError: it can't be opened.
    """
    with open(path, "rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"it is longer than {MAX_BYTES >> 20} MiB")
    return parse_plain(data, path.suffix == ".json")


def parse_plain(data: bytes, as_json: bool = False) -> Any:
    """The same of bytes in UTF-8.

    Raises:
        ValueError: says what and where.
    """
    try:
        text = data.decode("utf-8-sig")
        return json.loads(text) if as_json else yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except (AttributeError, TypeError, LookupError, OverflowError) as error:  # of PyYAML, for odd tags and keys
        raise ValueError(f"it is no YAML that we read: {error}") from None


def check_plain(document: Any) -> None:
    """That this is mappings with words as keys, lists, words, numbers and truth values, and not too many of them.

    Raises:
        ValueError: names what is something else (a date, say, which YAML makes of 2024-01-01).
    """
    left = MAX_VALUES
    todo: list[tuple[Any, int, str]] = [(document, 0, "")]
    while todo:
        value, depth, where = todo.pop()
        left -= 1
        if depth > MAX_DEPTH:
            raise ValueError("it is nested too deeply")
        if len(todo) + (len(value) if isinstance(value, (dict, list, tuple)) else 0) > left:
            raise ValueError(f"it holds more than {MAX_VALUES} values")
        if isinstance(value, dict):
            for key, inner in value.items():
                if not isinstance(key, str):  # JSON, in which it travels, would make a word of a number
                    raise ValueError(f"{where or 'it'} has the key {key!r}; keys are words: write it in quotes")
                _check_text(key, where)
                todo.append((inner, depth + 1, f"{where}.{key}".strip(".")[:200]))
        elif isinstance(value, (list, tuple)):
            todo += [(inner, depth + 1, where) for inner in value]
        elif isinstance(value, str):
            _check_text(value, where)
        elif isinstance(value, float):
            if not math.isfinite(value):
                raise ValueError(f"{where or 'it'} is {value}")
        elif isinstance(value, int):
            if abs(value) >= 2**64:
                raise ValueError(f"{where or 'it'} is a number of {value.bit_length()} bits")
        elif value is not None:
            raise ValueError(f"{where or 'it'} is a {type(value).__name__}; write it in quotes")


def _check_text(text: str, where: str) -> None:
    if "\0" in text or not _encodes(text):
        raise ValueError(f"{where or 'it'} holds what is no text: {text[:40]!r}")


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
