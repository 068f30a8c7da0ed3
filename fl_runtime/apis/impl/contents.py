"""What a controller's task sends to which site."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fl_runtime.apis import wire
from fl_runtime.apis.controller_spec import ClientTask, Task
from fl_runtime.apis.shareable import ReservedHeaderKey

COOKIES = "__cookies__"  # a property of a ClientTask: the cookies that its site was sent


@dataclass
class Content:
    """The plain part and the arrays of what these sites get."""

    sites: list[str]
    meta: dict[str, Any]
    arrays: dict[str, Any]


def contents_of(task: Task, parts: dict[str, ClientTask], callback: Callable[..., None]) -> list[Content]:
    """Let `before_task_sent_cb` look at the task for each site; it may give each one other data. Sites that get the
    same stand together. Other arrays must be other objects: arrays that it changes in place are changed for all."""
    made: list[Content] = []
    for name, part in parts.items():
        if task.before_task_sent_cb is None and made:
            made[0].sites.append(name)
        else:
            callback(task.before_task_sent_cb, task, part, name)
            content = _encoded(task, name)
            for other in made:
                if other.meta == content.meta and _same(other.arrays, content.arrays):
                    other.sites.append(name)
                    break
            else:
                made.append(content)
        part.props[COOKIES] = copy.deepcopy(task.data.get_cookie_jar())
    return made or [_encoded(task)]


def _encoded(task: Task, *sites: str) -> Content:
    task.data.set_header(ReservedHeaderKey.TASK_NAME, task.name)
    return Content(list(sites), *wire.encode(task.data))


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(one[name] is other[name] for name in one)
