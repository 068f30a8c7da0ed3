"""federation.yml: what is right is read, what is wrong is told with file, line, field and what would be right."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from startup_kits.errors import SpecError
from startup_kits.example import example
from startup_kits.spec import load_spec
from startup_kits.torch_source import TorchSource

Write = Callable[..., Path]


def fault(write: Write, old: str, new: str) -> str:
    text = example()
    assert old in text
    with pytest.raises(SpecError) as caught:
        load_spec(write(text.replace(old, new, 1)))
    return str(caught.value)


def test_the_example_that_init_writes_is_read_as_it_says(write_spec: Write) -> None:
    spec = load_spec(write_spec(example("lungs")))
    assert spec.name == "lungs"
    assert spec.server_name == "server.lungs.fedspan"
    assert list(spec.participants()) == ["server", "site-1", "site-2", "site-3"]
    assert spec.sites["site-1"].gpus is not None
    assert spec.sites["site-1"].gpus.memory == 16
    assert spec.sites["site-1"].disk == 100
    assert spec.sites["site-3"].egress == ["203.0.113.7/32"]
    assert spec.sites["site-2"].data == {"digits": "/srv/data/digits"}
    assert spec.admins["ana@hospital-a.example"].from_ == ["198.51.100.0/24"]


def test_json_means_the_same_as_yaml_also_with_tabs(write_spec: Write) -> None:
    in_yaml = load_spec(write_spec(example()))
    text = json.dumps(yaml.safe_load(example()), indent="\t")
    assert load_spec(write_spec(text, "federation.json")) == in_yaml


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            "region: westeurope",
            "regoin: westeurope",
            "federation.yml:16 server.regoin: is not known here; did",
        ),
        ("version: 1", "version: 2", "federation.yml:6 version: one of 1 is wanted, not 2"),
        ("port: 8002", "port: 80020", "federation.yml:18 server.port: input should be less than or equal to 65535"),
        ("residency: [EU]", "residency: [US]", "server.region: westeurope lies in EU, outside residency ['US']"),
        ("eu-west-1", "eu-west-2", "sites.site-2.region: eu-west-2 lies in UK, outside residency ['EU']"),
        ("eu-west-1", "eu-wst-1", "did you mean eu-west-1?"),
        ("ssh_from: auto", "ssh_from: [0.0.0.0/0]", "defaults.ssh_from: 0.0.0.0/0 opens SSH to the world"),
        ("198.51.100.0/24", "0.0.0.0/0", "opens the server's port to the world"),
        ("203.0.113.7/32", "0.0.0.0/0", "sites.site-3.egress: 0.0.0.0/0 opens the server's port to the world"),
        ("port: 8002", "prot: 8002", "server.prot: is not known here; did you mean port?"),
        ("port: 8002", "port: 22", "server.port: 22 is the port of the machine's SSH"),
        ('# account: "222222222222"', "account: 022222222222 ", 'zeros are lost: "022222222222"'),
        ("203.0.113.7/32", "203.0.113.7/24", "did you mean 203.0.113.0/24?"),
        ("203.0.113.7/32", "2001:db8::1/128", "an IPv4 address or network such as"),
        ('# account: "222222222222"', "account: 22222222222 ", 'put quotes round it, or leading zeros are lost: "022'),
        ("memory: 16GB", "memory: 16", "a size with a unit is wanted, such as 16GB or 1TB, not 16"),
        ("role: lead", "role: boss", "one of 'lead', 'member' or 'observer' is wanted, not 'boss'"),
        ("role: lead", "role: member", "admins: at least one admin with role: lead is wanted"),
        ("ana@hospital-a.example:", "ana:", "admins are named by e-mail address"),
        ("site-3:", "Site_3:", "2 to 32 small letters, digits and dashes"),
        ("site-3:", "server:", "a site can't be called server"),
        ("size: m7i.large", "size: m7i.large\n    gpus: {count: 1}", "gpus: stands beside size"),
        ("egress: [203", "region: eu-west-1\n    egress: [203", "has no meaning for target kit"),
        ("target: kit   ", "target: host  ", "host: is missing; a host target needs host"),
        ("    region: eu-west-1", "    # region", "sites.site-2.region: is missing; a machine on aws needs one"),
        ("/srv/data/digits", "srv/../digits", "an absolute path on the site's machine"),
        ("  port: 8002 ", "  spot: true\n  port: 8002 ", "server.spot: the server is never a spot machine"),
        ("  port: 8002 ", "  self_deallocate: true\n  port: 8002 ", "server.self_deallocate: "),
        ("target: aws", "target: gcp", "one of 'aws', 'azure', 'host' or 'kit' is wanted, not 'gcp'"),
        ("size: m7i.large", "size: m7i.large\n    jump: ana@bastion.example", "in defaults.ssh_from, or let it in by"),
        (
            "size: m7i.large",
            "size: m7i.large\n    jump: ana@bastion.example\n    ssh_access: during-operations",
            "in defaults.ssh_from and leave ssh_access out",
        ),
        ("  port: 8002 ", "  idle_stop: 2h\n  port: 8002 ", "server.idle_stop: the server never turns itself off"),
        (
            "target: kit   ",
            "idle_stop: 2h\n    target: kit   ",
            "idle_stop: has no meaning for target kit, only for aws",
        ),
        ("size: m7i.large", "idle_stop: 4m", "site-2.idle_stop: 5 minutes to 30 days (5m to 30d) are possible"),
        ("size: m7i.large", "idle_stop: 31d", "site-2.idle_stop: 5 minutes to 30 days (5m to 30d) are possible"),
        (
            "size: m7i.large",
            "idle_stop: 120",
            "idle_stop: a time with a unit is wanted, such as 30m, 2h or 3d, not 120",
        ),
        (
            "target: aws\n    region: eu-west-1",
            "target: azure\n    region: northeurope\n    idle_stop: 2h",
            "site-2.idle_stop: Azure bills a machine on that powered itself off; wanted is self_deallocate: true, or "
            "fedspan stop --idle 2h from a timer of yours",
        ),
        ("size: m7i.large", "name: other", "sites.site-2.name: is not known here; the site's name is site-2"),
    ],
)
def test_a_fault_names_file_line_field_and_what_would_be_right(
    write_spec: Write, old: str, new: str, told: str
) -> None:
    assert told in fault(write_spec, old, new)


@pytest.mark.parametrize(
    ("ssh_from", "more"),
    [
        ("[203.0.113.7/32]", ""),
        ("auto", "\n    zone: eu-west-1a\n    network: {vpc: vpc-1, subnet: subnet-1, security_group: sg-1}"),
        ("auto", "\n    ssh_access: never"),
    ],
)
def test_a_jump_host_in_a_cloud_is_taken_where_its_own_network_is_let_in(
    write_spec: Write, ssh_from: str, more: str
) -> None:
    text = example().replace("ssh_from: auto", f"ssh_from: {ssh_from}")
    jump = "size: m7i.large\n    jump: ana@bastion.example"
    assert load_spec(write_spec(text.replace("size: m7i.large", jump + more))).sites["site-2"].jump


@pytest.mark.parametrize(("text", "seconds"), [("5m", 300), ("90m", 5400), ("2h", 7200), ("30d", 2_592_000)])
def test_a_sites_machine_may_turn_itself_off_when_idle(write_spec: Write, text: str, seconds: int) -> None:
    spec = load_spec(write_spec(example().replace("size: m7i.large", f"size: m7i.large\n    idle_stop: {text}")))
    assert spec.sites["site-2"].idle_stop == seconds
    assert spec.sites["site-1"].idle_stop is None
    azure = f"target: azure\n    region: northeurope\n    self_deallocate: true\n    idle_stop: {text}"
    spec = load_spec(
        write_spec(example().replace("target: aws\n    region: eu-west-1", azure).replace("m7i.large", ""))
    )
    assert spec.sites["site-2"].idle_stop == seconds


def test_all_faults_are_told_at_once_in_the_order_of_lines(write_spec: Write) -> None:
    text = (
        example().replace("port: 8002", "port: x").replace("role: lead", "role: x").replace("version: 1", "version: 3")
    )
    with pytest.raises(SpecError) as caught:
        load_spec(write_spec(text))
    told = [line.split()[0].rpartition(":")[2] for line in str(caught.value).splitlines() if "federation.yml:" in line]
    assert told == ["6", "18", "45"]


def test_a_key_given_twice_is_refused_with_both_lines(write_spec: Write) -> None:
    message = fault(write_spec, "  port: 8002 ", "  port: 8003\n  port: 8002 ")
    assert "federation.yml:19 server.port stands there twice: first on line 18" in message


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just words", "a: [", "\t- x", "a: &a [*a]", "? [1]\n: 2"])
def test_what_is_no_mapping_is_refused_with_a_clear_word(write_spec: Write, text: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_spec(write_spec(text))
    assert "federation.yml" in str(caught.value)


def test_a_missing_file_a_folder_and_binary_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"there is no .*none\.yml"):
        load_spec(tmp_path / "none.yml")
    with pytest.raises(SpecError, match="is a folder"):
        load_spec(tmp_path)
    (tmp_path / "binary.yml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SpecError, match="is not UTF-8"):
        load_spec(tmp_path / "binary.yml")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
keys = st.sampled_from(["name", "server", "sites", "admins", "defaults", "residency", "version", "x"])


@settings(max_examples=60, deadline=None)
@given(changes=st.dictionaries(keys, values, min_size=1, max_size=3))
def test_whatever_stands_in_the_file_it_is_read_or_refused_as_a_spec_error(
    tmp_path_factory: pytest.TempPathFactory, changes: dict[str, object]
) -> None:
    path = tmp_path_factory.mktemp("spec") / "federation.yml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(example()), **changes}))
    with contextlib.suppress(SpecError):  # any other error fails the test
        load_spec(path)


IN_SITE_1 = "# torch: image                    # with GPUs"


def test_torch_is_the_images_or_of_an_index_for_one_site_or_for_all(write_spec: Write) -> None:
    index = 'torch: {index: https://download.pytorch.org/whl/cu126/, version: "2.13.0"}'
    spec = load_spec(write_spec(example().replace(IN_SITE_1, f"{index} #")))
    assert spec.torch_of(spec.sites["site-1"]) == TorchSource("https://download.pytorch.org/whl/cu126", "2.13.0")
    assert spec.torch_of(spec.sites["site-2"]) is None
    text = example().replace(IN_SITE_1, "torch: image #").replace("  ssh_from: auto", f"  {index}\n  ssh_from: auto")
    spec = load_spec(write_spec(text))
    assert spec.torch_of(spec.sites["site-1"]) == TorchSource()
    assert spec.torch_of(spec.sites["site-2"]) == TorchSource("https://download.pytorch.org/whl/cu126", "2.13.0")


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("pypi", "site-1.torch: image, or {index: https://"),
        ('{index: "http://example.org/whl", version: "2.13.0"}', "torch.index: an https URL is wanted"),
        ('{index: "https://me:secret@example.org", version: "2.13.0"}', "torch.index: holds a user or a password"),
        ("{index: https://example.org/whl, version: 2.13}", "torch.version: put quotes round it"),
        ('{index: https://example.org/whl, version: ">=2"}', "torch.version: an exact version is wanted"),
        ("{index: https://example.org/whl}", "site-1.torch: version is missing"),
        ('{indx: https://example.org, version: "2.13.0"}', "indx is not known here; did you mean index?"),
    ],
)
def test_a_wrong_torch_is_told_with_what_would_be_right(write_spec: Write, written: str, told: str) -> None:
    message = fault(write_spec, IN_SITE_1, f"torch: {written} #")
    assert told in message
    assert "secret" not in message


def test_torch_on_the_server_is_told_to_mean_nothing(write_spec: Write) -> None:
    told = fault(write_spec, "  port: 8002", "  torch: image\n  port: 8002")
    assert "server.torch: means something for sites only" in told
