"""What the runtime may say to a person when something is wrong.

    FlError                  1   unexpected
    ├── JobSpecError         3   job.yml or the job's folder is wrong
    ├── KitError             4   the kit is incomplete, or its certificate is not this federation's
    ├── UnreachableError     9   the server can't be reached
    ├── NotRegisteredError  11   the runtime does not run here, or is not registered
    ├── JobError            12   a job failed or was aborted
    ├── RefusedError        13   the other side refused: role, policy, protocol version
    ├── BusyError           15   another process holds the state folder
    └── StorageError        17   the disk is full, or the database does not answer; it may be tried again
        ├── DiskFullError   17   the disk is full
        └── QuotaError      17   the owner's disk quota is: trying again does not help

The figures are exit codes; docs/errors.md lists them for the whole product.
"""

from __future__ import annotations

from typing import ClassVar

# What Python says when a message holds something else than it should: too deep, too large, of another type.
NONSENSE = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)


class FlError(Exception):
    """Base of all errors that a user of the runtime may see: what happened, to whom, why, and what to do next."""

    exit_code: ClassVar[int] = 1

    def __init__(
        self,
        what: str,
        *,
        participant: str | None = None,
        why: str | None = None,
        next_step: str | None = None,
        log: str | None = None,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.participant = participant
        self.why = why
        self.next_step = next_step
        self.log = log

    def __str__(self) -> str:
        text = self.what
        if self.participant:
            text += f" ({self.participant})"
        if self.why:
            text += f": {self.why}"
        if self.log:
            text += f"\n  log: {self.log}"
        if self.next_step:
            text += f"\n  next: {self.next_step}"
        return text


class JobSpecError(FlError):
    """job.yml, or the folder it lies in, is not what a job must be."""

    exit_code = 3


class KitError(FlError):
    """The kit is incomplete or holds what does not belong together."""

    exit_code = 4


class UnreachableError(FlError):
    """The server can't be reached; `why` is the diagnosis."""

    exit_code = 9


class NotRegisteredError(FlError):
    """The runtime does not run here, or the server does not know the participant yet."""

    exit_code = 11


class JobError(FlError):
    """A job failed or was aborted."""

    exit_code = 12


class RefusedError(FlError):
    """The other side understood and said no."""

    exit_code = 13


class BusyError(FlError):
    """Another process of this participant is already at work."""

    exit_code = 15


class StorageError(FlError):
    """Nothing can be stored at the moment: a full disk, or a database that does not answer. Trying again may help."""

    exit_code = 17


class DiskFullError(StorageError):
    """The disk has no room for what is to be stored."""


class QuotaError(StorageError):
    """What is to be stored exceeds what the machine's owner allows. Trying again does not help, raising it does."""


class ProtocolError(FlError):
    """A frame, manifest or message is malformed: a bug, or not our peer."""
