"""Exceptions of the Controller and Executor API."""

from __future__ import annotations


class TaskExecutionError(Exception):
    """An executor could not do its task."""


class UnsafeJobError(Exception):
    """The job does what this site forbids."""


class UnsafeComponentError(Exception):
    """A component is not to be used."""


class NotAuthorized(Exception):
    """The caller may not do this."""
