"""Whether a root has what its own Python code imports: our modules, and the packages of Debian that they use."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from cornerstone.factory.inspection.tree import Tree

OURS = "usr/lib/cornerstone"
# Built into Debian's interpreter, so that there is no file of them: those of a module directory that isn't there.
BUILT_IN = {
    "_abc", "_ast", "_bisect", "_blake2", "_codecs", "_collections", "_contextvars", "_csv", "_datetime",
    "_elementtree", "_functools", "_heapq", "_imp", "_io", "_locale", "_md5", "_operator", "_pickle",
    "_posixsubprocess", "_random", "_sha1", "_sha2", "_sha3", "_signal", "_socket", "_sre", "_stat", "_statistics",
    "_string", "_struct", "_symtable", "_thread", "_tracemalloc", "_typing", "_warnings", "_weakref", "array", "atexit",
    "binascii", "builtins", "cmath", "errno", "faulthandler", "fcntl", "gc", "grp", "itertools", "marshal", "math",
    "posix", "pwd", "pyexpat", "resource", "select", "spwd", "sys", "syslog", "time", "unicodedata", "zlib",
}


def missing(tree: Tree, module: str) -> list[str]:
    """Return what keeps one of our modules from being imported in a root: modules that it lacks, at any depth of ours.

    The syntax is checked as the root's Python has it. Of other packages only their first module is looked for.
    """
    version = python_version(tree)
    folders = (OURS, f"usr/lib/python3.{version}", f"usr/lib/python3.{version}/lib-dynload",
               "usr/lib/python3/dist-packages")
    lacking, seen, waiting = [], set(), [(module, "the start")]
    while waiting:
        name, asked_by = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if name.partition(".")[0] != "cornerstone":
            top = name.partition(".")[0]
            if top not in BUILT_IN and not any(next(_places(tree, folder, top), None) for folder in folders):
                lacking.append(f"{top}, which {asked_by} imports")
            continue
        path = next(_places(tree, OURS, name), None)
        if path is None:
            lacking.append(f"{name}, which {asked_by} imports")
            continue
        above = name.rpartition(".")[0]
        if above:
            waiting.append((above, name))
        try:
            parsed = ast.parse(tree.read(path), feature_version=(3, version))
        except SyntaxError as error:
            lacking.append(f"what {path} says in line {error.lineno}, for a Python 3.{version}")
            continue
        for each, certain in _imports(parsed):
            if certain or next(_places(tree, OURS, each), None):
                waiting.append((each, name))
    return lacking


def python_version(tree: Tree) -> int:
    """The minor version of a root's Python 3."""
    found = re.fullmatch(r"python3\.(\d+)", tree.link("usr/bin/python3") or "")
    if found is None:
        raise ValueError("usr/bin/python3 leads to no Python")
    return int(found[1])


def _imports(node: ast.AST) -> Iterator[tuple[str, bool]]:
    """The dotted names that a module imports when it runs, and whether each is a module: else it may be a name in one.

    What it imports only for type checkers is left out.
    """
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
        for child in node.orelse:
            yield from _imports(child)
        return
    if isinstance(node, ast.ImportFrom) and node.module:
        yield node.module, True
        yield from ((f"{node.module}.{name.name}", False) for name in node.names)
    elif isinstance(node, ast.Import):
        yield from ((name.name, True) for name in node.names)
    for child in ast.iter_child_nodes(node):
        yield from _imports(child)


def _places(tree: Tree, folder: str, name: str) -> Iterator[str]:
    """The files of a module below a folder: source, package, or compiled."""
    path = f"{folder}/{name.replace('.', '/')}"
    for each in (f"{path}.py", f"{path}/__init__.py"):
        if tree.is_file(each):
            yield each
    above, _, last = path.rpartition("/")
    for each in tree.names(above):
        if each.startswith(f"{last}.") and each.endswith(".so"):
            yield f"{above}/{each}"
