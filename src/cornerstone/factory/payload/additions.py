"""A profile's files for a root, as one more element beside those of the checkout.

Its static tree is laid over the root by the same hook, and by the same rules, as those of all elements. The element is
in a root only when a profile brings files; else the root is made from the checkout's elements as they are.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cornerstone.factory.packages import elements
from cornerstone.factory.settings import Workspace
from cornerstone.lib.error import CornerstoneError
from cornerstone.model.profile.additions import Additions, Tree, read_tree

ELEMENT = "additions"
# what the element's hook says of a file that it refuses
REFUSED = re.compile(r"^(?:.* \| )?additions: (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class WithElements(Workspace):
    """A workspace whose elements lie in a folder of their own."""

    folder: Path = Path()

    @property
    def elements(self) -> Path:
        return self.folder


def inputs(workspace: Workspace, root: str, additions: Additions) -> dict[str, str]:
    """Return the inputs of a root's layer that come from a profile's files; none when it brings no files.

    Raises CornerstoneError when one of them would take the place of an element's file.
    """
    if additions.files is None:
        return {}
    require_apart(workspace.elements, root, additions.files)
    return {"extra files": additions.files.sha256, "extra files that replace": " ".join(additions.replace),
            "extra files laid by": elements.tree_digest([workspace.elements / ELEMENT], workspace.elements),
            "extra files code": hashlib.sha256(Path(__file__).read_bytes()).hexdigest()}


def require_apart(folder: Path, root: str, tree: Tree) -> None:
    """Raise CornerstoneError when a file of the tree would be where a root's elements have one of theirs."""
    ours: dict[str, str] = {}
    folders: dict[str, str] = {}
    for name in elements.closure(folder, root):
        static = folder / name / "static"
        for path in static.rglob("*"):
            kind = folders if path.is_dir() and not path.is_symlink() else ours
            kind[str(path.relative_to(static))] = name
    for entry in tree.entries:
        above = [str(path) for path in Path(entry.path).parents]
        if owner := next((ours[path] for path in (entry.path, *above) if path in ours), folders.get(entry.path)):
            raise CornerstoneError(f"{tree.folder}: {entry.path} would take the place of a file of the element {owner}",
                                   "take it out; most settings can be added in a folder NAME.d beside that file")


@contextmanager
def laid(workspace: Workspace, root: str, additions: Additions) -> Iterator[Workspace]:
    """The workspace from which a root with these additions is built, as long as the block runs.

    Raises CornerstoneError when the files aren't those that were read for the plan, or when the root has one of them
    already.
    """
    tree = additions.files
    if tree is None:
        yield workspace
        return
    folder = workspace.temporary / f"elements-{root}"
    try:
        copy_elements(workspace.elements, folder, root, tree, additions.replace)
        yield WithElements(workspace.root, workspace.build, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def copy_elements(source: Path, folder: Path, root: str, tree: Tree, replace: tuple[str, ...]) -> None:
    """Copy the elements of a root and that of the additions, with the tree and its lists, into a new folder."""
    for name in (*elements.closure(source, root), ELEMENT):
        shutil.copytree(source / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    own = folder / ELEMENT
    for entry in tree.entries:
        path = own / "static" / entry.path
        path.parent.mkdir(parents=True, exist_ok=True)
        if entry.kind == "link":
            path.symlink_to(entry.content)
        else:
            shutil.copyfile(tree.folder / entry.path, path, follow_symlinks=False)
            path.chmod(0o755 if entry.kind == "program" else 0o644)
    if read_tree(own / "static", own) != tree:
        raise CornerstoneError(f"{tree.folder} was changed while the root was made", "build again")
    lists = own / "additions"
    lists.mkdir()
    (lists / "files").write_text("".join(f"{entry.path}\n" for entry in tree.entries))
    (lists / "replace").write_text("".join(f"{path}\n" for path in replace))
    deps = folder / elements.ROOTS[root][0] / "element-deps"
    names = deps.read_text().split() if deps.is_file() else []
    deps.write_text("".join(f"{name}\n" for name in (*names, ELEMENT)))


def explained(error: CornerstoneError, log: Path, root: str) -> CornerstoneError:
    """The error of a failed build of a root, or a better one when it failed by a file of the additions."""
    said = REFUSED.findall(log.read_text(errors="replace")) if log.is_file() else []
    if not said:
        return error
    key = root
    return CornerstoneError(f"files of .{key}.extra don't fit the {root} root: {'; '.join(dict.fromkeys(said))}",
                            f"take them out, or name those that shall take the place of a package's in "
                            f".{key}.extra.replace; whole log: {log}", error.code)
