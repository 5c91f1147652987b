"""Every program that code, tasks, scripts and tests start comes from a package that the project names.

On the build machine these are debian-packages.txt and what every Debian has; in an image, what its lock names. The
calls are read from the source, and dpkg says which package a program of this machine belongs to.
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

from cornerstone.factory.packages.lock import read_lock

ROOT = Path(__file__).resolve().parents[2]
# Functions whose first argument is a command line.
STARTERS = {"run", "Popen", "check_output", "check_call", "call", "read", "measure", "complaints"}
# Functions of ours whose first argument is a program, or a command line; so are some of other things.
WRAPPERS = {"run", "_run", "_said", "_tool", "tool"}
WORD = r"[a-z][a-z0-9._+-]*"
# For programs that this machine may lack. Where it has them, dpkg is asked too, and has to say the same.
PACKAGES = {
    "virsh": "libvirt-clients", "chronyc": "chrony", "efibootmgr": "efibootmgr", "dmsetup": "dmsetup",
    "systemctl": "systemd",
    "curl": "curl", "ssh": "openssh-client", "ssh-keygen": "openssh-client", "ipmi_sim": "openipmi",
    "ipmitool": "ipmitool", "sgdisk": "gdisk", "softhsm2-util": "softhsm2", "mmdebstrap": "mmdebstrap",
    "python3": "python3", "pip": "python3-venv", "apt-ftparchive": "apt-utils", "dpkg-scanpackages": "dpkg-dev",
}
# Where nothing has to be installed: python3 is what README asks for, and apt is what installs the rest.
GIVEN = {"apt", "python3", "python3-minimal"}
# Peers that the benchmark measures, and a helper that explains a difference, where a machine has them.
OPTIONAL = {"lb", "mkosi", "build", "diffoscope"}
# Programs of diskimage-builder, which requirements.lock installs into .venv.
OF_VENV = {"disk-image-create"}
# Words in lists that are no programs, but are called like one; and a program that is to be missing.
NO_PROGRAMS = {"node", "size", "file", "init", "no-such-tool", "hostnamectl"}
# Rooms whose code runs in an image, by the root that they travel in.
ROOTS = {"cvm": "cvm", "hypervisor": "hypervisor", "foundation": "hypervisor"}

# Tiers whose tests start programs in a root, a container or a node, too.
INSIDE = ("engine", "image", "node")


def words_of(tree: ast.AST) -> Iterator[tuple[str, bool]]:
    """The first word of every list, and whether it is surely a program: a command line that is started."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name == "which" and node.args and isinstance(node.args[0], ast.Constant):
                yield str(node.args[0].value), True
            if name in STARTERS and node.args and isinstance(node.args[0], ast.List):
                yield from ((word, True) for word in first_word(node.args[0]))
            elif name in WRAPPERS and node.args:
                yield from ((word, False) for word in first_word(node.args[0]))
        elif isinstance(node, ast.List):
            yield from ((word, False) for word in first_word(node))


def first_word(words: ast.expr) -> Iterator[str]:
    """The first word of a list or tuple behind what stands for several words, or the one word."""
    for word in words.elts if isinstance(words, (ast.List, ast.Tuple)) else [words]:
        if not isinstance(word, ast.Starred):
            if isinstance(word, ast.Constant) and isinstance(word.value, str):
                yield word.value
            return


def started(files: Iterable[Path]) -> dict[str, set[str]]:
    """The programs that Python files start, each with the files."""
    found = defaultdict(set)
    for path in files:
        for word, sure in words_of(ast.parse(path.read_text(encoding="utf-8"))):
            if re.fullmatch(WORD, word) and word not in OPTIONAL | OF_VENV | NO_PROGRAMS and (
                    sure or find(word) or word in PACKAGES):
                found[word].add(str(path.relative_to(ROOT)))
    return found


def scripted(files: Iterable[Path]) -> dict[str, set[str]]:
    """The programs of this machine that stand at the head of a command in shell scripts, each with the files."""
    found = defaultdict(set)
    for path in files:
        text = re.sub(r"(?m)(^|\s)#.*$|'[^'\n]*'", "", path.read_text(encoding="utf-8"))
        functions = set(re.findall(rf"(?m)^\s*({WORD})\(\)", text))
        for word in re.findall(rf"(?m)(?:^|[|;&(]|\bdo|\bthen|\belse|!)\s*({WORD})(?=[\s;)]|$)", text):
            if word not in functions | NO_PROGRAMS and find(word):
                found[word].add(str(path.relative_to(ROOT)))
    return found


def find(program: str) -> str | None:
    return shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin")


@cache
def owners() -> dict[str, str]:
    """The package of each installed file, as dpkg -S tells it, which reads the same lists anew for every question."""
    return {line: lists.name.removesuffix(".list").partition(":")[0]
            for lists in Path("/var/lib/dpkg/info").glob("*.list")
            for line in lists.read_text(encoding="utf-8", errors="replace").splitlines() if "bin/" in line}


@cache
def package_of(program: str) -> str | None:
    """The package that a program belongs to, by dpkg or by the table; None when neither knows."""
    path = find(program)
    names = (path, path.replace("/usr/", "/", 1), f"/usr{path}", str(Path(path).resolve())) if path else ()
    found = next((owners()[name] for name in names if name in owners()), None)
    if found and program in PACKAGES:
        # python3 is a link into another package, and the like
        assert found == PACKAGES[program] or program in ("python3", "pip"), (program, found)
    return found or PACKAGES.get(program)


@cache
def named() -> frozenset[str]:
    """The packages that the build machine has: ours, those of every Debian, and the given ones."""
    lines = [line.partition("#")[0] for line in (ROOT / "debian-packages.txt").read_text().splitlines()]
    essential = subprocess.run(["dpkg-query", "-W", "-f", "${Essential} ${Package}\n"], capture_output=True, text=True,
                               check=True).stdout
    return frozenset(word for line in lines for word in line.replace("|", " ").split()) | GIVEN | frozenset(
        line.removeprefix("yes ") for line in essential.splitlines() if line.startswith("yes "))


def locked(root: str) -> frozenset[str]:
    """The packages of a root."""
    return frozenset(package.name for package in read_lock(ROOT / "versions" / "locks", root, "trixie").packages)


def strangers(found: dict[str, set[str]], known: Iterable[str]) -> dict[str, tuple[str | None, list[str]]]:
    """The programs of packages that aren't known, or of no package, with package and files."""
    return {word: (package_of(word), sorted(files)) for word, files in found.items() if package_of(word) not in known}


def python_files(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def room_of(path: Path) -> str:
    return path.relative_to(ROOT / "src" / "cornerstone").parts[0]


dpkg = pytest.mark.skipif(not shutil.which("dpkg-query"), reason="only dpkg knows what belongs to which package")


@dpkg
def test_t58_every_program_of_the_build_machine_belongs_to_a_named_package():
    here = [path for path in python_files("src") if room_of(path) not in ROOTS]
    tests = [path for path in python_files("tests") if path.relative_to(ROOT / "tests").parts[0] not in INSIDE]
    found = started([*here, ROOT / "tasks.py", *tests])
    assert {"git", "mksquashfs", "ssh-keygen", "curl", "qemu-img", "unshare"} <= found.keys(), "the reading is broken"
    assert strangers(found, named()) == {}


@dpkg
@pytest.mark.parametrize("room", ROOTS)
def test_t58_every_program_of_an_image_is_named_or_locked(room):
    found = started(path for path in python_files("src") if room_of(path) == room)
    assert found, "the reading is broken"
    assert strangers(found, named() | locked(ROOTS[room])) == {}


@dpkg
@pytest.mark.parametrize("tier", INSIDE)
def test_t58_every_program_of_tests_inside_an_image_is_named_or_locked(tier):
    found = started(python_files(f"tests/{tier}"))
    assert found, "the reading is broken"
    assert strangers(found, named() | locked("cvm") | locked("hypervisor")) == {}


@dpkg
def test_t58_every_program_of_our_scripts_belongs_to_a_named_package():
    phases = ("root.d", "extra-data.d", "pre-root.d", "block-device.d", "post-root.d", "cleanup.d")
    scripts = [ROOT / "invoke", ROOT / ".ci" / "run", ROOT / "tests" / "fresh-machine",
               *(path for phase in phases for path in sorted((ROOT / "elements").glob(f"*/{phase}/*")))]
    found = scripted(scripts)
    assert {"flock", "sha256sum", "mmdebstrap", "git"} <= found.keys(), "the reading is broken"
    assert strangers(found, named()) == {}


@dpkg
def test_t58_a_program_of_no_named_package_is_found(tmp_path):
    tree = ast.parse("import subprocess\nsubprocess.run(['dmesg', '-T'])\nargv = ['no-such-program-of-mine']\n"
                     "subprocess.run([*GUARD, 'no-such-program', 'x'])\nshutil.which('apt-get')\n")
    assert [word for word, sure in words_of(tree) if sure] == ["dmesg", "no-such-program", "apt-get"]
    assert strangers({"no-such-program": {"x.py"}}, named()) == {"no-such-program": (None, ["x.py"])}
