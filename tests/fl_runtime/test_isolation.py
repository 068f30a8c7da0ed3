"""What a job's program can't do on a site: each refused by the kernel. And that nothing of it is left afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from lone_site import Site, how, start

from fl_runtime.agent import isolation, keeper, landlock
from fl_runtime.agent.isolation import Isolation, Means, choose, means
from fl_runtime.agent.place import clear
from fl_runtime.errors import FlError, RefusedError
from fl_runtime.job.spec import parse_spec

needs_landlock = pytest.mark.skipif(landlock.abi() < 2, reason="this kernel has no Landlock")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="another user needs root")


TRY = """
import json, os, socket, sys, tempfile
def tried(action):
    try:
        return repr(action())
    except OSError as error:
        return type(error).__name__
"""

TAMPER = (
    TRY
    + """
kit, state, agent = sys.argv[1:4]
print(json.dumps({
    "reads the key": tried(lambda: open(kit + "/startup/participant.key").read()),
    "lists the kit": tried(lambda: os.listdir(kit + "/startup")),
    "writes the policy": tried(lambda: open(kit + "/local/policy.yml", "a")),
    "replaces the policy": tried(lambda: os.rename("train.py", kit + "/local/policy.yml")),
    "reads the journal": tried(lambda: open(state + "/agent.db", "rb")),
    "writes the journal": tried(lambda: open(state + "/agent.db", "rb+")),
    "removes the journal": tried(lambda: os.unlink(state + "/agent.db")),
    "reads other jobs": tried(lambda: os.listdir(state + "/jobs/job-2")),
    "reads the agent's memory": tried(lambda: open(f"/proc/{agent}/mem", "rb")),
    "reads the agent's environment": tried(lambda: open(f"/proc/{agent}/environ", "rb").read()),
    "gets there by the agent's folder": tried(lambda: open(f"/proc/{agent}/root{kit}/startup/participant.key")),
    "writes to the programs": tried(lambda: open(os.path.join(sys.prefix, "x"), "w")),
    "writes to /etc": tried(lambda: open("/etc/x", "w")),
    "kills the agent": tried(lambda: os.kill(int(agent), 0)),
}))
"""
)


@contextlib.contextmanager
def bystander() -> Iterator[int]:
    """A process of our user, as the agent is one."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        yield child.pid
    finally:
        child.kill()
        child.wait()


def tampered(site: Site, how: Isolation) -> dict[str, str]:
    with bystander() as agent:
        return json.loads(site.run(TAMPER, how, str(site.kit.path), str(site.state), str(agent)))


def denied(outcome: dict[str, str], but: tuple[str, ...] = ()) -> None:
    got = {what for what, result in outcome.items() if not result.endswith("Error") and result != "b''"}
    assert got <= set(but), {what: outcome[what][:80] for what in got}


@needs_root
@pytest.mark.parametrize("with_landlock", [True, False])
@pytest.mark.parametrize("with_mounts", [True, False])
def test_as_root_a_job_runs_as_a_user_of_its_own_and_gets_at_nothing(with_landlock: bool, with_mounts: bool) -> None:
    if (with_landlock and landlock.abi() < 2) or (with_mounts and not means().mounts):
        pytest.skip("this kernel has it not")
    # not below pytest's own folder, which only its user can enter
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(Site(Path(folder))) as site:
        Path(folder).chmod(0o711)
        python = os.path.realpath(sys.executable)
        if not with_mounts and python.startswith("/root/"):
            pytest.skip("this Python lies where only root comes, and there is no private view")
        user = how(site).user
        assert user is not None
        for path in (site.state, site.state / "jobs"):
            path.chmod(0o711)
        chosen = Isolation(user, True, with_landlock, with_mounts, False)
        denied(tampered(site, chosen))
        assert f"[{user[0]}, 1]" in site.run(
            "import os, ctypes; print([os.getuid(), ctypes.CDLL(None).prctl(39, 0, 0, 0, 0)])", chosen
        )


@needs_landlock
@pytest.mark.parametrize("with_mounts", [True, False])
def test_without_another_user_landlock_hides_kit_policy_and_journal(site: Site, with_mounts: bool) -> None:
    if with_mounts and not means().mounts:
        pytest.skip("no private view here")
    outcome = tampered(site, Isolation(None, False, True, with_mounts, False))
    denied(outcome, () if landlock.abi() >= 6 else ("kills the agent",))


@needs_root
@needs_landlock
def test_an_agent_that_is_not_root_isolates_too() -> None:
    """The keeper as an ordinary user, with the system's Python (ours may lie where that user can't go)."""
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    if python is None or os.path.realpath(python).startswith("/root/"):
        pytest.skip("no Python that every user can start")
    package = Path(keeper.__file__).parent.parent.parent
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in ("kit/startup", "kit/local", "state/jobs/job-2", "job", "tmp"):
            (root / name).mkdir(parents=True)
        for name in ("kit/startup/participant.key", "kit/local/policy.yml", "state/agent.db"):
            (root / name).write_text("secret")
        (root / "job/train.py").write_text(TAMPER)
        for path in (root, *root.rglob("*")):
            os.chown(path, 12345, 12345)
        agent = subprocess.Popen([python, "-c", "import time; time.sleep(600)"], user=12345, group=12345)
        order = {
            "argv": [python, str(root / "job/train.py"), str(root / "kit"), str(root / "state"), str(agent.pid)],
            "env": {},
            "cwd": str(root / "job"),
            "epoch": 1,
            "record": str(root / "run.json"),
            "package": str(package),
            "user": None,
            "exclusive": False,
            "isolated": True,
            "landlock": True,
            "mounts": means().mounts,
            "cut": means().network,
            "tmp": str(root / "tmp"),
            "paths": {"run": ["/usr", "/lib", "/lib64"], "read": ["/proc"], "edit": [], "own": [str(root / "job")],
                      "devices": ["/dev/null"]},
            "memory": 0,
            "cgroups": [],
            "kill": [],
            "oom": [],
            "grace": 1.0,
        }  # fmt: skip
        try:
            done = subprocess.run(
                [python, "-I", "-S", keeper.__file__],
                input=json.dumps(order).encode(),
                capture_output=True,
                timeout=60,
                check=False,
                user=12345,
                group=12345,
                extra_groups=[],
            )
        finally:
            agent.kill()
            agent.wait()
        assert done.returncode == 0, done.stderr
        denied(json.loads(done.stdout), () if landlock.abi() >= 6 else ("kills the agent",))


ORDINARY = (
    TRY
    + """
import multiprocessing, subprocess, threading
import numpy as np

def work(lock, queue, number):
    with lock:
        queue.put(number)

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        open(os.path.join(folder, "x"), "w").write("x")
    open("notes.txt", "w").write("x")
    os.makedirs(os.path.expanduser("~/.cache/mine"))
    context = multiprocessing.get_context("spawn")
    lock, queue = context.Lock(), context.Queue()
    children = [context.Process(target=work, args=(lock, queue, number)) for number in range(2)]
    for child in children:
        child.start()
    got = sorted(queue.get(timeout=60) for _ in children)
    for child in children:
        child.join()
    from multiprocessing import shared_memory
    memory = shared_memory.SharedMemory(create=True, size=4096)
    memory.close()
    memory.unlink()
    manager = context.Manager()  # a Unix socket in the temporary folder
    manager.shutdown()
    said = subprocess.run(["/bin/sh", "-c", "echo from a child"], capture_output=True, text=True).stdout.strip()
    rows = open(sys.argv[1]).read()
    print(json.dumps([got, said, rows, tried(lambda: open(sys.argv[1], "a"))]))
"""
)


@pytest.mark.parametrize("private", [True, False])
def test_what_ordinary_scripts_do_still_works(site: Site, tmp_path: Path, private: bool) -> None:
    data = tmp_path / "data.csv"
    data.write_text("1,2,3")
    chosen = how(site)
    if not private:
        chosen = Isolation(None, False, chosen.landlock, False, False)
    printed = site.run(ORDINARY, chosen, str(data), data=(str(data),))
    got, said, rows, writing = json.loads(printed.splitlines()[-1])
    assert (got, said, rows) == ([0, 1], "from a child", "1,2,3")
    assert writing.endswith("Error")


def test_network_none_leaves_only_the_machine_itself(site: Site) -> None:
    if not means().network:
        with pytest.raises(RefusedError, match="network"):
            how(site, network="none")
        return
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        address = listening.getsockname()
        script = TRY + (
            "print(tried(lambda: socket.create_connection(('127.0.0.1', int(sys.argv[1])), 1)))\n"
            "server = socket.socket(); server.bind(('127.0.0.1', 0)); server.listen()\n"
            "print(tried(lambda: socket.create_connection(server.getsockname(), 1).fileno() > 0))\n"
            "print([name for _, name in socket.if_nameindex()])\n"
        )
        outside, inside, interfaces = site.run(script, how(site, network="none"), str(address[1])).splitlines()
        assert (outside, inside, interfaces) == ("ConnectionRefusedError", "True", "['lo']")
        with_network = site.run(script, how(site), str(address[1])).splitlines()[0]
        assert not with_network.endswith("Error")


def test_policy_and_job_can_ask_for_more_than_the_machine_has(site: Site) -> None:
    nothing = Means(root=False, landlock=0, mounts=False, network=False)
    spec = parse_spec({"name": "x", "script": "train.py"})
    policy = site.kit.path / "local/policy.yml"

    def chosen(document: dict[str, Any], **job: Any) -> Isolation:
        policy.write_text(yaml.safe_dump(document))
        return choose(site.kit, site.state, "job-1", parse_spec({**spec.document(), **job}), nothing)

    with pytest.raises(RefusedError, match=r"only listed code runs, and train\.py is not on the list"):
        chosen({"scripts": ["any"]})
    assert not chosen({"scripts": ["train.py"]}).any
    assert not chosen({"scripts": ["any"], "isolation": "best"}).any
    with pytest.raises(RefusedError, match="wants isolation"):
        chosen({"scripts": ["train.py"], "isolation": "required"})
    with pytest.raises(RefusedError, match=r"policy.yml wants `network: none`"):
        chosen({"isolation": "best", "network": "none"})
    with pytest.raises(RefusedError, match="the job wants `network: none`"):
        chosen({"isolation": "best"}, network="none")
    with pytest.raises(FlError, match="isolation must be one of"):
        chosen({"isolation": "some"})


def test_what_holds_the_kit_is_never_shown(site: Site, tmp_path: Path) -> None:
    assert not isolation.harmless(str(tmp_path), site.kit, site.state)
    assert not isolation.harmless("/", site.kit, site.state)
    assert not isolation.harmless(str(site.state), site.kit, site.state)
    assert isolation.harmless("/usr", site.kit, site.state)


# --- results change hands


def test_a_result_must_be_the_file_that_was_given(site: Site, tmp_path: Path) -> None:
    place = site.place("", Isolation(None, False, False, False, False))
    fine = place.new_file(10)
    fine.write_bytes(b"0123456789")
    taken = place.take_back(fine)
    assert taken.parent == site.journal.blobs.spool
    assert taken.read_bytes() == b"0123456789"
    secret = tmp_path / "secret"
    secret.write_text("secret")
    link = place.folder / "spool/link"
    link.symlink_to(secret)
    with pytest.raises(FlError):
        place.take_back(link)
    os.link(secret, place.folder / "spool/hard")
    with pytest.raises(FlError):
        place.take_back(place.folder / "spool/hard")
    with pytest.raises(FlError):
        place.take_back(secret)
    with pytest.raises(FlError):
        place.take_back(place.folder / "spool/../bundle/train.py")
    os.mkfifo(place.folder / "spool/pipe")
    with pytest.raises(FlError):
        place.take_back(place.folder / "spool/pipe")


@needs_root
def test_a_launch_gives_nothing_away_that_an_earlier_one_has_linked(site: Site, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    chosen = Isolation((54321, 54321), True, False, False, False)
    place = site.place("", chosen)
    os.link(secret, place.bundle / "hard")
    (place.bundle / "soft").symlink_to(secret)
    (place.bundle / "/".join(["deep"] * 300)).mkdir(parents=True)
    place.give()
    assert secret.stat().st_uid == 0
    assert (place.bundle / "train.py").stat().st_uid == 54321


# Puts a link to sys.argv[2] in the place of the folder sys.argv[1], and the folder back, as fast as it can.
SWAPPER = """
import os, sys
folder, secret = sys.argv[1:]
os.symlink(secret, folder + ".link")
print("swaps", flush=True)
while True:
    os.rename(folder, folder + ".aside"); os.rename(folder + ".link", folder)
    os.rename(folder, folder + ".link"); os.rename(folder + ".aside", folder)
"""


@needs_root
def test_a_folder_that_is_swapped_for_a_link_meanwhile_gives_nothing_away(site: Site, tmp_path: Path) -> None:
    secret, place = tmp_path / "secret", site.place("", Isolation((54321, 54321), True, False, False, False))
    swapped = place.bundle / "inner/folder"
    for folder in (secret, swapped):
        folder.mkdir(parents=True)
        for number in range(50):
            (folder / str(number)).touch()
    argv = [sys.executable, "-c", SWAPPER, str(swapped), str(secret)]
    swapper = subprocess.Popen(argv, stdout=subprocess.PIPE)
    try:
        assert swapper.stdout is not None
        swapper.stdout.readline()
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            place.give()
    finally:
        swapper.kill()
        swapper.communicate()
    assert {path.stat().st_uid for path in (secret, *secret.iterdir())} == {0}


@needs_root
def test_a_temporary_folder_that_became_a_link_gives_nothing_away(site: Site, tmp_path: Path) -> None:
    """Without a private /tmp the job owns a folder there, which it may remove."""
    place = site.place("", Isolation((54321, 54321), True, False, False, False))
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "file").touch()
    start(place).wait(60)
    folder = Path(os.readlink(place.folder / "tmp"))
    folder.rmdir()
    folder.symlink_to(secret)
    try:
        start(place).wait(60)
        assert {path.stat().st_uid for path in (secret, secret / "file")} == {0}
        other = (place.folder / "tmp").resolve()
        assert other not in (secret, folder)
        assert other.stat().st_uid == 54321
    finally:
        folder.unlink()
        clear(place.folder)


def test_a_result_that_the_script_keeps_open_is_copied(site: Site) -> None:
    place = site.place("", Isolation(None, False, False, False, False))
    given = place.new_file(4)
    given.write_bytes(b"good")
    code = "import sys, time; file = open(sys.argv[1], 'rb+'); print('open', flush=True); sys.stdin.read(); "
    code += "file.write(b'evil'); file.flush()"
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(given)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    taken = place.take_back(given)
    holder.communicate("")
    assert taken.read_bytes() == b"good"
