"""Two of the provider protocol's messages: a provider's configuration as it arrives, a difference as it is answered."""

from __future__ import annotations

import json
from collections.abc import Callable

from pulumi.runtime.proto import provider_pb2

from deployer.sandbox.provider_resource import Values
from deployer.sandbox.provider_values import UNKNOWN, Change, plain


def decode_config(config: Values) -> Values:
    """The provider's settings with their types: they arrive as strings, everything but strings as JSON in a string."""
    decoded: Values = {}
    for key, value in config.items():
        decoded[key] = value
        if isinstance(value, str) and value != UNKNOWN and (value[:1] in "[{" or value in ("true", "false")):
            try:
                decoded[key] = plain(json.loads(value))
            except ValueError:
                decoded[key] = value
    return decoded


def diff_response(
    found: list[Change],
    replaces: Callable[[Change], bool],
    deletes_first: bool,
    replace_properties: list[str] | None = None,
) -> provider_pb2.DiffResponse:
    kind = provider_pb2.PropertyDiff
    detail = {}
    for change in found:
        replacing = replaces(change)
        if change.old is None:
            code = kind.ADD_REPLACE if replacing else kind.ADD
        elif change.new is None:
            code = kind.DELETE_REPLACE if replacing else kind.DELETE
        else:
            code = kind.UPDATE_REPLACE if replacing else kind.UPDATE
        detail[change.path] = kind(kind=code, inputDiff=change.top != "tagsAll")
    replacing_names = sorted({change.top for change in found if replaces(change)})
    answer = provider_pb2.DiffResponse
    return answer(
        changes=answer.DIFF_SOME if found else answer.DIFF_NONE,
        diffs=sorted({change.top for change in found}),
        replaces=replacing_names if replace_properties is None else replace_properties,
        deleteBeforeReplace=bool(replacing_names) and deletes_first,
        detailedDiff=detail,
        hasDetailedDiff=True,
    )
