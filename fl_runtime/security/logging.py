"""What an exception may say in a log: its type and message, not the data in its frames."""

from __future__ import annotations

import traceback


def secure_format_exception(e: BaseException, fmt: object = None) -> str:
    """One line."""
    return f"{type(e).__name__}: {e}"


def secure_format_traceback(fmt: object = None) -> str:
    return traceback.format_exc()


def secure_log_traceback(logger: object = None) -> None:
    log = getattr(logger, "error", None)
    if log is not None:
        log(secure_format_traceback())
