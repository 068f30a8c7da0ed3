"""Planted secrets are searched where they must not be: state, logs, argv and environments of engines, user-data."""

from __future__ import annotations

import base64
import gzip
import json
import sys
from pathlib import Path

import pytest
from e2e_world import SPEC, World, copy_of

from deployer.keys import KeyStore

PLANTED = {
    "AWS_SECRET_ACCESS_KEY": "planted-aws-secret-8c1f",
    "ARM_CLIENT_SECRET": "planted-azure-secret-77ab",
    "GITHUB_TOKEN": "planted-token-of-something-else-51d0",
}
ONE_SITE = copy_of(SPEC, server={"target": "aws", "region": "eu-central-1", "size": "m7i.large"})


def wrapper(folder: Path, engine: Path, notes: Path) -> Path:
    """A `pulumi` that notes its argv and its environment, then is the sandbox's own."""
    command = folder / "bin" / "pulumi"
    command.parent.mkdir(parents=True)
    command.write_text(
        f"#!{sys.executable}\nimport json, os, sys\n"
        f"with open({str(notes)!r}, 'a') as notes:\n"
        "    notes.write(json.dumps({'argv': sys.argv, 'environ': dict(os.environ)}) + chr(10))\n"
        f"os.execv({str(engine / 'bin' / 'pulumi')!r}, sys.argv)\n"
    )
    command.chmod(0o755)
    return folder


def key_lines(path: Path) -> list[str]:
    """The lines of a private key that are nobody else's: not its frame, and not the format's common beginning."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("-----")]
    return [line for line in lines[1:] if len(line) >= 30]


def texts(folder: Path, *without: Path) -> dict[str, str]:
    """Every file below a folder, as text; compressed ones opened."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file() and path not in without:
            data = path.read_bytes()
            found[str(path)] = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8", "replace")
    return found


def user_data(world: World) -> dict[str, str]:
    """What the machines' metadata services give to whoever runs on them."""
    from deployer.cloud_clients import AwsClients
    from deployer.realm_sandbox import aws_session

    sandbox = world.sandbox
    session = aws_session(sandbox.aws_environment(), "eu-central-1")
    ec2 = AwsClients(session, "eu-central-1", sandbox.aws_endpoints()).client("ec2")
    found = {}
    for reservation in ec2.describe_instances()["Reservations"]:
        for instance in reservation["Instances"]:
            answer = ec2.describe_instance_attribute(InstanceId=instance["InstanceId"], Attribute="userData")
            found[instance["InstanceId"]] = base64.b64decode(answer["UserData"]["Value"]).decode()
    return found


@pytest.mark.slow
def test_no_planted_secret_is_found_where_it_must_not_be(fresh: World, tmp_path: Path) -> None:
    fresh.write(ONE_SITE)
    fresh.run("provision").ok()
    notes = tmp_path / "notes"
    engine = wrapper(tmp_path / "engine", fresh.sandbox.engine_root, notes)
    backend = tmp_path / "backend"  # by URL, as any of Pulumi's
    environment = {**PLANTED, "FEDSPAN_PULUMI_ROOT": str(engine), "FEDSPAN_BACKEND": f"file://{backend}"}
    told = []
    for command in (("up", "--yes", "-v"), ("up", "--yes", "-v"), ("plan", "--refresh", "-v")):  # then a stack is read
        done = fresh.run(*command, environment=environment).ok()
        told.append(done.out + done.err)
    state = fresh.fed / ".fedspan"
    passphrase = state / "stacks" / "passphrase"

    secrets = {f"${name}": [value] for name, value in PLANTED.items()}
    secrets["the CA's passphrase"] = [fresh.environment["FEDSPAN_PASSPHRASE"]]
    secrets["the stacks' passphrase"] = [passphrase.read_text().strip()]
    for path in fresh.kits.rglob("*.key"):
        secrets[f"kit key {path.parent.parent.name}"] = key_lines(path)
    for path in (state / "ssh").iterdir():
        if path.is_file() and "PRIVATE KEY" in path.read_text(errors="replace"):
            secrets[f"SSH key {path.name}"] = key_lines(path)
    assert len(secrets) >= 8, "both kits' keys, the login key and two host keys are among them"
    assert all(secrets.values())

    calls = [json.loads(line) for line in notes.read_text().splitlines()]
    haystacks = {
        **texts(backend),
        **texts(state / "stacks", passphrase),
        **texts(state / "logs"),
        "what the commands printed": "\n".join(told),
        "the engines' argv": json.dumps([call["argv"] for call in calls]),
        "the engines' environments": json.dumps([call["environ"] for call in calls]),
    }
    everything = "\n".join([*haystacks.values(), *user_data(fresh).values()])
    for sure in ("site-1-vm", "PULUMI_CONFIG_PASSPHRASE_FILE", "ssh_keys", '"up"'):
        assert sure in everything, f"the search is blind: {sure} is nowhere"
    data = user_data(fresh)
    assert len(data) == 2
    found = [
        f"{name} in {where}"
        for where, text in {**haystacks, **data}.items()
        for name, lines in secrets.items()
        if any(line in text for line in lines)
    ]
    # A machine gets the host key that it boots with from its user-data; at the first login it makes another one.
    boot_keys = [f"SSH key host_{name} in {where}" for name in ("server", "site-1") for where in data]
    assert [entry for entry in found if entry not in boot_keys] == []
    pinned = (state / "ssh" / "known_hosts").read_text()
    for name in ("server", "site-1"):
        boot = KeyStore(state / "ssh").host(name).public.split()[1]
        assert boot not in pinned, f"the key that {name} booted with must be dead"
    assert (backend / ".pulumi" / "stacks" / "fedspan-digits" / "site-1.json").is_file()
    fresh.run("down", "--yes", environment={"FEDSPAN_BACKEND": f"file://{backend}"}).ok()
    assert fresh.inventory() == []
