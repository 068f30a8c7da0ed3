"""`fedspan policy aws|azure`: the least rights with which this spec can be deployed, for a security team."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deployer.cli import context
from deployer.errors import UsageError

if TYPE_CHECKING:
    from deployer.member import Member
    from stacks.images import Image

policy_app = typer.Typer(
    help="The least rights for exactly this spec: an IAM policy, an Azure custom role.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
Out = Annotated[Path | None, typer.Option("--out", help="Write it here instead of printing it.")]


@policy_app.command()
def aws(out: Out = None) -> None:
    """An IAM policy: looking, making in the spec's regions, and changing only what carries the federation's tag."""
    from deployer.policy_aws import policy

    federation, members = _members("aws")
    regions = [region for one in members for region in (one.region, *one.fallback_regions) if region]
    images = {image.ssm_parameter for one in members for image in _images(one) if image.ssm_parameter}
    keys = [one.existing["kms_key"] for one in members if one.existing.get("kms_key")]
    _tell(policy(federation, regions, images, any(one.spot for one in members), keys), out)


@policy_app.command()
def azure(out: Out = None) -> None:
    """A custom role for the spec's subscriptions, as `az role definition create` takes it."""
    from deployer.policy_azure import role

    federation, members = _members("azure")
    subscriptions = {one.subscription for one in members if one.subscription}
    if len(subscriptions) == 0 or any(one.subscription is None for one in members):
        subscriptions.add("SUBSCRIPTION-ID")
        typer.echo("put your subscription's id in the place of SUBSCRIPTION-ID", err=True)
    driver = any(image.driver_extension for one in members for image in _images(one))
    used = [name for one in members for name in one.existing.values() if isinstance(name, str)]
    gives = any(one.self_deallocate for one in members)
    _tell(role(federation, subscriptions, gpu_driver=driver, used=used, gives_role=gives), out)


def _images(member: Member) -> set[Image]:
    """The images that its machine may boot, whichever of its sizes it gets.

    With torch and without: its kit may ask for torch in the image.
    """
    from stacks.images import image_of

    assert member.cloud is not None, "asked of participants in a cloud only"
    sizes = member.sizes or (member.offer().size,)
    return {
        image_of(member.cloud, size, gpus=bool(member.gpu_count), torch=torch, own=member.existing.get("image"))
        for size in sizes
        for torch in (False, True)
    }


def _members(cloud: str) -> tuple[str, list[Member]]:
    """The federation's name, and its participants in that cloud. Raises UsageError when there are none."""
    from deployer.member import from_spec
    from stacks.existing import Existing
    from startup_kits.spec import load_spec

    workspace = context.workspace()
    spec = load_spec(workspace.spec_path)
    found = [from_spec(part, workspace.kits_dir) for part in spec.participants().values() if part.target == cloud]
    if not found:
        raise UsageError(f"{spec.name} has nobody in {cloud}", next_step="fedspan validate shows who is where")
    for one in found:  # as `plan` does: an ID that is none makes no right
        assert one.cloud is not None, "they are in that cloud"
        Existing(**one.existing).check(one.cloud, one.name)
    return spec.name, found


def _tell(document: dict[str, Any], out: Path | None) -> None:
    text = json.dumps(document, indent=2)
    if out is None:
        typer.echo(text)
        return
    out.write_text(text + "\n")
    context.say(f"written to {out}")
