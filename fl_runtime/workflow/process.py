"""The job's process on the server: `python -m fl_runtime.workflow.process`, started by the hub. No gRPC here."""

from __future__ import annotations

import logging
import sys
import traceback

from fl_runtime.errors import FlError, JobSpecError
from fl_runtime.job.code import load_class
from fl_runtime.job.spec import runs_own_code
from fl_runtime.workflow.base import Workflow
from fl_runtime.workflow.fedavg import FedAvg, FedAvgM, FedOpt, FedProx
from fl_runtime.workflow.link import HubGoneError, Link
from fl_runtime.workflow.relays import CrossSite, Cyclic, Evaluate
from fl_runtime.workflow.scaffold import Scaffold

WORKFLOWS: dict[str, type[Workflow]] = {
    "cross_site": CrossSite,
    "cyclic": Cyclic,
    "evaluate": Evaluate,
    "fedavg": FedAvg,
    "fedavgm": FedAvgM,
    "fedopt": FedOpt,
    "fedprox": FedProx,
    "scaffold": Scaffold,
}


def choose(kind: str) -> type[Workflow]:
    """The class of `workflow.type`.

    Raises:
        JobSpecError: there is none of that name.
    """
    if kind == "controller":
        from fl_runtime.apis.impl.hosting import ControllerWorkflow

        return ControllerWorkflow
    try:
        return WORKFLOWS[kind]
    except KeyError:
        raise JobSpecError(f"There is no workflow {kind!r}", why=f"there are: {', '.join(sorted(WORKFLOWS))}") from None


def make(link: Link) -> Workflow:
    """The job's workflow: a built-in one, or own code: `{type: controller, path: mine.MyWorkflow}`.

    Raises:
        JobSpecError: there is none of that name.
    """
    settings = link.hello["spec"]["workflow"]
    kind = choose(str(settings.get("type", "fedavg")))
    if runs_own_code(settings):  # else the server has not kept this process apart
        sys.path.insert(0, link.hello["bundle"])
        own = load_class(str(settings.get("path")), "workflow.path")
        if issubclass(own, Workflow):
            kind = own
    return kind(link)


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stdout)
    link = Link()
    try:
        workflow = make(link)
        workflow.run()
        workflow.finish()
    except HubGoneError:
        return 75
    except FlError as error:
        logging.error("%s", error)
        link.ask({"op": "fail", "why": str(error)})
    except Exception as error:
        traceback.print_exc(file=sys.stdout)
        link.ask({"op": "fail", "why": f"{type(error).__name__}: {error} (see the server's log of this job)"})
    finally:
        link.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
