"""The demo, told in seven phases: provision, plan, up, data, train, result, down.

Each phase does what its command does, through the same functions. What fails is told with its phase, and then
everything is taken down again.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deployer.cli import context
from deployer.demo import data
from deployer.demo.compare import Comparison, Model, compare, load_script
from deployer.demo.ending import Ending
from deployer.demo.place import Hospital, Place, example_folder
from deployer.demo.plot import bars, save_png
from deployer.demo.training import Progress, watch
from deployer.errors import FedspanError, JobError

if TYPE_CHECKING:
    from deployer.stack_work import Outcome
    from startup_kits.provision import ProvisionResult
    from startup_kits.spec import FederationSpec

HEADER = """\
fedspan demo: a server on Azure, two sites on AWS, one site on premises
  emulated  AWS, Azure, the Pulumi engine, machines as processes, rules not packet-filtered, no GPUs
  real      the stack programs, SSH, signatures, mutual TLS, training"""

#: The site whose owner starts their own kit, and what the server sees when that hospital connects (its `egress`).
ON_PREMISES = "site-3"
HOSPITAL_NAT = "203.0.113.7"


@dataclass
class Demo:
    """One run of the demo in a folder of its own."""

    place: Place
    keep: bool = False
    begun: float = field(default_factory=time.monotonic)
    phase: str = "start"
    ending: Ending = field(init=False)
    _kits: ProvisionResult | None = None
    _outcome: Outcome | None = None
    _parts: dict[str, data.Rows] = field(default_factory=dict)
    _held_out: data.Rows | None = None
    _job: str = ""
    _progress: Progress | None = None

    def __post_init__(self) -> None:
        self.ending = Ending(self.place, ON_PREMISES)

    def run(self) -> None:
        """All phases.

        Raises:
            What failed. Everything has been taken down then, unless `keep`.
        """
        context.console().print(HEADER, style="bold", markup=False)
        try:
            self.ending.clear_earlier()
            self.place.make()
            self.ending.begin()
            for phase in (self._provision, self._plan_and_up, self._data, self._train, self._result):
                phase()
        except BaseException as error:
            if not isinstance(error, KeyboardInterrupt):
                context.say(f"\nphase {self.phase} failed; " + ("kept as it is" if self.keep else "taking all down"))
            if not self.keep:
                self._take_down_after(error)
            raise
        if not self.keep:
            self._title(7, "down")
            self.ending.take_down()
        self._go_on()

    def _take_down_after(self, error: BaseException) -> None:
        """What failed first is what the user must read; that taking down failed too is said before it."""
        try:
            self.ending.take_down()
        except FedspanError as another:
            context.say(f"taking down failed too: {another}")

    def _title(self, number: int, name: str, remark: str = "") -> None:
        self.phase = name
        seconds = time.monotonic() - self.begun
        context.say("")
        text = f"{number}  {name}" + (f"  ({remark})" if remark else "")
        context.console().print(f"{text:<88}{seconds:>5.0f} s", style="bold cyan", markup=False)

    # -- 1 ------------------------------------------------------------------------------------------------------
    def _provision(self) -> None:
        from startup_kits.kit import Kit
        from startup_kits.passphrase import PassphraseSource
        from startup_kits.provision import provision

        self._title(1, "provision")
        workspace, spec = context.workspace(), self._spec()
        source = PassphraseSource(workspace.passphrase_path)
        self._kits = provision(workspace, spec, source)
        for kit in self._kits.kits.values():
            Kit.verify(kit, self._kits.ca_fingerprint)
        context.say(f"  CA, SHA-256  {self._kits.ca_fingerprint}")
        context.say(f"  kits         {', '.join(self._kits.kits)}: signed and verified")

    # -- 2 and 3 ------------------------------------------------------------------------------------------------
    def _plan_and_up(self) -> None:
        from deployer.live import screen
        from deployer.plan_view import render, summary
        from deployer.session import lead_session

        with ExitStack() as stack:
            with context.quiet():  # what it says of back-ups is for federations that stay
                session = stack.enter_context(lead_session("up", []))
            self._title(2, "plan")
            plan = session.plan()
            for piece in render(plan):
                context.say(piece)
            context.say(summary(plan))
            self._title(3, "up")
            with screen([member.name for member in session.members]) as live:
                session.show(live)
                self._outcome = session.up.apply(plan)
                self._start_on_premises(live.phase)
        made = sum(self._outcome.changed.values())
        context.say(f"  {made} resources made; registered: {', '.join([*self._outcome.registered, ON_PREMISES])}")

    def _start_on_premises(self, told: Callable[[str, str, str], None]) -> None:
        """The hospital's own people run the kit's start.sh behind their proxy, with the fingerprint read to them."""
        from deployer.sandbox.client import Sandbox

        assert self._kits is not None
        assert self._outcome is not None
        told(ON_PREMISES, "starting", f"{ON_PREMISES}/start.sh on premises, behind {HOSPITAL_NAT}")
        hospital = Hospital(self.place, ON_PREMISES)
        hospital.receive(self._kits.kits[ON_PREMISES])
        proxy = Sandbox.ensure().on_premises(HOSPITAL_NAT)
        hospital.start(self._kits.ca_fingerprint, self._outcome.endpoint or "", proxy)
        told(ON_PREMISES, "registered", "")

    # -- 4 ------------------------------------------------------------------------------------------------------
    def _data(self) -> None:
        from deployer.cli.machines import cp

        sites = self._spec().sites
        self._title(4, "data", f"drawn by class, Dirichlet α = {data.ALPHA}, seed {data.SEED}")
        self._parts, self._held_out = data.split(data.load(), list(sites))
        for name, rows in self._parts.items():
            folder = self.place.data / name / "digits"
            if name == ON_PREMISES:
                folder = Hospital(self.place, name).data
            folder.mkdir(parents=True, exist_ok=True)
            rows.save(folder / "digits.npz")
            counts = " ".join(f"{count:>3}" for count in rows.per_class())
            how = "already there" if name == ON_PREMISES else "fedspan cp"
            context.say(f"  {name:<8} {len(rows):>4} rows, of each digit {counts}   {how}")
            if name != ON_PREMISES:
                with context.quiet():
                    cp(str(folder), f"{name}:{sites[name].data['digits']}")
        assert self._held_out is not None
        context.say(f"  {'held out':<8} {len(self._held_out):>4} rows that no site sees")
        context.say(f"  {'in job':<8} {self._rows_in_job():>4} rows: it carries code only")

    def _rows_in_job(self) -> int:
        """Images whose bytes stand in the job's folder (as in a data file; a test searches the server as well)."""
        bundle = b"".join(path.read_bytes() for path in sorted(example_folder().rglob("*")) if path.is_file())
        return sum(image.tobytes() in bundle for rows in self._parts.values() for image in rows.x)

    # -- 5 ------------------------------------------------------------------------------------------------------
    def _train(self) -> None:
        from fl_runtime.admin import Session
        from fl_runtime.job.spec import read_spec

        assert self._kits is not None
        rounds = int(read_spec(example_folder()).workflow["rounds"])
        lead = next(name for name, admin in self._spec().admins.items() if admin.role == "lead")
        self._title(5, "train", f"{rounds} rounds of federated averaging, submitted by {lead}")
        self._progress = Progress(rounds, list(self._spec().sites))
        with Session(self._kits.kits[lead]) as session:
            self._job = session.submit(example_folder())
            view = watch(session, self._job, self._progress)
            if view["state"] != "FINISHED":
                log = self.place.results / f"{self._job}.log"
                log.write_text("".join(text for _, text in session.logs(self._job)))
                raise JobError(
                    f"the job has {view['state'].lower()}",
                    why=view["cause"],
                    log=str(log),
                    next_step="fedspan demo --keep, then: fedspan job logs",
                )
            session.download(self._job, self.place.results)

    # -- 6 ------------------------------------------------------------------------------------------------------
    def _result(self) -> None:
        assert self._progress is not None
        assert self._held_out is not None
        self._title(6, "result", f"accuracy on {len(self._held_out)} images that no site has seen")
        folder = self.place.results / self._job
        script = load_script(example_folder() / "train.py")
        model = _load_model(folder / "model.safetensors")
        found = compare(script, self._parts, self._held_out, model, self._progress.rounds)
        for line in bars(found):
            context.console().print(f"  {line}", style="bold" if line.startswith("federated") else None, markup=False)
        plot = self.place.results / "plot.png"
        save_png(plot, found, self._progress.by_site, f"digits, {len(self._parts)} sites, Dirichlet α = {data.ALPHA}")
        context.say(f"  plot   {_shown(plot)}\n  model  {_shown(folder / 'model.safetensors')}")
        self._check(found)

    def _check(self, found: Comparison) -> None:
        if not found.won:
            raise FedspanError(
                "the federated model does not beat every single site",
                why=f"{found.federated:.1%} against {found.best_alone:.1%}",
                next_step="this is a bug of the demo; please report it with the lines above",
            )

    # -- the end ------------------------------------------------------------------------------------------------
    def _go_on(self) -> None:
        context.say(f"\ndone in {time.monotonic() - self.begun:.0f} s. Go on with:")
        fedspan, spec = _typed_fedspan(), _shown(self.place.spec)
        if self.keep:
            commands = {
                f"{fedspan} --sandbox -f {spec} status": "who runs, who is registered",
                f"{fedspan} --sandbox -f {spec} job submit {_shown(example_folder())}": "train again",
                f"{fedspan} --sandbox -f {spec} down": "take it down",
            }
        else:
            commands = {
                f"{fedspan} demo --keep": "the same, and leave it up to look around",
                f"{fedspan} init": "write your own federation.yml",
                f"{fedspan} --sandbox plan": "see what it would make, without an account",
            }
        width = max(map(len, commands))
        for command, remark in commands.items():
            context.say(f"  {command:<{width}}   {remark}")

    def _spec(self) -> FederationSpec:
        from startup_kits.spec import load_spec

        return load_spec(self.place.spec)


def _load_model(path: Path) -> Model:
    from safetensors.numpy import load_file

    model: dict[str, Any] = load_file(path)
    return model


def _typed_fedspan() -> str:
    """The command as it can be typed here: `fedspan` where it is on the PATH, else where it lies."""
    here = Path(sys.executable).with_name("fedspan")
    found = shutil.which("fedspan")
    return "fedspan" if found and Path(found).resolve() == here.resolve() else _shown(here)


def _shown(path: Path) -> str:
    """A path as short as it can be typed from here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
