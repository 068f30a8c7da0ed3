from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Hello(_message.Message):
    __slots__ = ("major", "minor", "features", "incarnation", "clock_ms", "version", "labels")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    MAJOR_FIELD_NUMBER: _ClassVar[int]
    MINOR_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    CLOCK_MS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    major: int
    minor: int
    features: _containers.RepeatedScalarFieldContainer[str]
    incarnation: str
    clock_ms: int
    version: str
    labels: _containers.ScalarMap[str, str]
    def __init__(self, major: _Optional[int] = ..., minor: _Optional[int] = ..., features: _Optional[_Iterable[str]] = ..., incarnation: _Optional[str] = ..., clock_ms: _Optional[int] = ..., version: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("major", "minor", "features", "incarnation", "clock_ms", "version", "federation")
    MAJOR_FIELD_NUMBER: _ClassVar[int]
    MINOR_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    CLOCK_MS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    FEDERATION_FIELD_NUMBER: _ClassVar[int]
    major: int
    minor: int
    features: _containers.RepeatedScalarFieldContainer[str]
    incarnation: str
    clock_ms: int
    version: str
    federation: str
    def __init__(self, major: _Optional[int] = ..., minor: _Optional[int] = ..., features: _Optional[_Iterable[str]] = ..., incarnation: _Optional[str] = ..., clock_ms: _Optional[int] = ..., version: _Optional[str] = ..., federation: _Optional[str] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("what", "why", "next", "major", "minor")
    WHAT_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    MAJOR_FIELD_NUMBER: _ClassVar[int]
    MINOR_FIELD_NUMBER: _ClassVar[int]
    what: str
    why: str
    next: str
    major: int
    minor: int
    def __init__(self, what: _Optional[str] = ..., why: _Optional[str] = ..., next: _Optional[str] = ..., major: _Optional[int] = ..., minor: _Optional[int] = ...) -> None: ...

class Revocations(_message.Message):
    __slots__ = ("document", "signature")
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    document: bytes
    signature: bytes
    def __init__(self, document: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class RevokeReply(_message.Message):
    __slots__ = ("number",)
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    number: int
    def __init__(self, number: _Optional[int] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("clock_ms",)
    CLOCK_MS_FIELD_NUMBER: _ClassVar[int]
    clock_ms: int
    def __init__(self, clock_ms: _Optional[int] = ...) -> None: ...

class ToHub(_message.Message):
    __slots__ = ("hello", "heartbeat", "job_answer", "task_result", "log", "metric", "site_state", "order_answer", "need_full", "reserved")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    JOB_ANSWER_FIELD_NUMBER: _ClassVar[int]
    TASK_RESULT_FIELD_NUMBER: _ClassVar[int]
    LOG_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    SITE_STATE_FIELD_NUMBER: _ClassVar[int]
    ORDER_ANSWER_FIELD_NUMBER: _ClassVar[int]
    NEED_FULL_FIELD_NUMBER: _ClassVar[int]
    RESERVED_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    heartbeat: Heartbeat
    job_answer: JobAnswer
    task_result: TaskResult
    log: LogData
    metric: MetricData
    site_state: SiteState
    order_answer: OrderAnswer
    need_full: NeedFull
    reserved: Reserved
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., job_answer: _Optional[_Union[JobAnswer, _Mapping]] = ..., task_result: _Optional[_Union[TaskResult, _Mapping]] = ..., log: _Optional[_Union[LogData, _Mapping]] = ..., metric: _Optional[_Union[MetricData, _Mapping]] = ..., site_state: _Optional[_Union[SiteState, _Mapping]] = ..., order_answer: _Optional[_Union[OrderAnswer, _Mapping]] = ..., need_full: _Optional[_Union[NeedFull, _Mapping]] = ..., reserved: _Optional[_Union[Reserved, _Mapping]] = ...) -> None: ...

class ToParticipant(_message.Message):
    __slots__ = ("welcome", "refusal", "heartbeat", "job_start", "job_stop", "task", "task_cancel", "result_ack", "revocations", "order", "report_have", "reserve", "release")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    JOB_START_FIELD_NUMBER: _ClassVar[int]
    JOB_STOP_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    TASK_CANCEL_FIELD_NUMBER: _ClassVar[int]
    RESULT_ACK_FIELD_NUMBER: _ClassVar[int]
    REVOCATIONS_FIELD_NUMBER: _ClassVar[int]
    ORDER_FIELD_NUMBER: _ClassVar[int]
    REPORT_HAVE_FIELD_NUMBER: _ClassVar[int]
    RESERVE_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    refusal: Refusal
    heartbeat: Heartbeat
    job_start: JobStart
    job_stop: JobStop
    task: Task
    task_cancel: TaskCancel
    result_ack: ResultAck
    revocations: Revocations
    order: Order
    report_have: ReportHave
    reserve: Reserve
    release: Release
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., refusal: _Optional[_Union[Refusal, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., job_start: _Optional[_Union[JobStart, _Mapping]] = ..., job_stop: _Optional[_Union[JobStop, _Mapping]] = ..., task: _Optional[_Union[Task, _Mapping]] = ..., task_cancel: _Optional[_Union[TaskCancel, _Mapping]] = ..., result_ack: _Optional[_Union[ResultAck, _Mapping]] = ..., revocations: _Optional[_Union[Revocations, _Mapping]] = ..., order: _Optional[_Union[Order, _Mapping]] = ..., report_have: _Optional[_Union[ReportHave, _Mapping]] = ..., reserve: _Optional[_Union[Reserve, _Mapping]] = ..., release: _Optional[_Union[Release, _Mapping]] = ...) -> None: ...

class JobStart(_message.Message):
    __slots__ = ("job", "envelope", "bundle", "log_have", "metric_have")
    JOB_FIELD_NUMBER: _ClassVar[int]
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    LOG_HAVE_FIELD_NUMBER: _ClassVar[int]
    METRIC_HAVE_FIELD_NUMBER: _ClassVar[int]
    job: str
    envelope: Envelope
    bundle: Payload
    log_have: int
    metric_have: int
    def __init__(self, job: _Optional[str] = ..., envelope: _Optional[_Union[Envelope, _Mapping]] = ..., bundle: _Optional[_Union[Payload, _Mapping]] = ..., log_have: _Optional[int] = ..., metric_have: _Optional[int] = ...) -> None: ...

class JobAnswer(_message.Message):
    __slots__ = ("job", "accepted", "why", "busy")
    JOB_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    BUSY_FIELD_NUMBER: _ClassVar[int]
    job: str
    accepted: bool
    why: str
    busy: bool
    def __init__(self, job: _Optional[str] = ..., accepted: bool = ..., why: _Optional[str] = ..., busy: bool = ...) -> None: ...

class Reserve(_message.Message):
    __slots__ = ("job", "need", "lease_ms", "attempt")
    JOB_FIELD_NUMBER: _ClassVar[int]
    NEED_FIELD_NUMBER: _ClassVar[int]
    LEASE_MS_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    job: str
    need: bytes
    lease_ms: int
    attempt: int
    def __init__(self, job: _Optional[str] = ..., need: _Optional[bytes] = ..., lease_ms: _Optional[int] = ..., attempt: _Optional[int] = ...) -> None: ...

class Reserved(_message.Message):
    __slots__ = ("job", "granted", "why", "never", "attempt", "figures")
    JOB_FIELD_NUMBER: _ClassVar[int]
    GRANTED_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    NEVER_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    FIGURES_FIELD_NUMBER: _ClassVar[int]
    job: str
    granted: bool
    why: str
    never: bool
    attempt: int
    figures: bytes
    def __init__(self, job: _Optional[str] = ..., granted: bool = ..., why: _Optional[str] = ..., never: bool = ..., attempt: _Optional[int] = ..., figures: _Optional[bytes] = ...) -> None: ...

class Release(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: str
    def __init__(self, job: _Optional[str] = ...) -> None: ...

class JobStop(_message.Message):
    __slots__ = ("job", "state", "why")
    JOB_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    job: str
    state: str
    why: str
    def __init__(self, job: _Optional[str] = ..., state: _Optional[str] = ..., why: _Optional[str] = ...) -> None: ...

class Envelope(_message.Message):
    __slots__ = ("document", "signature", "certificate")
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    document: bytes
    signature: bytes
    certificate: bytes
    def __init__(self, document: _Optional[bytes] = ..., signature: _Optional[bytes] = ..., certificate: _Optional[bytes] = ...) -> None: ...

class Payload(_message.Message):
    __slots__ = ("blob", "length", "inline", "form", "plain", "base")
    BLOB_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    INLINE_FIELD_NUMBER: _ClassVar[int]
    FORM_FIELD_NUMBER: _ClassVar[int]
    PLAIN_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    blob: bytes
    length: int
    inline: bytes
    form: str
    plain: bytes
    base: bytes
    def __init__(self, blob: _Optional[bytes] = ..., length: _Optional[int] = ..., inline: _Optional[bytes] = ..., form: _Optional[str] = ..., plain: _Optional[bytes] = ..., base: _Optional[bytes] = ...) -> None: ...

class Task(_message.Message):
    __slots__ = ("job", "task", "attempt", "name", "meta", "payload")
    JOB_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    META_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    job: str
    task: str
    attempt: int
    name: str
    meta: bytes
    payload: Payload
    def __init__(self, job: _Optional[str] = ..., task: _Optional[str] = ..., attempt: _Optional[int] = ..., name: _Optional[str] = ..., meta: _Optional[bytes] = ..., payload: _Optional[_Union[Payload, _Mapping]] = ...) -> None: ...

class TaskCancel(_message.Message):
    __slots__ = ("job", "task", "unless_begun")
    JOB_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    UNLESS_BEGUN_FIELD_NUMBER: _ClassVar[int]
    job: str
    task: str
    unless_begun: bool
    def __init__(self, job: _Optional[str] = ..., task: _Optional[str] = ..., unless_begun: bool = ...) -> None: ...

class TaskResult(_message.Message):
    __slots__ = ("job", "task", "attempt", "meta", "payload", "error", "holds")
    JOB_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    META_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    HOLDS_FIELD_NUMBER: _ClassVar[int]
    job: str
    task: str
    attempt: int
    meta: bytes
    payload: Payload
    error: str
    holds: bytes
    def __init__(self, job: _Optional[str] = ..., task: _Optional[str] = ..., attempt: _Optional[int] = ..., meta: _Optional[bytes] = ..., payload: _Optional[_Union[Payload, _Mapping]] = ..., error: _Optional[str] = ..., holds: _Optional[bytes] = ...) -> None: ...

class NeedFull(_message.Message):
    __slots__ = ("job", "task")
    JOB_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    job: str
    task: str
    def __init__(self, job: _Optional[str] = ..., task: _Optional[str] = ...) -> None: ...

class ResultAck(_message.Message):
    __slots__ = ("job", "task", "accepted", "why")
    JOB_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    job: str
    task: str
    accepted: bool
    why: str
    def __init__(self, job: _Optional[str] = ..., task: _Optional[str] = ..., accepted: bool = ..., why: _Optional[str] = ...) -> None: ...

class LogData(_message.Message):
    __slots__ = ("job", "offset", "data", "next")
    JOB_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    job: str
    offset: int
    data: bytes
    next: int
    def __init__(self, job: _Optional[str] = ..., offset: _Optional[int] = ..., data: _Optional[bytes] = ..., next: _Optional[int] = ...) -> None: ...

class MetricData(_message.Message):
    __slots__ = ("job", "document", "offset", "next")
    JOB_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    job: str
    document: bytes
    offset: int
    next: int
    def __init__(self, job: _Optional[str] = ..., document: _Optional[bytes] = ..., offset: _Optional[int] = ..., next: _Optional[int] = ...) -> None: ...

class ReportHave(_message.Message):
    __slots__ = ("job", "log", "metric")
    JOB_FIELD_NUMBER: _ClassVar[int]
    LOG_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    job: str
    log: int
    metric: int
    def __init__(self, job: _Optional[str] = ..., log: _Optional[int] = ..., metric: _Optional[int] = ...) -> None: ...

class SiteState(_message.Message):
    __slots__ = ("job", "state", "why", "figures")
    JOB_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    FIGURES_FIELD_NUMBER: _ClassVar[int]
    job: str
    state: str
    why: str
    figures: bytes
    def __init__(self, job: _Optional[str] = ..., state: _Optional[str] = ..., why: _Optional[str] = ..., figures: _Optional[bytes] = ...) -> None: ...

class Manifest(_message.Message):
    __slots__ = ("length", "leaves")
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    LEAVES_FIELD_NUMBER: _ClassVar[int]
    length: int
    leaves: bytes
    def __init__(self, length: _Optional[int] = ..., leaves: _Optional[bytes] = ...) -> None: ...

class BlobQuery(_message.Message):
    __slots__ = ("blob", "job", "task")
    BLOB_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    blob: bytes
    job: str
    task: str
    def __init__(self, blob: _Optional[bytes] = ..., job: _Optional[str] = ..., task: _Optional[str] = ...) -> None: ...

class OfferRequest(_message.Message):
    __slots__ = ("job", "task", "manifest")
    JOB_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    job: str
    task: str
    manifest: Manifest
    def __init__(self, job: _Optional[str] = ..., task: _Optional[str] = ..., manifest: _Optional[_Union[Manifest, _Mapping]] = ...) -> None: ...

class LeafRange(_message.Message):
    __slots__ = ("first", "count")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    first: int
    count: int
    def __init__(self, first: _Optional[int] = ..., count: _Optional[int] = ...) -> None: ...

class OfferReply(_message.Message):
    __slots__ = ("complete", "missing")
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    complete: bool
    missing: _containers.RepeatedCompositeFieldContainer[LeafRange]
    def __init__(self, complete: bool = ..., missing: _Optional[_Iterable[_Union[LeafRange, _Mapping]]] = ...) -> None: ...

class PullRequest(_message.Message):
    __slots__ = ("query", "range")
    QUERY_FIELD_NUMBER: _ClassVar[int]
    RANGE_FIELD_NUMBER: _ClassVar[int]
    query: BlobQuery
    range: LeafRange
    def __init__(self, query: _Optional[_Union[BlobQuery, _Mapping]] = ..., range: _Optional[_Union[LeafRange, _Mapping]] = ...) -> None: ...

class PushHeader(_message.Message):
    __slots__ = ("query", "range")
    QUERY_FIELD_NUMBER: _ClassVar[int]
    RANGE_FIELD_NUMBER: _ClassVar[int]
    query: BlobQuery
    range: LeafRange
    def __init__(self, query: _Optional[_Union[BlobQuery, _Mapping]] = ..., range: _Optional[_Union[LeafRange, _Mapping]] = ...) -> None: ...

class PushReply(_message.Message):
    __slots__ = ("leaves",)
    LEAVES_FIELD_NUMBER: _ClassVar[int]
    leaves: int
    def __init__(self, leaves: _Optional[int] = ...) -> None: ...

class SubmitRequest(_message.Message):
    __slots__ = ("job", "envelope", "spec", "bundle")
    JOB_FIELD_NUMBER: _ClassVar[int]
    ENVELOPE_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    job: str
    envelope: Envelope
    spec: bytes
    bundle: Manifest
    def __init__(self, job: _Optional[str] = ..., envelope: _Optional[_Union[Envelope, _Mapping]] = ..., spec: _Optional[bytes] = ..., bundle: _Optional[_Union[Manifest, _Mapping]] = ...) -> None: ...

class SubmitReply(_message.Message):
    __slots__ = ("complete",)
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    complete: bool
    def __init__(self, complete: bool = ...) -> None: ...

class Question(_message.Message):
    __slots__ = ("verb", "job", "participant", "offset")
    VERB_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    PARTICIPANT_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    verb: str
    job: str
    participant: str
    offset: int
    def __init__(self, verb: _Optional[str] = ..., job: _Optional[str] = ..., participant: _Optional[str] = ..., offset: _Optional[int] = ...) -> None: ...

class Answer(_message.Message):
    __slots__ = ("document", "data")
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    document: bytes
    data: bytes
    def __init__(self, document: _Optional[bytes] = ..., data: _Optional[bytes] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("job", "after", "logs", "participant", "offsets", "metrics")
    class OffsetsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    JOB_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LOGS_FIELD_NUMBER: _ClassVar[int]
    PARTICIPANT_FIELD_NUMBER: _ClassVar[int]
    OFFSETS_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    job: str
    after: int
    logs: bool
    participant: str
    offsets: _containers.ScalarMap[str, int]
    metrics: bool
    def __init__(self, job: _Optional[str] = ..., after: _Optional[int] = ..., logs: bool = ..., participant: _Optional[str] = ..., offsets: _Optional[_Mapping[str, int]] = ..., metrics: bool = ...) -> None: ...

class WatchEvent(_message.Message):
    __slots__ = ("number", "document")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    number: int
    document: bytes
    def __init__(self, number: _Optional[int] = ..., document: _Optional[bytes] = ...) -> None: ...

class Order(_message.Message):
    __slots__ = ("document", "signature", "certificate")
    DOCUMENT_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    document: bytes
    signature: bytes
    certificate: bytes
    def __init__(self, document: _Optional[bytes] = ..., signature: _Optional[bytes] = ..., certificate: _Optional[bytes] = ...) -> None: ...

class OrderAnswer(_message.Message):
    __slots__ = ("order", "accepted", "why")
    ORDER_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    order: str
    accepted: bool
    why: str
    def __init__(self, order: _Optional[str] = ..., accepted: bool = ..., why: _Optional[str] = ...) -> None: ...
