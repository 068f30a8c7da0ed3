"""The verbs of `fedspan`, each loaded only when it is called.

`fedspan --help`, shell completion and `status` must not pay for pulumi, gRPC, provider packages or torch: the table
below names a module and an attribute (a function with typer's annotations, or a `typer.Typer` of sub-commands) for
each verb, and the module is imported when the verb is typed.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group

from deployer.cli import arguments, context
from deployer.cli.report import report, usage


@dataclass(frozen=True)
class Verb:
    """Where a verb lives. `module:attribute` is a function or a `typer.Typer`."""

    place: str
    help: str


VERBS: dict[str, Verb] = {
    "init": Verb("deployer.cli.kits:init", "Write a commented federation.yml."),
    "validate": Verb("deployer.cli.kits:validate", "Check federation.yml without touching anything."),
    "provision": Verb("deployer.cli.kits:provision", "Make the CA and a signed kit for each participant."),
    "kit": Verb("deployer.cli.kits:kit_app", "Verify, show, start or stop one kit."),
    "revoke": Verb("deployer.cli.revoke:revoke", "Revoke a participant's certificate, at once and for good."),
    "plan": Verb("deployer.cli.plan:plan", "Show what `up` would do, its price, and what will be open."),
    "up": Verb("deployer.cli.up:up", "Deploy: addresses, machines, kits, registration."),
    "allow": Verb("deployer.cli.allow:allow", "Let an address reach the server's port."),
    "status": Verb("deployer.cli.status:status", "Who is deployed, running and registered."),
    "events": Verb("deployer.cli.events:events", "Who did what when, from the ledger."),
    "stop": Verb("deployer.cli.power:stop", "Turn machines off, keeping addresses and disks."),
    "start": Verb("deployer.cli.power:start", "Turn machines on again."),
    "extend": Verb("deployer.cli.extend:extend", "A site's machine ends later, or never."),
    "upgrade": Verb("deployer.cli.upgrade:upgrade", "Bring this fedspan's runtime to running machines."),
    "rollback": Verb("deployer.cli.upgrade:rollback", "Put machines back to the runtime before."),
    "logs": Verb("deployer.cli.machines:logs", "The runtime's log on a participant's machine."),
    "ssh": Verb("deployer.cli.machines:ssh", "A shell, or one command, on a participant's machine."),
    "cp": Verb("deployer.cli.machines:cp", "Copy files to or from a participant's machine."),
    "down": Verb("deployer.cli.down:down", "Fetch results, take everything down, check that nothing is left."),
    "reap": Verb("deployer.cli.reap:reap", "Find and delete what the clouds hold and no stack knows."),
    "job": Verb("deployer.cli.jobs:job_app", "Submit and follow federated jobs."),
    "site": Verb("deployer.cli.sites:site_app", "Sites as the server sees them: list, resources, restart, shutdown."),
    "admin": Verb("deployer.cli.admin:admin", "An interactive console for the federation."),
    "simulate": Verb("deployer.cli.simulate:simulate", "Run a job on simulated sites, on this machine."),
    "poc": Verb("deployer.cli.poc:poc_app", "A whole federation of real processes on this machine."),
    "doctor": Verb("deployer.cli.doctor:doctor", "Check everything that `up` needs, and explain it."),
    "policy": Verb("deployer.cli.policy:policy_app", "The least rights for this spec: IAM policy, Azure role."),
    "engine": Verb("deployer.cli.engine:engine_app", "The `pulumi` command: which, install, steps by hand."),
    "support-bundle": Verb("deployer.cli.support:support_bundle", "One file for whoever helps, without secrets."),
    "sandbox": Verb("deployer.cli.sandbox:sandbox_app", "The emulated clouds: start, status, stop, engine."),
    "demo": Verb("deployer.cli.demo:demo", "The whole way in the sandbox: deploy, train, compare, take down."),
}

GLOBAL_HELP = (
    "Global options, before or after the verb: -f/--file FILE, --sandbox (or FEDSPAN_SANDBOX=1), --json, -y/--yes, -v, "
    "--pulumi PATH."
)


class LazyCommand(TyperCommand):
    """A verb's name and help; becomes the real command when a context is made for it."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """The real command's context: this is where its module is imported."""
        name = self.name or ""
        return load(name, VERBS[name]).make_context(info_name, args, parent=parent, **extra)


def load(name: str, verb: Verb) -> Any:
    """Import a verb's module and make its command."""
    module_name, _, attribute = verb.place.partition(":")
    target = getattr(importlib.import_module(module_name), attribute)
    if isinstance(target, typer.Typer):
        group = get_group(target)
        group.name, group.help, group.epilog = name, group.help or verb.help, GLOBAL_HELP
        return group
    single = typer.Typer(add_completion=False, rich_markup_mode=None)
    settings = {"allow_extra_args": True, "ignore_unknown_options": True} if name in arguments.PASS_THROUGH else {}
    single.command(name=name, help=target.__doc__ or verb.help, epilog=GLOBAL_HELP, context_settings=settings)(target)
    return get_command(single)


def root() -> TyperGroup:
    """The `fedspan` command with all verbs, none of them imported."""
    app = typer.Typer(
        name="fedspan",
        help="One spec, several clouds: federated learning on AWS, Azure and machines you already own.",
        rich_markup_mode=None,
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    # the options are declared for help and completion only: arguments.split has taken them out already
    @app.callback()
    def _globals(
        file: Annotated[Path | None, typer.Option("-f", "--file", help="The spec (default: here or above).")] = None,
        sandbox: Annotated[bool, typer.Option("--sandbox", help="Emulated clouds instead of real ones.")] = False,
        as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
        yes: Annotated[bool, typer.Option("-y", "--yes", help="Don't ask.")] = False,
        verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Tell more.")] = False,
        pulumi: Annotated[Path | None, typer.Option("--pulumi", help="The pulumi command, or its folder.")] = None,
        version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    ) -> None:
        pass

    group = get_command(app)
    assert isinstance(group, TyperGroup)
    for name, verb in VERBS.items():
        group.add_command(LazyCommand(name, help=verb.help, rich_markup_mode=None))
    return group


def run(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns its exit code. No traceback reaches a user who did not ask for one."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        options, rest = arguments.split(argv, os.environ)
    except arguments.MissingValue as missing:
        return usage(f"Option {missing} needs a value.")
    context.configure(options)
    if options.pulumi is not None:
        os.environ["FEDSPAN_PULUMI_ROOT"] = str(options.pulumi.absolute())
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # gRPC's own log is for its makers; read when it is imported
    if rest[:1] == ["--version"]:
        from importlib.metadata import version

        sys.stdout.write(f"fedspan {version('fedspan')}\n")
        return 0
    if rest and rest[0] in VERBS and "--help" not in rest and "_FEDSPAN_COMPLETE" not in os.environ:
        context.header(rest[0])
    try:
        code = root()(args=rest, prog_name="fedspan", standalone_mode=False)
    except BaseException as error:
        return report(error, options)
    return code if isinstance(code, int) else 0
