"""A machine has its end before anything is installed there: an installation that fails must not bill for ever."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn, cast

import pytest

from deployer.errors import MachineError
from deployer.expiry_units import TIMER_PATH
from deployer.interrupts import Interrupts
from deployer.machine_run import Start, install_and_start
from tests.deployer.push.conftest import MakeMachine


def fails(*_: Any, **__: Any) -> NoReturn:
    raise MachineError("pip found nothing", participant="site-1")


def test_a_machine_whose_installation_fails_ends_all_the_same(
    make_machine: MakeMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = make_machine()
    monkeypatch.setattr("deployer.bootstrap.install_participant", fails)
    monkeypatch.setattr("deployer.host_keys.rotate_host_key", lambda *_: False)
    said = SimpleNamespace(phase=lambda *_: None, line=lambda *_: None)
    log = SimpleNamespace(file=lambda name: (tmp_path / name).open("a"))
    crew = SimpleNamespace(screen=said, log=log, interrupts=Interrupts(), deployment=SimpleNamespace(keys=None))
    member = SimpleNamespace(name="site-1", cloud="aws", kit=tmp_path, wanted_torch=None)
    reach = SimpleNamespace(address=box.address, port=box.port, connect=lambda *_: box.connect())
    with pytest.raises(MachineError, match="pip found nothing"):
        install_and_start(cast(Any, crew), cast(Any, member), cast(Any, reach), Start(None, {}, time.time() + 3600))
    assert (box.root / TIMER_PATH.lstrip("/")).is_file()
