"""What waits for a full disk, and what does not."""

from __future__ import annotations

import errno

import pytest

from fl_runtime import patience
from fl_runtime.errors import DiskFullError, FlError, QuotaError, StorageError
from fl_runtime.patience import is_full, patiently


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (DiskFullError("full"), True),
        (StorageError("the database does not answer"), True),
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (QuotaError("the owner allows no more"), False),
        (FlError("something else"), False),
        (PermissionError(errno.EACCES, "Permission denied"), False),
    ],
)
def test_what_may_pass_is_waited_for_and_nothing_else(error: Exception, passes: bool) -> None:
    assert is_full(error) == passes


def test_it_is_done_again_until_it_is_done_and_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(patience, "AGAIN_S", 0.0)
    left = [DiskFullError("full"), OSError(errno.ENOSPC, "No space left on device")]

    def action() -> str:
        if left:
            raise left.pop()
        return "done"

    assert patiently(action, lambda: True, "job-1") == "done"
    assert [record.getMessage() for record in caplog.records] == ["job-1 waits: [Errno 28] No space left on device"]


def test_what_nobody_wants_any_more_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "AGAIN_S", 0.0)
    wanted = [False, True, True]

    def action() -> None:
        raise DiskFullError("full")

    with pytest.raises(DiskFullError):
        patiently(action, wanted.pop, "job-1")
    assert not wanted
