"""DXOFilter: a filter that is asked for DXOs of certain kinds only."""

from __future__ import annotations

from abc import abstractmethod

from fl_runtime.apis.dxo import DXO, DataKind, from_shareable
from fl_runtime.apis.filter import Filter
from fl_runtime.apis.fl_context import FLContext
from fl_runtime.apis.shareable import Shareable


class DXOFilter(Filter):
    """
    Args:
        supported_data_kinds: what the subclass can handle; None = everything.
        data_kinds_to_filter: of these, what is filtered; None = all of them.
    """

    def __init__(
        self, supported_data_kinds: list[str] | None = None, data_kinds_to_filter: list[str] | None = None
    ) -> None:
        super().__init__()
        if supported_data_kinds and data_kinds_to_filter:
            beyond = sorted(set(data_kinds_to_filter) - set(supported_data_kinds))
            if beyond:
                raise ValueError(f"{self.name} can't filter {', '.join(beyond)}")
        self.data_kinds = data_kinds_to_filter or supported_data_kinds

    @abstractmethod
    def process_dxo(self, dxo: DXO, shareable: Shareable, fl_ctx: FLContext) -> DXO | None:
        """The DXO that goes on; None leaves it as it is."""

    def process(self, shareable: Shareable, fl_ctx: FLContext) -> Shareable:
        """Shareables without a DXO, and kinds that are not meant, pass untouched."""
        try:
            dxo = from_shareable(shareable)
        except ValueError:
            return shareable
        changed = self._apply(dxo, shareable, fl_ctx)
        return changed.update_shareable(shareable) if changed is not None else shareable

    def _apply(self, dxo: DXO, shareable: Shareable, fl_ctx: FLContext) -> DXO | None:
        if dxo.data_kind == DataKind.COLLECTION:
            touched = False
            for key, entry in dxo.data.items():
                made = self._apply(entry, shareable, fl_ctx)
                if made is not None:
                    dxo.data[key], touched = made, True
            return dxo if touched else None
        if self.data_kinds is not None and dxo.data_kind not in self.data_kinds:
            return None
        made = self.process_dxo(dxo, shareable, fl_ctx)
        if made is None:
            return None
        if not isinstance(made, DXO):
            raise TypeError(f"{self.name}.process_dxo must return a DXO or None, not {type(made).__name__}")
        made.add_filter_history(self.name)
        return made
