"""AWS in the sandbox: moto behind EC2's own rules, the `aws` provider plugin over it, and what exists there."""

from deployer.sandbox.aws.moto_server import MotoServer
from deployer.sandbox.aws.provider import AwsProvider
from deployer.sandbox.aws.view import inventory, machines

__all__ = ["AwsProvider", "MotoServer", "inventory", "machines"]
