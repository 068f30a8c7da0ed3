"""Programs in the style of NVIDIA FLARE 2.x, as their users write them: only the import lines are changed before they
run here."""

NUMPY_EXECUTOR = '''
import numpy as np
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal
from nvflare.app_common.app_constant import AppConstants
from nvflare.security.logging import secure_format_exception


class AddExecutor(Executor):
    """Adds the number of its site to the weights, and sends the difference."""

    def __init__(self, train_task=AppConstants.TASK_TRAIN, factor=1.0):
        super().__init__()
        self._train_task = train_task
        self._factor = factor
        self._started = False

    def handle_event(self, event_type: str, fl_ctx: FLContext):
        if event_type == EventType.START_RUN:
            self._started = True

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        try:
            if not self._started:
                return make_reply(ReturnCode.EXECUTION_EXCEPTION)
            if task_name != self._train_task:
                return make_reply(ReturnCode.TASK_UNKNOWN)
            dxo = from_shareable(shareable)
            if dxo.data_kind != DataKind.WEIGHTS:
                return make_reply(ReturnCode.BAD_TASK_DATA)
            if abort_signal.triggered:
                return make_reply(ReturnCode.TASK_ABORTED)
            number = int(fl_ctx.get_identity_name()[-1])
            self.log_info(fl_ctx, f"round {shareable.get_header(AppConstants.CURRENT_ROUND)}")
            diff = {name: np.full_like(value, number * self._factor) for name, value in dxo.data.items()}
            answer = DXO(data_kind=DataKind.WEIGHT_DIFF, data=diff)
            answer.set_meta_prop(MetaKey.NUM_STEPS_CURRENT_ROUND, number)
            return answer.to_shareable()
        except Exception as e:
            self.log_exception(fl_ctx, f"failed: {secure_format_exception(e)}")
            return make_reply(ReturnCode.EXECUTION_EXCEPTION)
'''

SCATTER = """
import numpy as np
from nvflare.apis.client import Client
from nvflare.apis.controller_spec import ClientTask, Task, TaskCompletionStatus
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.impl.controller import Controller
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.app_event_type import AppEventType


class Scatter(Controller):
    def __init__(self, num_rounds=3, min_clients=3, aggregator_id="aggregator"):
        super().__init__(task_check_period=0.1)
        self._num_rounds = num_rounds
        self._min_clients = min_clients
        self._aggregator_id = aggregator_id
        self._heard = []

    def start_controller(self, fl_ctx: FLContext):
        self.aggregator = fl_ctx.get_engine().get_component(self._aggregator_id)
        self.weights = {"w": np.zeros(4, dtype=np.float32)}

    def control_flow(self, abort_signal: Signal, fl_ctx: FLContext):
        for current_round in range(self._num_rounds):
            if abort_signal.triggered:
                return
            fl_ctx.set_prop(AppConstants.CURRENT_ROUND, current_round, private=True, sticky=True)
            self.fire_event(AppEventType.ROUND_STARTED, fl_ctx)
            data = DXO(DataKind.WEIGHTS, data=self.weights).to_shareable()
            data.set_header(AppConstants.CURRENT_ROUND, current_round)
            data.add_cookie(AppConstants.CONTRIBUTION_ROUND, current_round)
            task = Task(name=AppConstants.TASK_TRAIN, data=data, result_received_cb=self._accept,
                        task_done_cb=self._done)
            self.broadcast_and_wait(task=task, fl_ctx=fl_ctx, min_responses=self._min_clients,
                                    wait_time_after_min_received=0, abort_signal=abort_signal)
            assert task.completion_status == TaskCompletionStatus.OK
            diff = from_shareable(self.aggregator.aggregate(fl_ctx)).data
            self.aggregator.reset(fl_ctx)
            self.weights = {name: value + diff[name] for name, value in self.weights.items()}
            self.fire_event(AppEventType.ROUND_DONE, fl_ctx)
            self.log_info(fl_ctx, f"round {current_round} heard {sorted(self._heard)}")
            self._heard = []

    def _accept(self, client_task: ClientTask, fl_ctx: FLContext):
        result = client_task.result
        assert result.get_return_code() == ReturnCode.OK
        assert result.get_cookie(AppConstants.CONTRIBUTION_ROUND) == fl_ctx.get_prop(AppConstants.CURRENT_ROUND)
        assert fl_ctx.get_peer_context().get_identity_name() == client_task.client.name
        self._heard.append(client_task.client.name)
        self.aggregator.accept(result, fl_ctx)

    def _done(self, task: Task, fl_ctx: FLContext):
        self.log_info(fl_ctx, f"task done: {len(task.client_tasks)} results")

    def stop_controller(self, fl_ctx: FLContext):
        self.save_model(self.weights)
        self.log_info(fl_ctx, "stopped")

    def process_result_of_unknown_task(self, client: Client, task_name: str, client_task_id: str, result: Shareable,
                                       fl_ctx: FLContext):
        pass
"""

CYCLIC = """
import numpy as np
from nvflare.apis.controller_spec import SendOrder, Task
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.impl.controller import Controller
from nvflare.app_common.app_constant import AppConstants


class Cyclic(Controller):
    def start_controller(self, fl_ctx):
        self.weights = {"w": np.zeros(4, dtype=np.float32)}
        self.order = []

    def control_flow(self, abort_signal, fl_ctx):
        targets = [client.name for client in fl_ctx.get_engine().get_clients()]
        task = Task(name=AppConstants.TASK_TRAIN, data=DXO(DataKind.WEIGHTS, data=self.weights).to_shareable(),
                    result_received_cb=self._passed_on)
        self.relay_and_wait(task=task, fl_ctx=fl_ctx, targets=list(reversed(targets)),
                            send_order=SendOrder.SEQUENTIAL, abort_signal=abort_signal)
        self.log_info(fl_ctx, "order " + " ".join(self.order))

    def _passed_on(self, client_task, fl_ctx):
        diff = from_shareable(client_task.result).data
        self.weights = {name: value * 2 + diff[name] for name, value in self.weights.items()}
        self.order.append(client_task.client.name)
        client_task.task.data = DXO(DataKind.WEIGHTS, data=self.weights).to_shareable()

    def stop_controller(self, fl_ctx):
        self.save_model(self.weights)
"""

# Several standing tasks, polled; one is cancelled; callbacks count; the executor of site-3 fails.
STANDING = """
import time
from nvflare.apis.controller_spec import Task, TaskCompletionStatus
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.impl.controller import Controller
from nvflare.apis.shareable import Shareable


class Standing(Controller):
    def start_controller(self, fl_ctx):
        self.seen = {}

    def control_flow(self, abort_signal, fl_ctx):
        tasks = [Task(name=name, data=Shareable(), result_received_cb=self._came) for name in ("count", "slow")]
        for task in tasks:
            self.broadcast(task, fl_ctx, targets=["site-1", "site-2", "site-3"])
        while self.get_num_standing_tasks() > 1:
            if abort_signal.triggered:
                return
            time.sleep(0.05)
        self.cancel_task(tasks[1], TaskCompletionStatus.CANCELLED, fl_ctx)
        self.wait_for_task(tasks[1], abort_signal)
        self.log_info(fl_ctx, f"{tasks[0].completion_status} {tasks[1].completion_status}")
        self.log_info(fl_ctx, f"codes {sorted(self.seen.items())}")

    def _came(self, client_task, fl_ctx):
        result = client_task.result
        if client_task.task.name == "count":
            self.seen[client_task.client.name] = result.get_return_code()

    def stop_controller(self, fl_ctx):
        pass
"""

COUNTING_EXECUTOR = """
import time
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.shareable import make_reply


class Counting(Executor):
    def execute(self, task_name, shareable, fl_ctx, abort_signal):
        if fl_ctx.get_identity_name() == "site-3" and task_name == "count":
            raise RuntimeError("broken on purpose")
        if task_name == "slow":
            for _ in range(600):
                if abort_signal.triggered:
                    self.log_info(fl_ctx, "told to stop")
                    return make_reply(ReturnCode.TASK_ABORTED)
                time.sleep(0.1)
        return make_reply(ReturnCode.OK)
"""


# One of each call, with every callback, one after the other; what they say is the test's to judge.
ERRANDS = """
import threading
import time
import numpy as np
from nvflare.apis.controller_spec import SendOrder, Task, TaskCompletionStatus
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.impl.controller import Controller
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal

SITES = ["site-1", "site-2", "site-3"]


class Errands(Controller):
    def __init__(self):
        super().__init__()
        self.told = []

    def handle_event(self, event_type, fl_ctx):
        if event_type in (EventType.START_RUN, EventType.END_RUN):
            self.log_info(fl_ctx, f"event {event_type}")

    def start_controller(self, fl_ctx):
        assert self._engine is fl_ctx.get_engine()
        assert [c.name for c in self._engine.validate_targets(["site-1", "nobody"])[0]] == ["site-1"]

    def task(self, name, timeout=0, data=None):
        return Task(name=name, data=data or Shareable(), timeout=timeout, before_task_sent_cb=self.before,
                    after_task_sent_cb=self.after, result_received_cb=self.received, task_done_cb=self.done)

    def before(self, client_task, fl_ctx):
        self.told.append(f"before {client_task.client.name}")

    def after(self, client_task, fl_ctx):
        self.told.append(f"after {client_task.client.name}")

    def received(self, client_task, fl_ctx):
        assert fl_ctx.get_prop(FLContextKey.TASK_NAME) == client_task.task.name
        self.told.append(f"received {client_task.client.name} {client_task.result.get_return_code()}")

    def done(self, task, fl_ctx):
        self.told.append(f"done {task.name} {task.completion_status.name}")

    def tell(self, what, fl_ctx):
        self.log_info(fl_ctx, f"{what}: {', '.join(self.told)}")
        self.told = []

    def control_flow(self, abort_signal, fl_ctx):
        self.send_and_wait(self.task("quick"), fl_ctx, targets=SITES[1:], send_order=SendOrder.SEQUENTIAL,
                           abort_signal=abort_signal)
        self.tell("send", fl_ctx)

        self.broadcast_and_wait(self.task("site-3 is slow"), fl_ctx, min_responses=2, wait_time_after_min_received=0,
                                abort_signal=abort_signal)
        self.told.sort()
        self.tell("two are enough", fl_ctx)

        self.broadcast_and_wait(self.task("slow", timeout=1), fl_ctx, targets=["site-1"], abort_signal=abort_signal)
        self.tell("timeout", fl_ctx)

        self.relay_and_wait(self.task("site-2 is slow"), fl_ctx, targets=SITES, task_result_timeout=1,
                            abort_signal=abort_signal)
        self.tell("relay", fl_ctx)

        mine = Signal()
        threading.Timer(0.3, mine.trigger, ("enough",)).start()
        self.broadcast_and_wait(self.task("slow"), fl_ctx, targets=["site-1"], abort_signal=mine)
        while self.get_num_standing_tasks():
            time.sleep(0.02)
        self.tell("aborted", fl_ctx)

        task = Task(name="quick", data=Shareable(), result_received_cb=self.broken)
        self.broadcast_and_wait(task, fl_ctx, targets=["site-1"], abort_signal=abort_signal)
        self.log_info(fl_ctx, f"broken: {task.completion_status.name} {task.exception}")

        self.own = {}
        self.broadcast_and_wait(
            Task(name="echo", data=Shareable(), before_task_sent_cb=self.give, result_received_cb=self.take),
            fl_ctx, targets=SITES, min_responses=3, abort_signal=abort_signal)
        self.log_info(fl_ctx, f"own data: {sorted(self.own.items())}")
        self.system_panic("that was all", fl_ctx)

    def broken(self, client_task, fl_ctx):
        raise ValueError("a callback of mine")

    def give(self, client_task, fl_ctx):
        number = int(client_task.client.name[-1])
        client_task.task.data = DXO(DataKind.WEIGHTS, {"w": np.full(2, number)}).to_shareable()
        client_task.task.data.set_header("for", client_task.client.name)
        client_task.task.data.add_cookie("number", number)

    def take(self, client_task, fl_ctx):
        result = client_task.result
        self.own[client_task.client.name] = (from_shareable(result).data["w"].tolist(), result.get_cookie("number"))

    def stop_controller(self, fl_ctx):
        self.log_info(fl_ctx, "stopped")
"""

ERRAND_EXECUTOR = """
import time
from nvflare.apis.dxo import from_shareable
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.shareable import make_reply


class ErrandExecutor(Executor):
    def execute(self, task_name, shareable, fl_ctx, abort_signal):
        me = fl_ctx.get_identity_name()
        if task_name == "echo":
            assert shareable.get_header("for") == me
            return from_shareable(shareable).to_shareable()
        if task_name in ("slow", f"{me} is slow"):
            while not abort_signal.triggered:
                time.sleep(0.02)
            self.log_info(fl_ctx, "told to stop")
            return make_reply(ReturnCode.TASK_ABORTED)
        return make_reply(ReturnCode.OK)
"""


# The newer style: one function over FLModels.
MODEL_CONTROLLER = """
from nvflare.app_common.abstract.fl_model import FLModel
from nvflare.app_common.workflows.base_fedavg import BaseFedAvg


class Mine(BaseFedAvg):
    def run(self) -> None:
        self.info("Start FedAvg.")
        model = self.load_model()
        model.start_round = self.start_round
        model.total_rounds = self.num_rounds
        for self.current_round in range(self.start_round, self.start_round + self.num_rounds):
            self.info(f"Round {self.current_round} started.")
            model.current_round = self.current_round
            clients = self.sample_clients(self.num_clients)
            results = self.send_model_and_wait(targets=clients, data=model)
            self.info(f"heard {[r.meta['client_name'] for r in results]} mean {[r.metrics['mean'] for r in results]}")
            aggregate_results = self.aggregate(results, aggregate_fn=self.aggregate_fn)
            model = self.update_model(model, aggregate_results)
            self.save_model(model)
        self.info("Finished FedAvg.")
"""


def adapted(text: str) -> str:
    """What a user does to run it here."""
    return text.replace("nvflare", "fl_runtime")
