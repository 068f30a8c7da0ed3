"""Where job scripts get torch from on a machine: its image, or a package index that the machine itself asks."""

from __future__ import annotations

import base64
import functools
import hashlib
import http.server
import subprocess
import threading
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployer.bundle import build_bundle
from deployer.errors import MachineError
from deployer.job_python import REMEMBERED, JobPython, drop_others, job_python
from deployer.keys import KeyStore
from deployer.sandbox.azure.tls import open_authority, server_context
from deployer.sandbox.machines.standalone import Machines, machines
from deployer.service import BUNDLE
from deployer.ssh import Machine, connect
from deployer.targets import Target
from startup_kits.torch_source import TorchSource
from tests.deployer.push.conftest import SSH_PORT, boot

IMAGE = TorchSource()


def stub(folder: Path, **packages: str) -> Path:
    """An interpreter with packages that have a version and nothing else."""
    venv.EnvBuilder(with_pip=False, symlinks=True).create(folder)
    where = next(folder.glob("lib/python3*/site-packages"))
    for name, version in packages.items():
        (where / name).mkdir()
        (where / name / "__init__.py").write_text(f"__version__ = {version!r}\n")
    return folder / "bin" / "python"


def ask(machine: Machine, source: TorchSource | None, said: bool = False) -> tuple[JobPython, list[str]]:
    told: list[str] = []
    bundle = build_bundle(Target.of(machine.facts())) if source and source.index else None
    found = job_python(machine, bundle, source, said=said, proxy=None, tell=told.append)  # type: ignore[arg-type]
    return found, told


def test_the_images_interpreter_with_torch_is_found_and_remembered(login: Machine) -> None:
    root = Path(login.facts().root)
    Path(login.path(REMEMBERED)).parent.mkdir(parents=True)
    stub(root / "opt/conda", numpy="2.0")  # no torch: passed over
    python = stub(root / "opt/conda/envs/pytorch", numpy="2.0", torch="2.11.0+cu130")
    found, told = ask(login, IMAGE)
    assert found == JobPython(str(python))
    assert told[-1] == f"torch 2.11.0+cu130 in {python}"
    (next((root / "opt/conda/envs/pytorch").glob("lib/python3*")) / "site-packages/torch/__init__.py").write_text("1/0")
    assert ask(login, IMAGE)[0] == JobPython(str(python))  # not imported again


def test_an_image_without_torch_is_an_error_only_where_the_spec_names_it(login: Machine) -> None:
    Path(login.path(REMEMBERED)).parent.mkdir(parents=True)
    stub(Path(login.facts().root) / "opt/pytorch", numpy="2.0")
    found, _ = ask(login, IMAGE)
    assert not found.path
    assert "name an index: torch: {index:" in found.note
    with pytest.raises(MachineError) as caught:
        ask(login, IMAGE, said=True)
    assert "/opt/pytorch/bin/python: ModuleNotFoundError: No module named 'torch'" in str(caught.value)
    assert "torch: {index:" in str(caught.value.next_step)


def test_a_machine_without_gpus_is_asked_nothing(login: Machine) -> None:
    assert ask(login, None) == (JobPython(), [])


def wheel(folder: Path, name: str, version: str) -> None:
    """A wheel with one module."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}/__init__.py": f"__version__ = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = []
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")
        rows.append(f"{path},sha256={digest},{len(text)}\n")
    files[f"{info}/RECORD"] = "".join([*rows, f"{info}/RECORD,,\n"])
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)


class Index(http.server.SimpleHTTPRequestHandler):
    """A folder of folders of wheels, over TLS; notes who asked."""

    asked: list[tuple[str, str]]

    def log_message(self, *_: object) -> None:
        self.asked.append((self.client_address[0], self.path))


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Machines, KeyStore]]:
    with machines() as some:
        yield some, KeyStore(tmp_path_factory.mktemp("keys") / "ssh")


@pytest.fixture
def index(tmp_path: Path, emulated: tuple[Machines, KeyStore]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """`https://ADDRESS:PORT` of a package index on the sandbox's network, and what it was asked by whom."""
    address = emulated[0].address()
    wheel(tmp_path / "index" / "torch", "torch", "2.13.0")
    asked: list[tuple[str, str]] = []
    handler = type("Noting", (Index,), {"asked": asked})
    server = http.server.ThreadingHTTPServer((address, 0), functools.partial(handler, directory=tmp_path / "index"))
    context = server_context(open_authority(tmp_path / "tls"), (address,), tmp_path / "tls")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"https://{address}:{server.server_port}", asked
    server.shutdown()
    server.server_close()
    thread.join(60)


@pytest.mark.slow  # pip asks three times before it gives up
def test_torch_comes_from_an_index_through_the_machines_own_proxy_and_configuration(
    tmp_path: Path, emulated: tuple[Machines, KeyStore], index: tuple[str, list[tuple[str, str]]]
) -> None:
    some, keys = emulated
    url, asked = index
    address = boot(some, keys, "site-1", 9)
    with connect(address, SSH_PORT, "fedspan", keys.login_path, keys.known_hosts, 20, name="site-1") as machine:
        bundle = build_bundle(Target.of(machine.facts()))
        machine.put_tree(bundle.folder, machine.path(BUNDLE))
        with pytest.raises(MachineError) as caught:  # the index's certificate is not known on the machine yet
            ask(machine, TorchSource(url, "2.13.0"))
        assert f"torch 2.13.0 can't be installed from {url}" in str(caught.value)
        assert "fedspan up site-1" in str(caught.value.next_step)
        assert not list(Path(machine.path(BUNDLE)).parent.glob("torch-*/.fedspan-installed"))
        settings = Path(machine.facts().home, ".config/pip/pip.conf")
        settings.parent.mkdir(parents=True)
        settings.write_text(f"[global]\ncert = {tmp_path / 'tls/ca.pem'}\n")
        asked.clear()
        found, told = ask(machine, TorchSource(url, "2.13.0"))
        assert found.changed
        assert any(line.startswith("Downloading") for line in told)
        assert {who for who, _ in asked} == {address}  # through its proxy: from nowhere else
        code = "import torch, numpy, sys; print(torch.__version__, numpy.__version__, sys.prefix)"
        done = subprocess.run([found.path, "-I", "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.split()[0] == "2.13.0"
        asked.clear()
        again, told = ask(machine, TorchSource(url, "2.13.0"))
        assert (again.path, again.changed, told, asked) == (found.path, False, [], [])
        with pytest.raises(MachineError, match=r"torch 9\.9\.9 can't be installed"):
            ask(machine, TorchSource(url, "9.9.9"))
        drop_others(machine, found.path)
        assert [path.name for path in Path(machine.path(BUNDLE)).parent.glob("torch-*")] == [
            Path(found.path).parent.parent.name
        ]
