"""`fedspan init | validate | provision | kit`: from federation.yml to signed kits, and what a kit's owner does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from deployer.cli import context
from deployer.errors import MissingToolError, SpecError, UsageError
from startup_kits.errors import FedspanError
from startup_kits.kit import Kit

kit_app = typer.Typer(help="Verify, show, start or stop one kit.", no_args_is_help=True, rich_markup_mode=None)

KitFolder = Annotated[Path, typer.Argument(help="The kit's folder.")]
Fingerprint = Annotated[str | None, typer.Option("--ca-fingerprint", help="The CA's SHA-256 fingerprint.")]


def init(
    folder: Annotated[Path, typer.Argument(help="Where to write federation.yml.")] = Path(),
    name: Annotated[str, typer.Option(help="The federation's name.")] = "digits",
) -> None:
    """Write a commented federation.yml."""
    from startup_kits.example import example
    from startup_kits.units import NAME

    if not NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} can't be a federation's name",
            why="2 to 32 small letters, digits and dashes",
            next_step="fedspan init --name digits",
        )
    path = context.options().file or folder / "federation.yml"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(example(name))
    except FileExistsError:
        raise SpecError(f"{path} is there already", next_step=f"fedspan -f {path} validate") from None
    if context.options().json:
        context.emit({"spec": str(path)})
    else:
        context.say(f"wrote {path}\n  next: edit it, then: fedspan -f {path} validate")


def validate() -> None:
    """Check federation.yml without touching anything."""
    from startup_kits.spec import load_spec

    workspace = context.workspace()
    spec = load_spec(workspace.spec_path)
    participants = spec.participants()
    if context.options().json:
        targets = {name: part.target for name, part in participants.items()}
        context.emit({"spec": str(workspace.spec_path), "federation": spec.name, "participants": targets})
        return
    context.say(f"{workspace.spec_path}: {spec.name} is right")
    for name, part in participants.items():
        place = part.region or part.host or ("its owner runs start.sh" if part.target == "kit" else "")
        context.say(f"  {name:<20} {part.target:<6} {place}")
    context.say(f"  {'admins':<20} {', '.join(f'{name} ({admin.role})' for name, admin in spec.admins.items())}")


def provision(
    zip_kits: Annotated[bool, typer.Option("--zip", help="Also write each kit as a zip.")] = False,
    passphrase_file: Annotated[
        Path | None, typer.Option("--passphrase-file", help="Holds the passphrase of the CA's key.")
    ] = None,
) -> None:
    """Make the CA and a signed kit for each participant; twice changes nothing."""
    from startup_kits.passphrase import PassphraseSource
    from startup_kits.provision import provision as make
    from startup_kits.spec import load_spec

    workspace = context.workspace()
    spec = load_spec(workspace.spec_path)
    source = PassphraseSource.for_terminal(workspace.passphrase_path, passphrase_file)
    result = make(workspace, spec, source, zip_kits)
    if context.options().json:
        context.emit(
            {
                "ca_fingerprint": result.ca_fingerprint,
                "created": result.created,
                "updated": result.updated,
                "unchanged": result.unchanged,
                "left_over": result.left_over,
                "kits": {name: str(path) for name, path in result.kits.items()},
                "zips": {name: str(path) for name, path in result.zips.items()},
            }
        )
        return
    context.say(f"CA of {spec.name}, SHA-256 {result.ca_fingerprint}")
    for word, names in (("created", result.created), ("updated", result.updated), ("unchanged", result.unchanged)):
        if names:
            context.say(f"  {word:<10} {', '.join(names)}")
    for name in result.left_over:
        context.say(f"  not in the spec any more: {workspace.kits_dir / name} (left as it is)")
    context.say(f"  kits in {workspace.kits_dir}; read the fingerprint to whoever gets one")


@kit_app.command()
def verify(kit: KitFolder, ca_fingerprint: Fingerprint = None) -> None:
    """Check a kit: its CA, its signature over every file, its certificate and its key."""
    verified = Kit.verify(kit, ca_fingerprint)
    if context.options().json:
        context.emit({"name": verified.name, "verified": True, "ca_fingerprint": verified.ca_fingerprint})
    else:
        context.say(f"{verified.name} ({verified.role} of {verified.federation}): verified")
        context.say(f"  CA, SHA-256 {verified.ca_fingerprint}")
        if ca_fingerprint is None:
            context.say("  compare it with the one that the federation's lead reads to you")


@kit_app.command()
def show(kit: KitFolder) -> None:
    """What a kit says, and whether it is as it was signed."""
    opened = Kit.open(kit)
    try:
        Kit.verify(kit)
        state = "verified"
    except FedspanError as error:
        state = f"NOT VERIFIED: {error.what}" + (f" ({error.why})" if error.why else "")
    endpoint = opened.endpoint()
    gpus = f"{opened.gpu_count} x {opened.gpu_memory_gib or 'any'} GiB" if opened.gpu_count else "none"
    rows = {
        "participant": f"{opened.name}, {opened.role} of {opened.federation}",
        "admin role": opened.admin_role,
        "server": f"{opened.server_name}, port {opened.port}",
        "reached at": endpoint.server or "not known yet (up writes it, or start.sh --server HOST:PORT)",
        "proxy": endpoint.proxy,
        "GPUs": None if opened.role == "admin" else gpus,
        "torch": str(opened.torch) if opened.torch else None,
        "data": ", ".join(f"{name} at {path}" for name, path in opened.data().items()) or None,
        "certificate": f"valid until {opened.certificate.not_valid_after_utc:%Y-%m-%d}",
        "serial": f"{opened.certificate.serial_number:x}",
        "runtime": opened.runtime,
        "CA, SHA-256": opened.ca_fingerprint,
        "signature": state,
    }
    if context.options().json:
        context.emit({key: value for key, value in rows.items() if value})
        return
    for key, value in rows.items():
        if value:
            context.say(f"{key:<12} {value}")


@kit_app.command()
def check(
    kit: KitFolder,
    server: Annotated[str | None, typer.Option(help="Where the server is reached, HOST:PORT.")] = None,
    proxy: Annotated[str | None, typer.Option(help="URL of an HTTP proxy on the way to the server.")] = None,
    state: Annotated[Path | None, typer.Option(help="Folder for the runtime's state.")] = None,
) -> None:
    """Look whether this machine can be a kit's: way to the server, TLS, clock, disk; and say what to open."""
    from deployer.cli.kit_check import check as look

    look(kit, server, proxy, state)


@kit_app.command()
def start(
    kit: KitFolder,
    server: Annotated[str | None, typer.Option(help="Where the server is reached, HOST:PORT.")] = None,
    proxy: Annotated[str | None, typer.Option(help="URL of an HTTP proxy on the way to the server.")] = None,
    ca_fingerprint: Fingerprint = None,
    foreground: Annotated[bool, typer.Option("--foreground", help="Stay; Ctrl-C stops.")] = False,
    data: Annotated[list[str] | None, typer.Option(help="NAME=PATH of data here; may be repeated.")] = None,
    state: Annotated[Path | None, typer.Option(help="Folder for the runtime's state.")] = None,
    cloud: Annotated[str | None, typer.Option(help="aws or azure: make a machine in your own account.")] = None,
    region: Annotated[str | None, typer.Option(help="With --cloud: the region.")] = None,
    size: Annotated[str | None, typer.Option(help="With --cloud: the machine's size.")] = None,
    profile: Annotated[str | None, typer.Option(help="With --cloud aws: the profile with your credentials.")] = None,
    subscription: Annotated[str | None, typer.Option(help="With --cloud azure: your subscription.")] = None,
) -> None:
    """Start a kit's participant: on this machine, or with --cloud on one made in your own account."""
    _check_version(Kit.open(kit), "fedspan[cloud]" if cloud else "fedspan")
    if cloud is None:
        given = {"--region": region, "--size": size, "--profile": profile, "--subscription": subscription}
        if stray := [word for word, value in given.items() if value]:
            raise UsageError(
                f"{stray[0]} goes with --cloud aws|azure", next_step=f"{kit}/start.sh --cloud aws {stray[0]} …"
            )
        from deployer import local_run

        local_run.start(
            kit,
            server=server,
            proxy=proxy,
            ca_fingerprint=ca_fingerprint,
            foreground=foreground,
            data=data or [],
            state=state,
        )
        return
    from deployer import owner

    if server is not None:
        Kit.open(kit).set_endpoint(server, proxy)
    owner.up(
        kit, cloud, region=region, size=size, profile=profile, subscription=subscription, ca_fingerprint=ca_fingerprint
    )


def _check_version(kit: Kit, package: str) -> None:
    """A kit of a newer fedspan needs that one; an older kit is fine."""
    from importlib.metadata import version

    def numbers(text: str) -> list[int]:
        return [int(part) for part in re.findall(r"\d+", text)[:3]]

    here = version("fedspan")
    if numbers(kit.runtime) > numbers(here):
        raise MissingToolError(
            f"this fedspan, {here}, is too old for the kit",
            participant=kit.name,
            why=f"the kit was made by {kit.runtime}",
            next_step=f"python3 -m pip install --upgrade '{package}>={kit.runtime}'",
        )


@kit_app.command()
def stop(
    kit: KitFolder,
    cloud: Annotated[bool, typer.Option("--cloud", help="Take the kit's machine in the cloud down.")] = False,
    state: Annotated[Path | None, typer.Option(help="Folder of the runtime's state, as at start.")] = None,
) -> None:
    """Stop a kit's participant here, or with --cloud take its machine down (asks first)."""
    if cloud:
        from deployer import owner

        owner.down(kit)
        return
    from deployer import local_run

    local_run.stop(kit, state=state)
