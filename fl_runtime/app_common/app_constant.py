"""Names of tasks, properties and settings."""

from __future__ import annotations


class AppConstants:
    TASK_TRAIN = "train"
    TASK_VALIDATION = "validate"
    TASK_SUBMIT_MODEL = "submit_model"
    TASK_INIT_MODEL = "init_model"
    TASK_CONFIGURE = "configure"
    TASK_GET_WEIGHTS = "get_weights"

    CURRENT_ROUND = "current_round"
    NUM_ROUNDS = "num_rounds"
    START_ROUND = "start_round"
    CONTRIBUTION_ROUND = "contribution_round"
    NUM_TOTAL_STEPS = "num_total_steps"
    NUM_EPOCHS_CURRENT_ROUND = "num_epochs_current_round"

    GLOBAL_MODEL = "global_model"
    MODEL_WEIGHTS = "model_weights"
    MODEL_NAME = "model_name"
    MODEL_URL = "model_url"
    MODEL_OWNER = "_model_owner"
    MODEL_LOAD = "model_load"
    MODEL_TO_VALIDATE = "model_to_validate"
    MODEL_VALIDATION_DIR = "model_validation_dir"
    DATA_CLIENT = "_data_client"
    SUBMIT_MODEL_NAME = "submit_model_name"
    VALIDATE_TYPE = "_validate_type"
    VALIDATION_RESULT = "validation_result"
    DEFAULT_MODEL_DIR = "models"
    DEFAULT_AGGREGATOR_ID = "aggregator"
    DEFAULT_PERSISTOR_ID = "persistor"
    DEFAULT_SHAREABLE_GENERATOR_ID = "shareable_generator"
    DEFAULT_FORMATTER_ID = "formatter"

    TRAIN_SHAREABLE = "train_shareable"
    TRAINING_RESULT = "training_result"
    AGGREGATION_RESULT = "aggregation_result"
    AGGREGATION_TRIGGERED = "_aggregation_triggered"
    AGGREGATION_ACCEPTED = "_aggregation_accepted"
    AGGREGATION_WEIGHTS = "aggregation_weights"
    CLIENT_STATUS = "client_status"
    IS_BEST = "is_best"
    IS_FIRST_ROUND = "is_first_round"
    LOCAL_TRAINING_TIME = "local_train_time"
    PHASE = "_phase_"
    PHASE_INIT = "_init_"
    PHASE_TRAIN = "train"
    PHASE_MODEL_VALIDATION = "model_validation"
    PHASE_FINISHED = "_finished_"
    PARTICIPATING_CLIENTS = "participating_clients"
    TRAINING_METRICS = "training_metrics"
    RETURN_CODE = "_return_code"
    WAIT_AFTER_MIN_CLIENTS = "wait_after_min_clients"


class ModelName:
    BEST_MODEL = "best_model"
    FINAL_MODEL = "final_model"
    RETURN_MODEL = "return_model"


class ModelFormat:
    PT_CHECKPOINT = "pt_checkpoint"
    TORCH_SCRIPT = "torch_script"
    PT_ONNX = "pt_onnx"
    NUMPY = "numpy"
    SAFETENSORS = "safetensors"


class ValidateType:
    BEFORE_TRAIN_VALIDATE = "before_train_validate"
    MODEL_VALIDATE = "model_validate"


class AlgorithmConstants:
    SCAFFOLD_CTRL_DIFF = "scaffold_c_diff"
    SCAFFOLD_CTRL_GLOBAL = "scaffold_c_global"
    SCAFFOLD_CTRL_AGGREGATOR_ID = "scaffold_ctrl_aggregator"


class EnvironmentKey:
    CHECKPOINT_DIR = "APP_CKPT_DIR"
    CHECKPOINT_FILE_NAME = "APP_CKPT"


class DefaultCheckpointFileName:
    GLOBAL_MODEL = "FL_global_model.safetensors"
    BEST_GLOBAL_MODEL = "best_FL_global_model.safetensors"
