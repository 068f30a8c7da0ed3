"""The hub's open calls, where storing them fails."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from lone_hub import SIZE, pushed, server

from fl_runtime.errors import StorageError


def test_a_call_whose_commit_finds_no_room_is_made_when_there_is_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then there is none: whoever looks at the open calls meanwhile neither closes nor fails it."""
    with server(tmp_path) as made:
        session, call = made.connect(), made.call(np.zeros(SIZE))

        def full() -> None:
            raise StorageError("The disk is full")

        with monkeypatch.context() as disk:
            disk.setattr(made.hub.store.db, "_commit", full)
            with pytest.raises(StorageError):
                made.hub.board.open(call, made.heard, dict)
        made.hub.board.tick()
        assert made.heard.ends == []
        assert made.hub.store.call(call.job, 0, 0) is None
        made.hub.board.open(call, made.heard, dict)
        assert [task.name for task in pushed(session)] == ["train"]
        made.hub.board.tick()
        assert made.heard.ends == []
