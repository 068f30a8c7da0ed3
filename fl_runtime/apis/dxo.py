"""DXO: a shareable's content with its kind - weights, differences, metrics, or a collection of such."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fl_runtime.apis.fl_constant import FLMetaKey
from fl_runtime.apis.shareable import Shareable


class DataKind:
    FL_MODEL = "FL_MODEL"
    WEIGHTS = "WEIGHTS"
    WEIGHT_DIFF = "WEIGHT_DIFF"
    METRICS = "METRICS"
    ANALYTIC = "ANALYTIC"
    COLLECTION = "COLLECTION"
    STATISTICS = "STATISTICS"
    PSI = "PSI"
    RAW = "RAW"
    XGB_MODEL = "XGB_MODEL"
    APP_DEFINED = "APP_DEFINED"


class MetaKey(FLMetaKey):
    """Keys of a DXO's meta with a meaning."""

    AGGREGATION_WEIGHT = "aggregation_weight"
    WEIGHT = "weight"


_KIND, _DATA, _META, _CONTENT = "kind", "data", "meta", "DXO"
_TENSOR_KINDS = (DataKind.WEIGHTS, DataKind.WEIGHT_DIFF)


class DXO:
    """
    Args:
        data_kind: one of DataKind.
        data: name -> array for weights, name -> number for metrics, name -> DXO for a collection.
        meta: plain data about it; see MetaKey.
    """

    def __init__(self, data_kind: str, data: dict[str, Any] | None = None, meta: dict[str, Any] | None = None) -> None:
        if data is not None and not isinstance(data, dict):
            raise TypeError(f"a DXO's data must be a dict, not {type(data).__name__}")
        if meta is not None and not isinstance(meta, dict):
            raise TypeError(f"a DXO's meta must be a dict, not {type(meta).__name__}")
        self.data_kind = data_kind
        self.data: dict[str, Any] = data if data is not None else {}
        self.meta: dict[str, Any] = meta if meta is not None else {}

    def __repr__(self) -> str:
        return f"DXO({self.data_kind}, {len(self.data)} entries, meta {sorted(self.meta)})"

    def get_meta_prop(self, key: str, default: Any = None) -> Any:
        return self.meta.get(key, default)

    def set_meta_prop(self, key: str, value: Any) -> None:
        self.meta[key] = value

    def remove_meta_props(self, keys: list[str]) -> None:
        for key in keys:
            self.meta.pop(key, None)

    def get_meta_props(self) -> dict[str, Any]:
        return self.meta

    def update_meta_props(self, meta: Mapping[str, Any]) -> None:
        self.meta.update(meta)

    def add_filter_history(self, filter_name: str | list[str]) -> None:
        names = [filter_name] if isinstance(filter_name, str) else list(filter_name)
        self.meta.setdefault(MetaKey.FILTER_HISTORY, []).extend(names)

    def get_filter_history(self) -> list[str]:
        return list(self.meta.get(MetaKey.FILTER_HISTORY) or [])

    def update_shareable(self, s: Shareable) -> Shareable:
        """Put it into a shareable that keeps its headers."""
        s.set_content_type("DXO")
        s[_CONTENT] = {_KIND: self.data_kind, _DATA: self.data, _META: self.meta}
        return s

    def to_shareable(self) -> Shareable:
        return self.update_shareable(Shareable())

    def validate(self) -> str:
        """What is wrong with it; empty when nothing is."""
        if not self.data_kind:
            return "it has no data kind"
        data: Any = self.data  # user code may have put anything there
        if not isinstance(data, dict):
            return f"its data must be a dict, not {type(data).__name__}"
        if self.data_kind == DataKind.COLLECTION:
            for key, value in self.data.items():
                if not isinstance(value, DXO):
                    return f"entry {key!r} of the collection is {type(value).__name__}, not a DXO"
                if why := value.validate():
                    return f"entry {key!r}: {why}"
        return ""

    def to_bytes(self) -> bytes:
        """As one safetensors byte string; the plain part lies in its metadata."""
        from fl_runtime.apis.wire import to_bytes

        return to_bytes(self.to_shareable())

    def to_file(self, file_path: str | Path) -> None:
        Path(file_path).write_bytes(self.to_bytes())


def from_shareable(s: Shareable) -> DXO:
    """The DXO that a shareable holds.

    Raises:
        TypeError: not a shareable.
        ValueError: it holds none.
    """
    if not isinstance(s, Shareable):
        raise TypeError(f"a Shareable is wanted, not {type(s).__name__}")
    content = s.get(_CONTENT)
    if s.get_content_type() != "DXO" or not isinstance(content, dict):
        raise ValueError(
            f"the shareable holds no DXO (return code {s.get_return_code()}, entries {sorted(map(str, s))})"
        )
    return DXO(content[_KIND], content.get(_DATA), content.get(_META))


def from_bytes(data: bytes) -> DXO:
    """Raises ProtocolError for anything that `to_bytes` did not make."""
    from fl_runtime.apis.wire import from_bytes as read

    return from_shareable(read(bytes(data)))


def from_file(file_path: str | Path) -> DXO:
    """A file that `to_file` wrote; its arrays are maps of it."""
    from fl_runtime.apis.wire import from_bytes as read

    return from_shareable(read(Path(file_path)))


def get_leaf_dxos(dxo: DXO, root_name: str = "") -> tuple[dict[str, DXO], list[str]]:
    """All DXOs of a collection that are none themselves, by their path; and what is wrong."""
    if dxo.data_kind != DataKind.COLLECTION:
        return {root_name: dxo}, []
    found: dict[str, DXO] = {}
    wrong: list[str] = []
    for key, value in dxo.data.items():
        path = f"{root_name}.{key}" if root_name else key
        if not isinstance(value, DXO):
            wrong.append(f"{path} is {type(value).__name__}, not a DXO")
            continue
        leaves, errors = get_leaf_dxos(value, path)
        found.update(leaves)
        wrong.extend(errors)
    return found, wrong
