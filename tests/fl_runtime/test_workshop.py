"""The process of filters and codecs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fl_runtime.filters.workshop import Workshop

ANSWERS_WITHOUT_WORDS = """
import sys
for line in sys.stdin:
    open(sys.argv[1], "a").write(line)
    print("{}", flush=True)
"""


def test_a_request_whose_reply_has_nothing_to_say_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoding answers {}: that is no failure."""
    argv = [sys.executable, "-c", ANSWERS_WITHOUT_WORDS, str(tmp_path / "requests")]

    def start(_: Workshop) -> subprocess.Popen[str]:
        return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    monkeypatch.setattr(Workshop, "_start", start)
    shop = Workshop("x")
    try:
        assert shop.ask({"op": "decode"}) == {}
    finally:
        shop.close()
    assert (tmp_path / "requests").read_text().splitlines() == ['{"op": "decode"}']
