"""A machine has its end before anything is installed there: an installation that fails must not bill for ever."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn, cast

import pytest

from deployer import idle_units
from deployer.deallocation import CA_PATH, SCRIPT_PATH, deallocation_of
from deployer.errors import MachineError
from deployer.expiry import apply_expiry
from deployer.expiry_units import SERVICE_PATH, TIMER_PATH
from deployer.interrupts import Interrupts
from deployer.ledger import Ledger
from deployer.machine_run import Start, install_and_start
from deployer.realm import Management
from tests.deployer.push.conftest import MakeMachine


def fails(*_: Any, **__: Any) -> NoReturn:
    raise MachineError("pip found nothing", participant="site-1")


def crew_of(tmp_path: Path, ledger: Ledger) -> Any:
    """A crew whose machines are asked to end."""
    said = SimpleNamespace(phase=lambda *_: None, line=lambda *_: None)
    log = SimpleNamespace(file=lambda name: (tmp_path / name).open("a"))
    realm = SimpleNamespace(azure_management=lambda *_: Management("https://arm", "http://metadata", b"an authority"))
    deployment = SimpleNamespace(keys=None, ledger=ledger, realm=realm)
    return SimpleNamespace(screen=said, log=log, interrupts=Interrupts(), deployment=deployment)


@pytest.mark.parametrize("outputs", [{}, {"self_deallocate": True, "vm_id": "/subscriptions/s/vm"}])
def test_a_machine_whose_installation_fails_ends_all_the_same(
    make_machine: MakeMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outputs: dict[str, Any]
) -> None:
    box = make_machine()
    (box.root / "run").mkdir()
    monkeypatch.setattr("deployer.bootstrap.install_participant", fails)
    monkeypatch.setattr("deployer.host_keys.rotate_host_key", lambda *_: False)
    ledger = Ledger(tmp_path / "ledger.db")
    ledger.record("site-1", "machine", role="site", target="azure", outputs=outputs)
    crew = crew_of(tmp_path, ledger)
    member = SimpleNamespace(name="site-1", cloud="azure", kit=tmp_path, wanted_torch=None)
    reach = SimpleNamespace(address=box.address, port=box.port, connect=lambda *_: box.connect())
    with pytest.raises(MachineError, match="pip found nothing"):
        install_and_start(crew, cast(Any, member), cast(Any, reach), Start(None, {}, time.time() + 3600, 7200))
    assert (box.root / TIMER_PATH.lstrip("/")).is_file()
    assert (box.root / SCRIPT_PATH.lstrip("/")).is_file() == bool(outputs)
    idle = (box.root / idle_units.SERVICE_PATH.lstrip("/")).read_text()
    assert ("deallocate.py --vm /subscriptions/s/vm --arm https://arm" in idle) == bool(outputs)
    assert not (box.root / idle_units.HOLD_PATH.lstrip("/")).exists()  # from now on it counts
    if outputs:
        assert (box.root / CA_PATH.lstrip("/")).read_bytes() == b"an authority"


def test_a_machine_is_told_when_it_may_deallocate_itself_and_when_it_may_no_more(
    make_machine: MakeMachine, tmp_path: Path
) -> None:
    box, ledger = make_machine(), Ledger(tmp_path / "ledger.db")
    deployment, member = crew_of(tmp_path, ledger).deployment, cast(Any, SimpleNamespace(name="site-1"))
    at, told = time.time() + 3600, []
    with box.connect() as machine:
        for able in (False, True, True, False):
            ledger.record(
                "site-1", "started", role="site", target="azure", outputs={"vm_id": "/v", "self_deallocate": able}
            )
            changed = apply_expiry(machine, at, deallocation_of(deployment, member))
            service = (box.root / SERVICE_PATH.lstrip("/")).read_text()
            told.append((changed, "deallocate.py --vm /v --arm https://arm" in service))
    assert told == [(True, False), (True, True), (False, True), (True, False)]
