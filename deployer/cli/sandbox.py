"""`fedspan sandbox …`: start, status, stop, engine, fault, profile, host, env: the emulated clouds by themselves."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deployer.cli import context
from deployer.errors import SandboxError, UsageError

if TYPE_CHECKING:
    pass

sandbox_app = typer.Typer(
    help="The emulated clouds: AWS, Azure, the Pulumi engine and machines, all on this computer.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


class Driver(str, Enum):
    """What a machine of the sandbox is."""

    process = "process"
    nspawn = "nspawn"


@sandbox_app.command()
def start(
    driver: Annotated[
        Driver | None,
        typer.Option(help="What machines are: processes (no root), or systems booted by systemd-nspawn (root, Linux)."),
    ] = None,
) -> None:
    """Start the sandbox, unless it runs already."""
    from deployer.sandbox.client import Sandbox

    found = Sandbox.find()
    if found is not None and driver is not None and found.driver != driver.value:
        raise SandboxError(
            f"the sandbox runs with the driver {found.driver}",
            why="its machines are made and can't change what they are",
            next_step=f"fedspan sandbox stop, then fedspan sandbox start --driver {driver.value}",
        )
    image = None
    if found is None and driver is Driver.nspawn:
        from deployer.sandbox.machines.nspawn.image import ensure

        image = ensure(lambda line: None if context.options().json else context.say(line))
    sandbox = found or Sandbox.ensure(image)
    if context.options().json:
        context.emit(
            {
                "realm_id": sandbox.realm_id,
                "started": found is None,
                "log": str(sandbox.log),
                "driver": sandbox.driver,
            }
        )
        return
    context.say(f"{'runs already' if found else 'started'}: {sandbox.realm_id}\n  log: {sandbox.log}")
    context.say(f"  machines: driver {sandbox.driver}\n  next: fedspan --sandbox up")


@sandbox_app.command()
def status() -> None:
    """Show what runs in the sandbox: clouds, machines, leases, faults."""
    from deployer.sandbox.client import Sandbox

    sandbox = Sandbox.find()
    state = sandbox.status() if sandbox is not None else None
    if context.options().json:
        context.emit({"running": state is not None, **(state or {})})
        return
    if state is None:
        context.say("no sandbox runs\n  next: fedspan sandbox start")
        return
    for line in describe(state):
        context.say(line)


def describe(state: dict[str, Any]) -> Iterable[str]:
    """The lines that `status` prints, of what the daemon answers."""
    machines = state["machines"]
    yield f"{state['realm_id']}: runs for {_duration(state['uptime_s'])} as process {state['pid']}, in {state['home']}"
    yield f"  AWS {state['aws']}, Azure {state['azure']}: {state['resources']} resources"
    where = f"in {state['addresses']}, SSH on port {state['ssh_port']}"
    yield f"  machines (driver {state['driver']}) {where}, {len(machines)} of them:"
    for machine in machines:
        ports = ",".join(map(str, machine["ports"])) or "none"
        where = f"{machine['cloud']} {machine['region']} {machine['size']}"
        what = f"{machine['name']:<20} {machine['state']:<10} {machine['public_ip'] or '-':<16}"
        yield f"    {what} {where}; open: {ports}"
        for problem in machine["problems"]:
            yield f"      {problem}"
    for source, world in state["world"].items():
        yield f"  who comes from {source} is {world} to the clouds' rules"
    if state["leases"]:
        yield f"  {len(state['leases'])} engine commands have plugins"
    for line in _fault_lines(state["faults"]):
        yield f"  fault: {line}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


@sandbox_app.command()
def stop() -> None:
    """End the sandbox with all its clouds and machines; nothing of it stays."""
    from deployer.sandbox.client import Sandbox
    from deployer.sandbox.leftovers import sweep
    from deployer.sandbox.state import home_folder

    sandbox = Sandbox.find()
    if sandbox is not None:
        sandbox.stop()
    elif home_folder().is_dir():
        sweep(home_folder())  # what a killed one left
    if context.options().json:
        context.emit({"stopped": sandbox is not None})
    else:
        context.say("stopped: its machines and resources are gone" if sandbox else "no sandbox runs")


@sandbox_app.command()
def engine() -> None:
    """Print the folder that holds the stand-in's bin/pulumi."""
    from deployer.sandbox import engine as stand_in

    root = str(Path(stand_in.root()))
    if context.options().json:
        context.emit({"root": root})
    else:
        typer.echo(root)


def _pairs(values: list[str], option: str) -> dict[str, str]:
    pairs = {}
    for value in values:
        name, sign, rest = value.partition("=")
        if not sign or not name or not rest:
            raise UsageError(f"{option} {value}: KIND=… is needed", next_step="fedspan sandbox fault --help")
        pairs[name] = rest
    return pairs


@sandbox_app.command()
def fault(
    delay: Annotated[list[str], typer.Option(help="KIND=SECONDS: such a resource takes so long.")] = [],  # noqa: B006 - never changed
    no_capacity: Annotated[list[str], typer.Option(help="A zone, region, size, or spot: no machines.")] = [],  # noqa: B006 - never changed
    never_ssh: Annotated[list[str], typer.Option(help="A participant whose machine never opens SSH.")] = [],  # noqa: B006 - never changed
    wrong_host_key: Annotated[
        list[str],
        typer.Option(help="A participant whose machine shows another host key."),
    ] = [],  # noqa: B006 - never changed
    fail: Annotated[list[str], typer.Option(help="KIND=MESSAGE: creating such a resource fails.")] = [],  # noqa: B006 - never changed
    link: Annotated[
        list[str], typer.Option(help="PARTICIPANT=DELAY_MS,LOSS_PERCENT,RATE_MBIT: its link (driver nspawn).")
    ] = [],  # noqa: B006 - never changed
    clear: Annotated[bool, typer.Option("--clear", help="End all faults first.")] = False,
) -> None:
    """Make things go wrong, or show what does. KIND: vm, address, volume, network, …, ec2:instance, or '*'."""
    from deployer.sandbox.client import Sandbox
    from deployer.sandbox.faults import Faults

    sandbox = Sandbox.ensure()
    old = Faults() if clear else sandbox.faults
    try:
        delays = {kind: float(seconds) for kind, seconds in _pairs(delay, "--delay").items()}
        new = Faults.from_json(
            {
                "delays": {**old.delays, **delays},
                "no_capacity": [*old.no_capacity, *no_capacity],
                "never_ssh": [*old.never_ssh, *never_ssh],
                "wrong_host_key": [*old.wrong_host_key, *wrong_host_key],
                "fail": {**old.fail, **_pairs(fail, "--fail")},
                "links": {**old.links, **_links(link)},
            }
        )
    except ValueError as error:
        raise UsageError(str(error), next_step="fedspan sandbox fault --help") from error
    if new != old or clear:
        sandbox.set_faults(new)
    if context.options().json:
        context.emit(new.to_json())
        return
    for line in _fault_lines(new.to_json()) or ["nothing goes wrong on purpose"]:
        context.say(line)


def _links(values: list[str]) -> dict[str, dict[str, float]]:
    from deployer.sandbox.faults import LINK

    found = {}
    for name, text in _pairs(values, "--link").items():
        numbers = text.split(",")
        if len(numbers) > len(LINK):
            raise ValueError(f"--link {name}={text}: at most {len(LINK)} numbers, {', '.join(LINK)}")
        found[name] = {word: float(number or 0) for word, number in zip(LINK, numbers, strict=False)}
    return found


def _fault_lines(faults: dict[str, Any]) -> list[str]:
    return [
        *(f"{kind} takes {seconds:g} s" for kind, seconds in faults["delays"].items()),
        *(f"no capacity in {place}" for place in faults["no_capacity"]),
        *(f"{name} never opens SSH" for name in faults["never_ssh"]),
        *(f"{name} shows another host key" for name in faults["wrong_host_key"]),
        *(f"{kind} fails: {message}" for kind, message in faults["fail"].items()),
        *(
            f"link of {name}: {', '.join(f'{word} {number:g}' for word, number in link.items())}"
            for name, link in faults["links"].items()
        ),
    ]


@sandbox_app.command()
def profile(
    name: Annotated[str, typer.Argument(help="The AWS profile's name.")],
    account: Annotated[str, typer.Option(help="Its account: twelve digits.")],
) -> None:
    """Give the emulated AWS a profile; a known one keeps its account."""
    from deployer.sandbox.client import Sandbox

    its = Sandbox.ensure().register_profile(name, account)
    if its != account:
        raise UsageError(f"profile {name} is account {its} already", next_step="take another name")
    context.say(f"profile {name}: account {its}")


@sandbox_app.command()
def host(
    name: Annotated[str, typer.Argument(help="The machine's name.")],
    key: Annotated[Path, typer.Option(help="File with the public key that may log in.")],
    user: Annotated[str, typer.Option(help="The account on it.")] = "fedspan",
    egress: Annotated[str | None, typer.Option(help="As whom the clouds see it, e.g. 203.0.113.9.")] = None,
) -> None:
    """Make a machine without a cloud, for `target: host`, and print its address."""
    from deployer.sandbox.client import Sandbox

    try:
        public_key = key.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"the public key {key} can't be read", why=str(error), next_step="--key ~/.ssh/id_ed25519.pub, for example"
        ) from error
    sandbox = Sandbox.ensure()
    address = sandbox.host(name, user, public_key, egress=egress)
    if context.options().json:
        context.emit({"address": address, "ssh_port": sandbox.ssh_port})
    else:
        typer.echo(f"{address} port {sandbox.ssh_port}")


@sandbox_app.command()
def env(
    aws_profile: Annotated[str | None, typer.Option("--profile", help="The AWS profile.")] = None,
) -> None:
    """Print shell lines that point AWS's and Azure's own tools at the sandbox: eval "$(fedspan sandbox env)"."""
    from deployer.sandbox.client import Sandbox

    sandbox = Sandbox.find()
    if sandbox is None:
        raise SandboxError("no sandbox runs", next_step="fedspan sandbox start")
    variables = {**sandbox.azure_environment(), **sandbox.aws_environment(aws_profile)}
    if context.options().json:
        context.emit(variables)
        return
    for variable, value in variables.items():
        typer.echo(f"export {variable}={shlex.quote(value)}")
