"""What travels in a root: the rooms that run there with what they import, and nothing that isn't there."""

import ast
import gc
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cornerstone.factory.payload import rooms

# what elements/<root>/package-installs.yaml brings besides
PACKAGED = {"hypervisor": set(), "cvm": {"cryptography", "rados", "rbd", "rtslib_fb"}}
SOURCE = Path(__file__).resolve().parents[2] / "src"


def names(source, *chosen):
    return [str(path.relative_to(source / "cornerstone")) for path in rooms.modules(source, chosen)]


def test_what_only_the_factory_uses_stays_at_home():
    travelling = names(SOURCE, "foundation")
    assert {"__init__.py", "foundation/installer/__main__.py", "model/__init__.py",
            "model/contracts/manifest.py"} <= set(travelling)
    assert not {"model/profile/profile.py", "lib/yaml_document.py", "factory/__init__.py"} & set(travelling)


@pytest.mark.parametrize("root", rooms.ROOMS)
def test_what_travels_needs_the_standard_library_and_what_the_root_has(root):
    for path in rooms.modules(SOURCE, rooms.ROOMS[root]):
        for node in ast.walk(ast.parse(path.read_text())):
            found = [node.module] if isinstance(node, ast.ImportFrom) else \
                [name.name for name in node.names] if isinstance(node, ast.Import) else []
            for name in found:
                assert name.partition(".")[0] in sys.stdlib_module_names | {"cornerstone"} | PACKAGED[root], \
                    f"{path}: {name}"


def write(source, **files):
    for name, text in files.items():
        path = source / "cornerstone" / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(("line", "follows"), [
    ("from cornerstone.model.other import name", True),
    ("from cornerstone.model import other", True),
    ("import cornerstone.model.other", True),
    ("def later():\n    from cornerstone.model import other", True),
    ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from cornerstone.model import other", False),
    ("import json, os.path", False),
    ("text = 'from cornerstone.model import other'", False),
])
def test_imports_are_followed(tmp_path, line, follows):
    write(tmp_path, room__here=line, model__other="import json")
    assert ("model/other.py" in names(tmp_path, "room")) == follows


def test_a_package_is_followed_with_its_own_imports_and_circles_end(tmp_path):
    write(tmp_path, room__here="from cornerstone.model.deep import thing")
    for folder, text in ((".", ""), ("model", "from cornerstone.model import side"), ("model/deep", "")):
        at = tmp_path / "cornerstone" / folder / "__init__.py"
        at.parent.mkdir(parents=True, exist_ok=True)
        at.write_text(text)
    write(tmp_path, model__side="from cornerstone.room import here", model__unused="")
    (tmp_path / "cornerstone/model/deep/thing.py").write_text("")
    assert names(tmp_path, "room") == ["__init__.py", "model/__init__.py", "model/deep/__init__.py",
                                       "model/deep/thing.py", "model/side.py", "room/here.py"]


def test_copied_with_their_folders(tmp_path):
    rooms.copy(SOURCE, ("foundation",), tmp_path / "there")
    copied = sorted(path.relative_to(tmp_path / "there") for path in (tmp_path / "there").rglob("*.py"))
    assert copied == [path.relative_to(SOURCE) for path in rooms.modules(SOURCE, ("foundation",))]


def test_a_root_without_rooms_gets_nothing(tmp_path):
    rooms.copy(SOURCE, (), tmp_path / "there")
    assert not (tmp_path / "there").exists()


def test_roots_that_are_built_in_parallel_read_their_modules_in_parallel():
    """Python run by the garbage collector, such as hypothesis's callback, lets another thread in amid a parse."""
    def callback(*_):
        for _ in range(3):
            pass
    thresholds = gc.get_threshold()
    gc.callbacks.append(callback)
    gc.set_threshold(200)
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(3) as pool:
            found = list(pool.map(lambda _: rooms.modules(SOURCE, rooms.ROOMS["cvm"]), range(3)))
    finally:
        sys.setswitchinterval(switch)
        gc.set_threshold(*thresholds)
        gc.callbacks.remove(callback)
    assert found == [found[0]] * 3
