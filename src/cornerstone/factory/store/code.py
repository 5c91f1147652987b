"""The code that makes a layer, as inputs of its key: each module that its maker runs, by name and sha256.

Which modules those are is computed from the maker itself (closure.py). So no change of code that can reach a layer
leaves its key as it was, a change of other code does, and `invoke why` names the module.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from cornerstone.factory.store.closure import PACKAGE, closure

SOURCE = Path(__file__).resolve().parents[3]
PREFIX = "code "
# of the modules that travel in a root, as inputs of its key
ROOMS = "rooms "


def code_inputs(*makers: Callable, source: Path = SOURCE) -> dict[str, str]:
    """Return the inputs for the code that some functions run: `code PATH` → sha256, PATH below the package.

    source is the folder above the package; another than the running one has the same modules in other versions.
    """
    return module_inputs(closure(source, {module_of(maker, source) for maker in makers}), source, PREFIX)


def module_inputs(files: Iterable[Path], source: Path, prefix: str) -> dict[str, str]:
    """Return an input for each module among files: prefix and its path below the package → sha256."""
    return {f"{prefix}{path.relative_to(source / PACKAGE).as_posix()}": hashlib.sha256(path.read_bytes()).hexdigest()
            for path in files}


def module_of(maker: Callable, source: Path = SOURCE) -> Path:
    """Return the file below source of the module that defines a function."""
    return source / Path(sys.modules[maker.__module__].__file__ or "").resolve().relative_to(SOURCE)


def combined(inputs: Mapping[str, str], prefix: str = PREFIX.strip()) -> str:
    """Return one sha256 over those of some inputs whose names begin with a prefix; code's, unless told otherwise."""
    lines = (f"{name} {value}\n" for name, value in sorted(inputs.items()) if name.startswith(prefix))
    return hashlib.sha256("".join(lines).encode()).hexdigest()
