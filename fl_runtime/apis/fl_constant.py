"""Words with a meaning in shareables, contexts and replies."""

from __future__ import annotations


class ReturnCode:
    """How a task went."""

    OK = "OK"
    BAD_PEER_CONTEXT = "BAD_PEER_CONTEXT"
    BAD_REQUEST_DATA = "BAD_REQUEST_DATA"
    BAD_TASK_DATA = "BAD_TASK_DATA"
    COMMUNICATION_ERROR = "COMMUNICATION_ERROR"
    ERROR = "ERROR"
    EXECUTION_EXCEPTION = "EXECUTION_EXCEPTION"
    EXECUTION_RESULT_ERROR = "EXECUTION_RESULT_ERROR"
    HANDLER_EXCEPTION = "HANDLER_EXCEPTION"
    MISSING_PEER_CONTEXT = "MISSING_PEER_CONTEXT"
    RUN_MISMATCH = "RUN_MISMATCH"
    TASK_ABORTED = "TASK_ABORTED"
    TASK_UNKNOWN = "TASK_UNKNOWN"
    TASK_UNSUPPORTED = "TASK_UNSUPPORTED"
    TASK_DATA_FILTER_ERROR = "TASK_DATA_FILTER_ERROR"
    TASK_RESULT_FILTER_ERROR = "TASK_RESULT_FILTER_ERROR"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    UNKNOWN_PEER = "UNKNOWN_PEER"
    VALIDATE_TYPE_UNKNOWN = "VALIDATE_TYPE_UNKNOWN"
    EMPTY_RESULT = "EMPTY_RESULT"
    UNSAFE_JOB = "UNSAFE_JOB"
    TIMEOUT = "TIMEOUT"


class ReservedKey:
    """Properties that the runtime sets in every FLContext."""

    ENGINE = "__engine__"
    JOB_ID = "__job_id__"
    RUN_NUM = "__run_num__"
    IDENTITY_NAME = "__identity_name__"
    PEER_CTX = "__peer_ctx__"
    PEER_PROPS = "__peer_props__"
    RUN_ABORT_SIGNAL = "__run_abort_signal__"
    SHAREABLE = "__shareable__"
    TASK_DATA = "__task_data__"
    TASK_RESULT = "__task_result__"
    TASK_NAME = "__task_name__"
    TASK_ID = "__task_id__"
    WORKSPACE_ROOT = "__workspace_root__"
    APP_ROOT = "__app_root__"
    CLIENT_NAME = "__client_name__"
    PROCESS_TYPE = "__process_type__"
    COMMUNICATION_ERROR = "Flare_communication_error"


class FLContextKey:
    """Keys of FLContext properties."""

    TASK_NAME = ReservedKey.TASK_NAME
    TASK_ID = ReservedKey.TASK_ID
    TASK_DATA = ReservedKey.TASK_DATA
    TASK_RESULT = ReservedKey.TASK_RESULT
    SHAREABLE = ReservedKey.SHAREABLE
    RUN_ABORT_SIGNAL = ReservedKey.RUN_ABORT_SIGNAL
    APP_ROOT = ReservedKey.APP_ROOT
    WORKSPACE_ROOT = ReservedKey.WORKSPACE_ROOT
    WORKSPACE_OBJECT = "__workspace_object__"
    CURRENT_RUN = ReservedKey.RUN_NUM
    CURRENT_JOB_ID = ReservedKey.JOB_ID
    CLIENT_NAME = ReservedKey.CLIENT_NAME
    PEER_CONTEXT = ReservedKey.PEER_CTX
    WORKFLOW = "__workflow__"
    FATAL_SYSTEM_ERROR = "_Fatal_System_Error_"
    EVENT_DATA = "___event_data__"
    EXCEPTIONS = "___exceptions__"
    COMPONENT_NODE = "__component_node__"
    JOB_META = "__job_meta__"
    FILTERED_TASK = "__filtered_task__"


class FLMetaKey:
    """Keys in the meta of models and DXOs."""

    NUM_STEPS_CURRENT_ROUND = "NUM_STEPS_CURRENT_ROUND"  # the weight of a result; 1 when absent
    PROCESSED_ALGORITHM = "PROCESSED_ALGORITHM"
    PROCESSED_KEYS = "PROCESSED_KEYS"
    INITIAL_METRICS = "initial_metrics"
    FILTER_HISTORY = "filter_history"
    CONFIGS = "configs"
    VALIDATE_TYPE = "validate_type"
    START_ROUND = "start_round"
    CURRENT_ROUND = "current_round"
    TOTAL_ROUNDS = "total_rounds"
    JOB_ID = "job_id"
    SITE_NAME = "site_name"


class ReservedTopic:
    DO_TASK = "__do_task__"
    ABORT_TASK = "__abort_task__"


class FilterKey:
    IN = "in"
    OUT = "out"
    INOUT = "inout"
    DELIMITER = "/"


class ProcessType:
    SERVER_JOB = "SJ"
    CLIENT_JOB = "CJ"


class NonSerializableKeys:
    """Kept for user code that names it."""

    KEYS: list[str] = []
