"""A machine that is a system of its own finds Azure at its edge, and deallocates itself there by its own systemd."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from waiting import until

from deployer.realm_sandbox import SandboxRealm
from deployer.sandbox.client import Sandbox
from deployer.sandbox.machines.nspawn import image, tools

from .self_deallocation_kit import SCRIPT, SERVICE, give_role, make, power, words

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
BOOT_S = 180.0


def user_data(realm: SandboxRealm) -> str:
    """Puts the unit and what it needs on the machine, and starts it; JSON is YAML."""
    where = realm.azure_management(None, "")
    files = {
        "/usr/local/lib/fedspan/deallocate.py": SCRIPT,
        "/usr/local/lib/fedspan/arm-ca.crt": (where.ca or b"").decode(),
        "/etc/systemd/system/end.service": SERVICE.format(words=words(where, 120)),
    }
    config = {
        "write_files": [{"path": path, "content": content} for path, content in files.items()],
        "runcmd": ["systemctl daemon-reload", "systemctl start --no-block end.service"],
    }
    return f"#cloud-config\n{json.dumps(config)}"


def test_its_end_is_the_end_of_its_bill(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if why := tools.lacking():
        pytest.skip(why)
    realm = SandboxRealm(Sandbox.ensure(image.ensure(print)))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", realm.sandbox.azure_environment()["REQUESTS_CA_BUNDLE"])
    clients = make(realm, user_data(realm))
    give_role(clients)
    (machine,) = realm.sandbox.machines()
    console = Path(machine["console"])
    until(lambda: power(clients) == "PowerState/deallocated", BOOT_S, str(console))
    until(lambda: realm.sandbox.machines()[0]["state"] == "stopped")
    clients.resources.resource_groups.begin_delete("rg").result()
