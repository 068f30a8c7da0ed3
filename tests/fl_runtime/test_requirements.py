"""What a job requires is checked, never installed; from a site's own folder of wheels it is, for that job alone."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path

import pytest
import yaml
from federation import Federation
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from fl_runtime.errors import JobError
from fl_runtime.job.requirements import missing, parse_requirement, satisfies

FEDAVG = {"type": "fedavg", "rounds": 1, "model": {"tensors": {"w": [5]}}}

versions = st.builds(
    lambda epoch, release, pre, post, dev: f"{epoch}{'.'.join(map(str, release))}{pre}{post}{dev}",
    st.sampled_from(["", "", "", "1!"]),
    st.lists(st.integers(0, 3), min_size=1, max_size=3),
    st.sampled_from(["", "", "", "a1", "b2", "rc1"]),
    st.sampled_from(["", "", ".post1"]),
    st.sampled_from(["", "", ".dev3"]),
)
plain = st.lists(st.integers(0, 3), min_size=1, max_size=3).map(lambda parts: ".".join(map(str, parts)))
clauses = st.tuples(st.sampled_from(["==", "!=", "<=", ">=", "<", ">"]), versions)
compatible = st.tuples(st.just("~="), plain.filter(lambda text: "." in text))
wild = st.tuples(st.sampled_from(["==", "!="]), plain.map(lambda text: text + ".*"))


@settings(max_examples=400, deadline=None, database=None)
@given(version=versions, clause=clauses | compatible | wild)
def test_versions_are_compared_as_packaging_compares_them(version: str, clause: tuple[str, str]) -> None:
    wanted = SpecifierSet("".join(clause)).contains(Version(version), prereleases=True)
    assert satisfies(version, *clause) == wanted


@pytest.mark.parametrize(
    "text", ["", "numpy >= 1.26 ; python_version < '4'", "numpy @ file:///x", "-r x", "a==b c", "a>="]
)
def test_what_is_no_plain_requirement_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"requirement|bound|version"):
        parse_requirement(text)


def test_what_lacks_is_named_with_what_is_there() -> None:
    assert missing(["numpy>=1", "no-such-thing>1"]) == {"no-such-thing>1": "no-such-thing is not installed"}
    (why,) = missing(["numpy>=99,<100"]).values()
    assert why.startswith("numpy is ")
    assert why.endswith(", not >=99")


def wheel(folder: Path, name: str, version: str) -> None:
    """A wheel of one module that says its version."""
    files = {
        f"{name}.py": f"VERSION = {version!r}\n",
        f"{name}-{version}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{name}-{version}.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = []
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        rows.append(f"{path},sha256={digest},{len(text)}\n")
    record = f"{name}-{version}.dist-info/RECORD"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
        archive.writestr(record, "".join(rows) + f"{record},,\n")


SCRIPT = """
import fl_runtime.client as flare
try:
    import fedspan_tiny
    print("VERSION", fedspan_tiny.VERSION, flush=True)
except ImportError:
    print("VERSION none", flush=True)
flare.init()
while flare.is_running():
    flare.send(flare.FLModel(params=flare.receive().params))
"""


def test_a_sites_folder_of_wheels_serves_the_job_that_asks_and_no_other(running: Federation, tmp_path: Path) -> None:
    wheel(tmp_path, "fedspan_tiny", "1.5")
    site = running.sites["site-1"]

    def run(name: str, *requirements: str) -> str:
        folder = running.job(name, SCRIPT, sites=["site-1"], workflow=FEDAVG, requirements=list(requirements))
        with running.session() as session:
            job = session.wait(session.submit(folder), 120)["id"]
            return "".join(text for _, text in session.logs(job, "site-1"))

    with pytest.raises(JobError, match=r"site-1: it requires fedspan-tiny is not installed"):
        run("without", "fedspan-tiny>=1")
    (site.kit / "local/policy.yml").write_text(yaml.safe_dump({"wheels": str(tmp_path)}))
    try:
        assert "VERSION 1.5" in run("with", "fedspan-tiny>=1,<2", "numpy")
        assert "VERSION none" in run("other")
        with pytest.raises(JobError, match=r"which .* does not provide|has none that fits"):
            run("newer", "fedspan-tiny>=2")
    finally:
        (site.kit / "local/policy.yml").unlink()
