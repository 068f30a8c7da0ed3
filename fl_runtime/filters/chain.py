"""A chain of filters over one file: read by mapping, changed block by block, written once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fl_runtime.filters.base import FilterError, Work
from fl_runtime.filters.registry import make
from fl_runtime.filters.views import View, write
from fl_runtime.models.tensors import TensorFile
from fl_runtime.patience import is_full


def apply(filters: Sequence[Mapping[str, Any]], source: TensorFile, work: Work, code: Path | None = None) -> View:
    """The filters one after the other; what comes back is lazy.

    Args:
        code: the folder in which filters that are named by a path lie.

    Raises:
        FilterError: one of them failed; the message is fit for the server.
    """
    view: View = source
    for number, entry in enumerate(filters):
        work.number = number
        name = str(entry.get("type") or entry.get("path"))
        with told(name):
            if "path" in entry:
                from fl_runtime.filters.custom import apply_custom

                view = apply_custom(entry, view, work, code)
            else:
                view = make(entry).apply(view, work)
    return view


@contextlib.contextmanager
def told(name: str) -> Iterator[None]:
    """An error of a filter as one that is fit for the server: the text of an unknown one may hold data.

    A full disk stays what it is: it is no fault of the filter's, and passes.
    """
    try:
        yield
    except FilterError as error:
        why = f"{error.what}: {error.why}" if error.why else error.what
        raise FilterError(f"The filter {name} failed", why=why) from error
    except Exception as error:
        if is_full(error):
            raise
        raise FilterError(f"The filter {name} failed", why=type(error).__name__) from error


def run(
    filters: Sequence[Mapping[str, Any]], source: Path | bytes, target: Path, work: Work, code: Path | None = None
) -> str:
    """Filter a file (or bytes) into `target`.

    Returns:
        `written`, `none` (no tensor is left; nothing was written) or `same` (nothing has changed).

    Raises:
        FilterError: a filter failed.
    """
    with TensorFile(source) as file:
        view = apply(filters, file, work, code)
        if view is file:
            return "same"
        if not view.tensors:
            return "none"
        with told(str(filters[-1].get("type") or filters[-1].get("path"))):
            write(view, target, file.metadata)
    return "written"
