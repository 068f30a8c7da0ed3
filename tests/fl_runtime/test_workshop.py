"""The process of filters and codecs."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lone_hub import SIZE, model, wire_of

from fl_runtime.codecs.spec import chosen
from fl_runtime.errors import DiskFullError
from fl_runtime.filters.workshop import Workshop, WorkshopError
from fl_runtime.job.spec import parse_spec
from fl_runtime.models.tensors import allocate
from fl_runtime.names import FEATURES

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


@pytest.mark.parametrize("what", ["filter", "encode", "decode"])
def test_a_full_disk_is_told_as_that_and_not_as_a_failure(tmp_path: Path, what: str) -> None:
    """It passes: whoever asked asks again."""
    source = model(np.linspace(0, 1, SIZE))
    codecs = parse_spec({"name": "x", "script": "x", "codecs": ["quantize8"]}).codecs
    request: dict[str, Any] = {"op": what, "meta": {}, "filters": [{"type": "clip_value", "limit": 0.5}]}
    request |= {"codecs": chosen(codecs, "results", FEATURES), "limit": 1 << 62}
    if what == "decode":
        source, _ = wire_of(["quantize8"], tmp_path, source)
    (tmp_path / "source").write_bytes(source)
    request["input"] = {"file": str(tmp_path / "source")}
    shop = Workshop("x")
    try:
        with pytest.raises(DiskFullError, match="No space left"):
            shop.ask({**request, "output": "/dev/full"})
        shop.ask({**request, "output": str(tmp_path / "target")})
    finally:
        shop.close()
    assert (tmp_path / "target").stat().st_size > 0


def test_an_error_is_told_also_when_the_log_has_no_room_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: Workshop) -> subprocess.Popen[str]:
        argv = [sys.executable, "-m", "fl_runtime.filters.run"]
        with open("/dev/full", "w") as full:
            return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=full, text=True)

    monkeypatch.setattr(Workshop, "_start", start)
    shop = Workshop("x")
    try:
        with pytest.raises(WorkshopError, match="clip_norm failed"):
            shop.ask({"op": "filter", "meta": {}, "filters": [{"type": "clip_norm", "max_norm": -1}], "output": "/x"})
    finally:
        shop.close()


def test_what_is_mapped_has_its_blocks_or_there_is_no_room_for_it(tmp_path: Path) -> None:
    """A map without blocks would end the process where the disk is full."""
    with tempfile.TemporaryFile(dir=tmp_path) as file:
        allocate(file.fileno(), 1 << 20)
        assert os.fstat(file.fileno()).st_blocks * 512 >= 1 << 20
        with pytest.raises(OSError) as told:
            allocate(file.fileno(), 1 << 62)
    assert told.value.errno in (errno.ENOSPC, errno.EFBIG)
