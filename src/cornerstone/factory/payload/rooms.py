"""Which modules of Cornerstone travel in a root: a room's own, and what they import of the model, nothing else.

So a change in what only the factory uses rebuilds no root, and a root holds no code that never runs there.
"""

from __future__ import annotations

import ast
import shutil
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

PACKAGE = "cornerstone"

# The rooms that run in each root.
ROOMS = {"hypervisor": ("foundation", "hypervisor"), "cvm": ("cvm",)}

# Roots are built in parallel, and before CPython 3.13 two threads that make a syntax tree count their depths
# in one counter: "SystemError: AST constructor recursion depth mismatch" (cpython issue 106905).
_PARSING = threading.Lock()


def modules(source: Path, rooms: Iterable[str]) -> list[Path]:
    """The files of some rooms and of all that they import from this package, sorted; source is the folder above it."""
    found: set[Path] = set()
    waiting = [path for room in rooms for path in (source / PACKAGE / room).rglob("*.py")]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        # a module's packages are run before it
        packages = (source / above / "__init__.py" for above in path.relative_to(source).parents)
        waiting += [at for at in packages if at.is_file()]
        with _PARSING:
            module = ast.parse(path.read_bytes())
        waiting += [at for name in _imports(module) if (at := _file(source, name))]
    return sorted(found)


def copy(source: Path, rooms: Iterable[str], target: Path) -> None:
    """Copy the modules of some rooms below target, with their folders."""
    for path in modules(source, rooms):
        at = target / path.relative_to(source)
        at.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, at)


def _imports(node: ast.AST) -> Iterator[str]:
    """The dotted names that a module may import when it runs: modules, and names in them."""
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
        for child in node.orelse:
            yield from _imports(child)
        return
    if isinstance(node, ast.ImportFrom) and node.module:
        yield node.module
        yield from (f"{node.module}.{name.name}" for name in node.names)
    elif isinstance(node, ast.Import):
        yield from (name.name for name in node.names)
    for child in ast.iter_child_nodes(node):
        yield from _imports(child)


def _file(source: Path, name: str) -> Path | None:
    """The file of a module by its dotted name, or None for another package's or a name inside a module."""
    if name.partition(".")[0] != PACKAGE:
        return None
    path = source.joinpath(*name.split("."))
    return next((at for at in (path.with_suffix(".py"), path / "__init__.py") if at.is_file()), None)
