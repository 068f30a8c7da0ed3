"""FLContext: properties that travel through components, and the way to the engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from fl_runtime.apis.fl_constant import ReservedKey
from fl_runtime.apis.signal import Signal

_Props = dict[str, tuple[Any, bool]]  # name -> (value, private)


class FLContext:
    """Named properties. A private one stays in this process, a public one is shown to the peer (as plain data);
    a sticky one is seen in every later context of the job's process."""

    def __init__(
        self, attrs: Mapping[str, Any] | None = None, sticky: dict[str, tuple[Any, bool]] | None = None
    ) -> None:
        self._sticky: _Props = sticky if sticky is not None else {}
        self._own: _Props = {}
        for key, value in (attrs or {}).items():
            self._own[key] = (value, True)

    # --- properties

    def set_prop(self, key: str, value: Any, private: bool = True, sticky: bool = True) -> bool:
        """Raises ValueError when the key is no text."""
        if not isinstance(key, str):
            raise ValueError(f"a property's name must be text, not {type(key).__name__}")
        if sticky:
            self._own.pop(key, None)
            self._sticky[key] = (value, private)
        else:
            self._own[key] = (value, private)
        return True

    def put(self, key: str, value: Any, private: bool, sticky: bool) -> bool:
        return self.set_prop(key, value, private, sticky)

    def get_prop(self, key: str, default: Any = None) -> Any:
        found = self._own.get(key) or self._sticky.get(key)
        return found[0] if found is not None else default

    def get_prop_detail(self, key: str) -> dict[str, Any] | None:
        found, sticky = (self._own[key], False) if key in self._own else (self._sticky.get(key), True)
        return {"value": found[0], "private": found[1], "sticky": sticky} if found is not None else None

    def remove_prop(self, key: str, force_removal: bool = False) -> None:
        self._own.pop(key, None)
        self._sticky.pop(key, None)

    def props(self) -> dict[str, Any]:
        return {key: value for key, (value, _) in {**self._sticky, **self._own}.items()}

    def get_all_public_props(self) -> dict[str, Any]:
        return {key: value for key, (value, private) in {**self._sticky, **self._own}.items() if not private}

    # --- what the runtime has set

    def get_engine(self, default: Any = None, logger: Any = None) -> Any:
        """The engine: components, sites, new contexts."""
        return self.get_prop(ReservedKey.ENGINE, default)

    def get_job_id(self, default: Any = None) -> Any:
        return self.get_prop(ReservedKey.JOB_ID, default)

    def get_identity_name(self, default: Any = "") -> Any:
        return self.get_prop(ReservedKey.IDENTITY_NAME, default)

    def get_run_abort_signal(self) -> Signal | None:
        return self.get_prop(ReservedKey.RUN_ABORT_SIGNAL)  # type: ignore[no-any-return]

    def get_process_type(self) -> Any:
        return self.get_prop(ReservedKey.PROCESS_TYPE)

    def set_peer_context(self, ctx: FLContext) -> None:
        self.set_prop(ReservedKey.PEER_CTX, ctx, private=True, sticky=False)

    def get_peer_context(self) -> FLContext | None:
        return self.get_prop(ReservedKey.PEER_CTX)  # type: ignore[no-any-return]

    def clone(self) -> FLContext:
        made = FLContext(sticky=self._sticky)
        made._own = dict(self._own)
        return made

    def __enter__(self) -> FLContext:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class FLContextManager:
    """Makes the contexts of one process; sticky properties are common to all of them."""

    def __init__(self, engine: Any, identity: str, job_id: str, public: Mapping[str, Any] | None = None) -> None:
        self._sticky: _Props = {
            ReservedKey.ENGINE: (engine, True),
            ReservedKey.IDENTITY_NAME: (identity, False),
            ReservedKey.CLIENT_NAME: (identity, False),
            ReservedKey.JOB_ID: (job_id, False),
            ReservedKey.RUN_NUM: (job_id, False),
            **{key: (value, True) for key, value in (public or {}).items()},
        }

    def new_context(self) -> FLContext:
        return FLContext(sticky=self._sticky)

    @contextmanager
    def context(self) -> Iterator[FLContext]:
        yield self.new_context()
