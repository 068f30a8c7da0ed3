"""What a job's script imports that takes long: imported once, before the workers are forked."""

from __future__ import annotations

import ast
from pathlib import Path

from fl_runtime.errors import JobSpecError

_HEAVY = {"torch", "torchvision", "numpy", "scipy", "sklearn", "pandas", "lightning", "transformers", "PIL"}


def preloads(bundle: Path, script: str) -> list[str]:
    """Modules worth importing once for all: what the script, and modules of the job that it imports, import on top."""
    found: set[str] = set()
    seen: set[Path] = set()
    todo = [bundle / script] if script else []
    while todo:
        path = todo.pop()
        if path in seen or not path.is_file():
            continue
        seen.add(path)
        source = path.read_bytes()
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError) as error:
            raise JobSpecError(
                f"{path.name} is not Python", why=str(error), next_step=f"python -m py_compile {path}"
            ) from None
        for node in tree.body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for name in names:
                if name.partition(".")[0] in _HEAVY:
                    found.add(name)
                if name.partition(".")[0] == "torch" and b"optim" in source:
                    found.add("torch._dynamo")  # 1.4 s: torch imports it when the first optimizer is made
                todo += [
                    bundle / Path(*name.split(".")).with_suffix(".py"),
                    bundle / name.split(".")[0] / "__init__.py",
                ]
    return sorted(found)
