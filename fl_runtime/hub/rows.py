"""Rows of the hub's tables as what hub/state.py calls them."""

from __future__ import annotations

import json

from fl_runtime.db import Row
from fl_runtime.hub.state import Boundary, Call, Job, Late, Task


def to_job(row: Row) -> Job:
    values = dict(row)
    values["spec"] = json.loads(row["spec"])
    process = json.loads(row["process"]) if row["process"] else None
    values["process"] = tuple(process) if process else None
    return Job(**values)


def to_call(row: Row) -> Call:
    return Call(
        job=row["job"],
        round=row["round"],
        index=row["idx"],
        name=row["name"],
        targets=tuple(json.loads(row["targets"])),
        digest=row["digest"],
        meta=json.loads(row["meta"]),
        payload=row["payload"],
        settings=json.loads(row["settings"]),
        state=row["state"],
        outcome=json.loads(row["outcome"]),
        waited=row["waited"],
    )


def to_task(row: Row) -> Task:
    return Task(
        id=row["id"],
        job=row["job"],
        round=row["round"],
        index=row["idx"],
        site=row["site"],
        attempt=row["attempt"],
        state=row["state"],
        meta=json.loads(row["meta"]),
        result=row["result"],
        why=row["why"],
        order=row["answered"],
    )


def to_boundary(row: Row) -> Boundary:
    return Boundary(
        job=row["job"],
        round=row["round"],
        state=json.loads(row["state"]),
        model=row["model"],
        metrics=json.loads(row["metrics"]),
        at=row["at"],
    )


def to_late(row: Row) -> Late:
    return Late(
        job=row["job"],
        site=row["site"],
        task=row["task"],
        round=row["round"],
        index=row["idx"],
        name=row["name"],
        meta=json.loads(row["meta"]),
        result=row["result"],
        used=row["state"] == "used",
    )
