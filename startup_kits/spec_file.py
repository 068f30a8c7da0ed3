"""Reading federation.yml: every fault is told with its file, line, field and what would be right."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from startup_kits.errors import SpecError
from startup_kits.spec_models import AdminSpec, Defaults, FederationSpec
from startup_kits.spec_participants import Gpus, ServerSpec, SiteSpec

Location = tuple[str | int, ...]
#: A federation.yml of hundreds of sites has some 100 KB; more than this is not a spec.
MAX_BYTES = 4 * 1024 * 1024

_BOOLEAN = "tag:yaml.org,2002:bool"
_FIELD_IN_MESSAGE = re.compile(r"^([a-z_][\w.-]*): (.*)$", re.DOTALL)
_MODELS: dict[tuple[str, ...], type[BaseModel]] = {
    (): FederationSpec,
    ("defaults",): Defaults,
    ("server",): ServerSpec,
    ("server", "gpus"): Gpus,
    ("sites", "*"): SiteSpec,
    ("sites", "*", "gpus"): Gpus,
    ("admins", "*"): AdminSpec,
}


class _Lines:
    """The line on which each key and item of a document stands."""

    def __init__(self) -> None:
        self._of: dict[Location, int] = {(): 1}

    def note(self, location: Location, mark: yaml.Mark) -> None:
        self._of[location] = mark.line + 1

    def of(self, location: Location) -> int:
        """The line of a place, or of the nearest thing around it."""
        while location not in self._of:
            location = location[:-1]
        return self._of[location]


def load_spec(path: Path | str) -> FederationSpec:
    """The federation that a YAML or JSON file describes.

    Raises:
        SpecError: the file is missing, unreadable or wrong; every fault found is told.
    """
    path = Path(path)
    values, lines = _parse(path, _text(path))
    if not isinstance(values, dict):
        raise SpecError(f"{path}:1 is not a federation", why="it holds no mapping of keys", next_step="fedspan init")
    try:
        return FederationSpec.model_validate(values)
    except ValidationError as error:
        faults = [text for _, text in sorted(_fault(path, lines, values, dict(fault)) for fault in error.errors())]
        what = f"{path} has {len(faults)} faults" if len(faults) > 1 else f"{path} is wrong"
        raise SpecError(
            what,
            why="".join(f"\n  {fault}" for fault in faults),
            next_step=_again(path),
        ) from None


def _again(path: Path) -> str:
    return f"mend it, then: fedspan -f {path} validate"


def _unquoted(value: bool | float) -> str:
    """What to say of a word or a number that YAML has not read as text."""
    if isinstance(value, bool):
        said = "YAML reads yes, no, on, off, true and false without quotes as true or false"
        return f'{said}; put quotes round it, such as "{"yes" if value else "no"}"'
    return f'YAML reads it as a number; put quotes round it: "{value}"'


def _text(path: Path) -> str:
    try:
        if path.is_dir():
            raise SpecError(f"{path} is a folder", next_step=f"fedspan -f {path / 'federation.yml'} validate")
        if path.stat().st_size > MAX_BYTES:
            why = f"over {MAX_BYTES} bytes"
            raise SpecError(f"{path} is too large to be a federation", why=why, next_step="fedspan -f FILE validate")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SpecError(f"there is no {path}", next_step="fedspan init writes an example to start from") from None
    except UnicodeDecodeError as error:
        raise SpecError(f"{path} is not text", why=f"byte {error.start} is not UTF-8", next_step=_again(path)) from None
    except OSError as error:
        raise SpecError(f"{path} can't be read", why=error.strerror or str(error), next_step=_again(path)) from None


def _parse(path: Path, text: str) -> tuple[Any, _Lines]:
    if path.suffix == ".json":
        text = text.replace("\t", " ")  # JSON allows tabs between tokens, YAML does not
    lines = _Lines()
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None, lines
        _check_node(path, node, (), lines, depth=0)
        return loader.construct_document(node), lines
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        why = f"{error.problem or error}" + (f" (column {mark.column + 1})" if mark else "")
        raise SpecError(f"{where} is not YAML", why=why, next_step=_again(path)) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SpecError(f"{path} is not YAML", why=str(error), next_step=_again(path)) from None
    finally:
        loader.dispose()


def _check_node(path: Path, node: yaml.Node, location: Location, lines: _Lines, depth: int) -> None:
    """Notes lines; refuses keys given twice (YAML would keep the last and say nothing) and self-reference."""
    if depth > 20:
        raise SpecError(f"{path}:{node.start_mark.line + 1} is nested too deeply", next_step=_again(path))
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                where = f"{path}:{key.start_mark.line + 1}"
                raise SpecError(f"{where} has a key that is not a word", next_step=_again(path))
            line = key.start_mark.line + 1
            if key.tag == _BOOLEAN:
                raise SpecError(
                    f"{path}:{line} has the key {key.value}, which YAML reads as true or false",
                    why="yes, no, on and off are YAML's words for true and false",
                    next_step=f'put quotes round it ("{key.value}"), then: fedspan -f {path} validate',
                )
            if key.value in seen:
                raise SpecError(
                    f"{path}:{line} {'.'.join(map(str, (*location, key.value)))} stands there twice",
                    why=f"first on line {seen[key.value]}",
                    next_step="keep one of them",
                )
            seen[key.value] = line
            lines.note((*location, key.value), key.start_mark)
            _check_node(path, value, (*location, key.value), lines, depth + 1)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines.note((*location, index), item.start_mark)
            _check_node(path, item, (*location, index), lines, depth + 1)


def _fault(path: Path, lines: _Lines, values: Any, fault: dict[str, Any]) -> tuple[int, str]:
    """The line of a fault, and what to tell of it."""
    location = tuple(_real_location(values, fault["loc"]))
    message = fault["msg"].removeprefix("Value error, ")
    kind = fault["type"]
    if kind == "value_error" and (match := _FIELD_IN_MESSAGE.match(message)):
        # Rules over several fields name the field they mean at the start of their message.
        location, message = (*location, *match[1].split(".")), match[2]
    elif kind == "extra_forbidden":
        message = _unknown_key(location)
    elif kind == "string_type" and isinstance(fault["input"], (bool, int, float)):
        message = _unquoted(fault["input"])
    elif kind == "missing":
        message = "is missing"
    elif kind == "literal_error":
        message = f"one of {fault['ctx']['expected']} is wanted, not {fault['input']!r}"
    elif kind == "string_pattern_mismatch" and location[-1:] == ("account",):
        message = f'an AWS account number of twelve digits in quotes is wanted, not "{fault["input"]}"'
    elif kind != "value_error":
        message = f"{message[0].lower()}{message[1:]}, not {fault['input']!r}"
    line = lines.of(location)
    return line, f"{path}:{line} {'.'.join(map(str, location)) or 'the file'}: {message}"


def _real_location(values: Any, loc: Location) -> Iterator[str | int]:
    """pydantic's location without the parts that are no place in the file (names of union members, `[key]`)."""
    for index, part in enumerate(loc):
        last = index == len(loc) - 1
        if isinstance(values, dict) and part in values:
            values = values[part]
        elif isinstance(part, int) and isinstance(values, list):
            values = values[part] if part < len(values) else None
        elif part == "[key]" or not last or not isinstance(values, dict) or "[" in str(part):
            continue
        yield part


def _unknown_key(location: Location) -> str:
    model = next((model for shape, model in _MODELS.items() if _fits(shape, location[:-1])), None)
    if model is None:
        return "is not known here"
    named = model is FederationSpec  # only there is `name` a key of the file
    fields = model.model_fields.items()
    known = sorted(field.alias or name for name, field in fields if named or name != "name")
    typed = str(location[-1])
    near = difflib.get_close_matches(typed, known, n=3, cutoff=0.6)
    near.sort(key=lambda key: sorted(key) != sorted(typed))  # swapped letters before anything else
    return "is not known here; " + (f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}")


def _fits(shape: tuple[str, ...], location: Location) -> bool:
    return len(shape) == len(location) and all(a in ("*", b) for a, b in zip(shape, location, strict=True))
