"""Bundles: what was tested is what is pushed, the second time without a network, for any machine's Python."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from deployer import bundle as bundles
from deployer.bundle import build_bundle, installed_closure
from deployer.errors import MachineError, UnreachableError, UsageError
from deployer.targets import Target
from deployer.wheel_index import download_argv, missing_requirements, wheel_metadata
from deployer.wheels import CannotRepack, installed_wheel, own_wheel

OWN = own_wheel()
OTHER = Target((3, 9), "s390x", (2, 31))
NO_INDEX = {
    "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
    "PIP_CONFIG_FILE": os.devnull,
    "PIP_FIND_LINKS": "",
    "PIP_EXTRA_INDEX_URL": "",
}


@pytest.fixture
def no_index(monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in NO_INDEX.items():
        monkeypatch.setenv(key, value)


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in another process: nothing is remembered but the cache."""
    monkeypatch.setattr(bundles, "_BUILT", {})


@pytest.fixture(autouse=True)
def one_state_of_the_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody may be editing fedspan while its tests run."""
    monkeypatch.setattr(bundles, "own_wheel", lambda: OWN)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def own_cache(cache: Path, tmp_path: Path) -> Path:
    """A cache of one's own that already holds the wheels."""
    build_bundle(Target.here(), cache)
    bundles._BUILT.clear()
    return Path(shutil.copytree(cache, tmp_path / "own-cache", copy_function=os.link))


def test_for_this_python_no_index_is_asked(cache: Path, no_index: None) -> None:
    made = build_bundle(Target.here(), cache)
    names = [path.name for path in made.folder.iterdir()]
    assert any(name.startswith("fedspan-") for name in names)
    assert any(name.startswith("pip-") for name in names)
    assert any(name.startswith("grpcio-") for name in names)
    assert not any(name.lower().startswith(("pulumi", "moto", "boto", "torch", "paramiko")) for name in names)
    assert missing_requirements(Target.here(), made.folder) == []
    assert made.size < 80_000_000


def test_the_versions_are_those_that_are_installed_here(cache: Path) -> None:
    for path in build_bundle(Target.here(), cache).folder.glob("*.whl"):
        name, _ = wheel_metadata(path)
        assert path.name.split("-")[1] == metadata.version(name)


def test_a_bundle_is_the_same_each_time(cache: Path, fresh: None) -> None:
    one = build_bundle(Target.here(), cache)
    bundles._BUILT.clear()
    again = build_bundle(Target.here(), cache)
    bundles._BUILT.clear()
    assert one.folder == again.folder
    assert one.tree == again.tree


def test_threads_that_want_the_same_bundle_build_it_once(
    own_cache: Path, fresh: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(own_cache / "bundles")
    built: list[str] = []
    real = bundles._build

    def counted(target: Target, cache: Path, extra: tuple[str, ...]) -> bundles.Bundle:
        built.append(str(target))
        return real(target, cache, extra)

    monkeypatch.setattr(bundles, "_build", counted)
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(build_bundle(Target.here(), own_cache).tree)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1
    assert len(built) == 1


@pytest.mark.slow
def test_pip_accepts_the_wheels_and_the_runtime_runs_from_them_alone(cache: Path, tmp_path: Path) -> None:
    made = build_bundle(Target.here(), cache)
    base = getattr(sys, "_base_executable", sys.executable)
    subprocess.run([base, "-m", "venv", "--without-pip", str(tmp_path / "v")], check=True)
    python = str(tmp_path / "v" / "bin" / "python")
    pip = next(made.folder.glob("pip-*.whl"))
    wheels = [str(path) for path in made.folder.glob("*.whl")]
    argv = [python, f"{pip}/pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile", *wheels]
    subprocess.run(argv, check=True, env={"PATH": os.environ["PATH"]})
    clean = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    checked = subprocess.run([python, "-m", "pip", "check"], capture_output=True, text=True, env=clean, check=False)
    assert checked.returncode == 0, checked.stdout
    code = "import fl_runtime, startup_kits, grpc, numpy, cryptography; print(fl_runtime.__file__)"
    ran = subprocess.run([python, "-c", code], capture_output=True, text=True, env=clean, cwd=tmp_path, check=True)
    assert ran.stdout.startswith(str(tmp_path))
    help_text = subprocess.run([tmp_path / "v/bin/fedspan", "--version"], capture_output=True, text=True, env=clean)
    assert help_text.stdout.startswith("fedspan ")


def test_our_own_wheel_is_the_packages_and_nothing_beside(tmp_path: Path) -> None:
    wheel = own_wheel()
    wheel.write(tmp_path / "a.whl")
    wheel.write(tmp_path / "b.whl")
    assert (tmp_path / "a.whl").read_bytes() == (tmp_path / "b.whl").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.whl") as archive:
        names = archive.namelist()
        record = archive.read(f"fedspan-{metadata.version('fedspan')}.dist-info/RECORD").decode()
    assert "fl_runtime/__init__.py" in names
    assert "startup_kits/py.typed" in names
    tops = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert tops <= {"dashboard", "deployer", "fl_runtime", "stacks", "startup_kits"}
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]
    assert len(record.splitlines()) == len(names)


def test_a_changed_source_file_is_another_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = own_wheel().key
    package = tmp_path / "dashboard"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert own_wheel().key != before


def test_an_editable_install_is_never_repacked_as_a_dependency() -> None:
    dist = metadata.distribution("fedspan")
    if '"editable": true' not in (dist.read_text("direct_url.json") or ""):
        pytest.skip("fedspan is installed here as a regular package")
    with pytest.raises(CannotRepack):
        installed_wheel(dist)


def test_extra_requirements_come_along_and_torch_never_does(cache: Path) -> None:
    names = [path.name for path in build_bundle(Target.here(), cache, ["threadpoolctl>=3"]).folder.iterdir()]
    assert any(name.startswith("threadpoolctl-") for name in names)
    for extra in ("torch>=2", "nvidia-cublas-cu12"):
        with pytest.raises(UsageError, match="does not go over SSH"):
            build_bundle(Target.here(), cache, [extra])
    with pytest.raises(UsageError, match="no requirements"):
        build_bundle(Target.here(), cache, ["this is no requirement"])


def test_a_version_that_is_not_here_is_fetched_and_not_faked() -> None:
    with pytest.raises(CannotRepack, match="is wanted"):
        installed_closure(Target.here(), ["numpy>=1000"])


def test_an_index_that_does_not_answer_is_told_with_what_to_do(tmp_path: Path, no_index: None, fresh: None) -> None:
    target = Target((3, 12) if sys.version_info[:2] != (3, 12) else (3, 11), "x86_64", (2, 36))
    with pytest.raises(UnreachableError) as caught:
        build_bundle(target, tmp_path)
    assert str(target) in str(caught.value)
    assert "PIP_INDEX_URL" in str(caught.value)
    assert [path.name for path in (tmp_path / "fetched").iterdir()] == []


def test_another_target_comes_from_the_index_once_and_from_the_cache_then(
    cache: Path, tmp_path: Path, no_index: None, fresh: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The index is a folder of wheels; that the target is a stranger is only pretended, so that wheels for it exist.
    index = build_bundle(Target.here(), cache).folder
    monkeypatch.setattr(Target, "same_interpreter", lambda self, other: False)
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    bundles._BUILT.clear()
    made = build_bundle(Target.here(), tmp_path)
    assert {path.name for path in made.folder.iterdir()} == {path.name for path in index.iterdir()}
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    bundles._BUILT.clear()
    assert build_bundle(Target.here(), tmp_path).tree == made.tree


def test_an_index_without_fitting_wheels_is_told(
    cache: Path, tmp_path: Path, no_index: None, fresh: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(build_bundle(Target.here(), cache).folder))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(MachineError) as caught:
        build_bundle(OTHER, tmp_path)
    assert "Python 3.9 on s390x" in str(caught.value)


def test_platform_tags_reach_back_from_the_machines_c_library() -> None:
    tags = Target((3, 12), "x86_64", (2, 28)).platforms()
    assert tags[0] == "manylinux_2_28_x86_64"
    assert "manylinux_2_17_x86_64" in tags
    assert "manylinux2014_x86_64" in tags
    assert "manylinux_2_34_x86_64" not in tags
    assert Target((3, 12), "aarch64", (2, 17)).platforms() == ["manylinux_2_17_aarch64", "manylinux2014_aarch64"]
    assert Target((3, 12), "x86_64", None).platforms()[0] == "musllinux_1_2_x86_64"
    assert not Target((3, 11), "x86_64", (2, 28)).takes(["manylinux_2_34_x86_64"])
    assert Target((3, 11), "x86_64", (2, 28)).takes(["any"])


def test_the_download_names_the_target_and_takes_no_source() -> None:
    argv = download_argv(Target((3, 12), "aarch64", (2, 35)), ["numpy==2.0"], Path("/d"), with_dependencies=False)
    assert argv[-2:] == ["--no-deps", "numpy==2.0"]
    assert "--only-binary=:all:" in argv
    assert argv[argv.index("--python-version") + 1] == "3.12"
    assert [argv[i + 1] for i, word in enumerate(argv) if word == "--abi"] == ["cp312", "abi3", "none"]


def test_old_bundles_go_and_what_is_in_use_stays(own_cache: Path, fresh: None) -> None:
    kept = build_bundle(Target.here(), own_cache)
    for number in range(bundles.KEPT_BUNDLES + 2):
        old = own_cache / "bundles" / f"{number:032x}"
        old.mkdir()
        os.utime(old, (number, number))
        stale = own_cache / "wheels" / f"{number:032x}"
        stale.mkdir()
        (stale / "old-1-py3-none-any.whl").write_bytes(b"x" * number)
    bundles._BUILT.clear()
    assert build_bundle(Target.here(), own_cache).folder == kept.folder
    assert len(list((own_cache / "bundles").iterdir())) == bundles.KEPT_BUNDLES
    assert not list((own_cache / "wheels").rglob("old-1*"))
