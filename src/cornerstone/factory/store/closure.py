"""The import closure of modules: their files and all that they import of Cornerstone, read from the text alone.

What travels in a root and what a layer's key covers are both computed with it, so no list can be out of date.
"""

from __future__ import annotations

import ast
import functools
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

PACKAGE = "cornerstone"

# Roots are built in parallel, and before CPython 3.13 two threads that make a syntax tree count their depths
# in one counter: "SystemError: AST constructor recursion depth mismatch" (cpython issue 106905).
_PARSING = threading.Lock()


def closure(source: Path, modules: Iterable[Path]) -> list[Path]:
    """Return the files of some modules and of all that they import from this package, sorted.

    source is the folder above the package. An import inside a function counts, one for type checkers alone doesn't.
    """
    found: set[Path] = set()
    waiting = list(modules)
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        # a module's packages are run before it
        packages = (source / above / "__init__.py" for above in path.relative_to(source).parents)
        waiting += [at for at in packages if at.is_file()]
        waiting += [at for name in imported(path.read_bytes()) if (at := _file(source, name))]
    return sorted(found)


@functools.cache
def imported(content: bytes) -> tuple[str, ...]:
    """Return the dotted names of this package that a module's text may import when it runs: modules, and names in them.

    Raises ValueError for a relative import, which this package doesn't use.
    """
    with _PARSING:
        module = ast.parse(content)
    return tuple(dict.fromkeys(name for name in _imports(module) if name.partition(".")[0] == PACKAGE))


def _imports(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
        for child in node.orelse:
            yield from _imports(child)
        return
    if isinstance(node, ast.ImportFrom):
        if node.level or not node.module:
            raise ValueError(f"line {node.lineno} has a relative import, which the import closure doesn't follow")
        yield node.module
        yield from (f"{node.module}.{name.name}" for name in node.names)
    elif isinstance(node, ast.Import):
        yield from (name.name for name in node.names)
    for child in ast.iter_child_nodes(node):
        yield from _imports(child)


def _file(source: Path, name: str) -> Path | None:
    """The file of a module by its dotted name, or None for a name inside a module."""
    path = source / name.replace(".", "/")
    return next((at for at in (path.with_suffix(".py"), path / "__init__.py") if at.is_file()), None)
