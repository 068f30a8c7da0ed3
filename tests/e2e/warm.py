"""A process that has imported the command once and forks for each command line: a hundred commands at the price of one.

    python warm.py            reads requests from standard input, one JSON object a line; answers on standard output

A request is `{"argv", "cwd", "environment", "out", "err"}`. The answers are two lines: `{"pid"}` when the command has
been started, `{"status"}` when it has ended (minus a signal's number where one ended it). The child is a process of its
own, in a session of its own: it can be killed like any other.
"""

from __future__ import annotations

import importlib
import json
import os
import sys

# what `up` and `down` import, apart from what starts threads
MODULES = (
    "deployer.cli.app",
    "deployer.session",
    "deployer.session_down",
    "deployer.cli.up",
    "deployer.cli.down",
    "deployer.realm_sandbox",
    "deployer.settle",
    "deployer.settle.aws_world",
    "deployer.settle.azure_world",
    "deployer.ssh",
    "startup_kits.provision",
    "pulumi.automation",
    "stacks.aws",
    "stacks.azure",
    "pulumi_aws.ec2",
    "pulumi_aws.ebs",
    "pulumi_aws.ssm",
    "pulumi_aws.vpc",
    "pulumi_azure_native.compute",
    "pulumi_azure_native.network",
    "pulumi_azure_native.resources",
    "boto3",
    "botocore.session",
    "azure.identity",
    "azure.mgmt.compute",
    "azure.mgmt.network",
    "azure.mgmt.resource.resources",
)


def serve() -> None:
    """Answer requests until standard input ends."""
    for name in MODULES:
        importlib.import_module(name)
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become(request)
        _say(pid=pid)
        _, status = os.waitpid(pid, 0)
        _say(status=os.waitstatus_to_exitcode(status))


def _say(**answer: int) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def _become(request: dict[str, object]) -> None:
    """Be the command; never returns."""
    code = 1
    try:
        os.setsid()
        os.chdir(str(request["cwd"]))
        os.environ.clear()
        os.environ.update(request["environment"])  # type: ignore[call-overload]  # JSON
        for number, name in ((0, os.devnull), (1, str(request["out"])), (2, str(request["err"]))):
            opened = os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(opened, number)
        from deployer.cli.app import run

        code = run(list(request["argv"]))  # type: ignore[call-overload]  # JSON
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve()
