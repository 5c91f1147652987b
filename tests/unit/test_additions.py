"""What a profile adds to a root: which files are taken, what moves with them, and that nothing moves without them."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from cornerstone.factory.build.plan import make_plan
from cornerstone.factory.packages import elements
from cornerstone.factory.packages.lock import lock_path, read_lock
from cornerstone.factory.payload import additions
from cornerstone.factory.payload.render import ipxe_script, menus
from cornerstone.factory.settings import Workspace
from cornerstone.factory.signing.signing import signing_key
from cornerstone.factory.store.code import PREFIX, ROOMS
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.model.profile.additions import MOST_FILES, OURS, Additions, Entry, Tree, read_tree
from cornerstone.model.profile.profile import load_profile
from small_iso import IDENTITY, PROFILE

ROOT = Path(__file__).resolve().parents[2]
HOOK = ROOT / "elements" / "additions" / "install.d" / "05-additions"
BASE = 'extends: base\naos: "6.8"\nahv: "20230302.100173"\n'


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder `added` with a file, a program and a link."""
    for path, content in (("etc/site.d/words", "of this site\n"), ("usr/bin/show", "#!/bin/sh\n")):
        (tmp_path / "added" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "added" / path).write_text(content)
    (tmp_path / "added/usr/bin/show").chmod(0o700)
    (tmp_path / "added/usr/bin/node").symlink_to("../bin/show")
    return tmp_path / "added"


def read(folder: Path) -> Tree:
    return read_tree(folder, folder.parent)


# which files

def test_a_tree_is_read_as_names_kinds_and_contents(folder):
    assert [(entry.path, entry.kind) for entry in read(folder).entries] == [
        ("etc/site.d/words", "file"), ("usr/bin/node", "link"), ("usr/bin/show", "program")]
    assert read(folder).entries[1] == Entry("usr/bin/node", "link", "../bin/show")


CHANGES = {
    "content": lambda folder: (folder / "etc/site.d/words").write_text("others\n"),
    "name": lambda folder: (folder / "etc/site.d/words").rename(folder / "etc/site.d/word"),
    "executable": lambda folder: (folder / "usr/bin/show").chmod(0o600),
    "link": lambda folder: ((folder / "usr/bin/node").unlink(), (folder / "usr/bin/node").symlink_to("show")),
    "gone": lambda folder: (folder / "usr/bin/node").unlink(),
    "new": lambda folder: (folder / "etc/new").touch(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_the_sha256_of_a_tree_changes_with(folder, change):
    before = read(folder).sha256
    change(folder)
    assert read(folder).sha256 != before


def test_the_sha256_of_a_tree_does_not_change_with_place_time_umask_or_empty_folders(folder, tmp_path):
    before = read(folder)
    other = tmp_path / "elsewhere"
    shutil.copytree(folder, other, symlinks=True)
    (other / "usr/empty").mkdir()
    for path in other.rglob("*"):
        os.utime(path, (1, 1), follow_symlinks=False)
        if path.is_file() and not path.is_symlink():
            path.chmod(path.stat().st_mode & 0o100 | 0o666)
    assert read(other).sha256 == before.sha256 and read(other) == before


def put(folder: Path, path: str, content: str = "x") -> Path:
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_text(content)
    return folder / path


def link(folder: Path, path: str, target: str) -> None:
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).symlink_to(target)


def bind(path: Path) -> None:
    """A socket at a path of any length."""
    here = os.open(path.parent, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(f"/proc/self/fd/{here}/{path.name}")
    os.close(here)


FAULTS = {
    "setuid": (lambda folder: put(folder, "usr/bin/su2").chmod(0o4755), "'usr/bin/su2' would run with another's"),
    "setgid": (lambda folder: put(folder, "usr/bin/su2").chmod(0o2755), "'usr/bin/su2' would run with another's"),
    "pipe": (lambda folder: os.mkfifo(folder / "etc/pipe"), "'etc/pipe' is neither a file nor a link"),
    "socket": (lambda folder: bind(folder / "etc/socket"), "'etc/socket' is neither a file nor a link"),
    "absolute link": (lambda folder: link(folder, "etc/a", "/etc/passwd"), "'/etc/passwd', which isn't relative"),
    "link out": (lambda folder: link(folder, "etc/a", "../../x"), "the link 'etc/a' leads out of the root: '../../x'"),
    "merged": (lambda folder: put(folder, "lib/firmware/a.bin"), "/lib is a link to /usr/lib in a root"),
    "var": (lambda folder: put(folder, "var/lib/a"), "'var/lib/a' can't be laid over a root"),
    "top": (lambda folder: put(folder, "readme"), "'readme' can't be laid over a root"),
    "file as top": (lambda folder: put(folder, "srv"), "'srv' can't be laid over a root"),
    "unprintable": (lambda folder: put(folder, "etc/a\nb"), r"'etc/a\nb' isn't printable UTF-8"),
    "not UTF-8": (lambda folder: (folder / "etc" / os.fsdecode(b"\xff")).touch(), "isn't printable UTF-8"),
    "private key": (lambda folder: put(folder, "etc/key", f"-----BEGIN {'PRIVATE'} KEY-----\n"), "holds a private key"),
    "host key": (lambda folder: put(folder, "etc/ssh/ssh_host_rsa_key"), "a machine's own"),
    **{path: (lambda folder, path=path: put(folder, path), f"'{path}' is Cornerstone's own or a machine's own")
       for path in OURS},
    "below ours": (lambda folder: put(folder, "usr/lib/cornerstone/cornerstone/x.py"), "is Cornerstone's own"),
}


@pytest.mark.parametrize(("make", "words"), FAULTS.values(), ids=FAULTS.keys())
def test_a_file_that_cant_be_taken_is_named(folder, make, words):
    make(folder)
    with pytest.raises(CornerstoneError) as caught:
        read(folder)
    assert words in caught.value.message and caught.value.hint and caught.value.code is Code.INPUT
    assert caught.value.message.isprintable()


def test_a_device_cant_be_taken(folder):
    try:
        os.mknod(folder / "etc/null", 0o20666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("takes root")
    with pytest.raises(CornerstoneError, match="'etc/null' is neither a file nor a link"):
        read(folder)


def test_a_folder_that_is_a_link_elsewhere_is_refused(folder, tmp_path):
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles/added").symlink_to(folder)
    with pytest.raises(CornerstoneError, match="a link leads out of the profile's folder"):
        read_tree(tmp_path / "profiles/added", tmp_path / "profiles")


def test_a_link_to_a_folder_is_a_link_and_never_followed(folder, tmp_path):
    put(tmp_path, "outside/secret")
    link(folder, "usr/share/site", "../../etc/site.d")
    assert Entry("usr/share/site", "link", "../../etc/site.d") in read(folder).entries
    link(folder, "usr/share/out", "../../../outside")
    with pytest.raises(CornerstoneError, match="leads out of the root"):
        read(folder)


def test_a_tree_without_files_and_one_with_too_many_are_refused(tmp_path, monkeypatch):
    (tmp_path / "added/etc").mkdir(parents=True)
    with pytest.raises(CornerstoneError, match="holds no files"):
        read(tmp_path / "added")
    monkeypatch.setattr("cornerstone.model.profile.additions.MOST_FILES", 3)
    assert MOST_FILES >= 1000
    for number in range(4):
        put(tmp_path / "added", f"etc/{number}")
    with pytest.raises(CornerstoneError, match="more than 3 files"):
        read(tmp_path / "added")


def test_an_error_in_a_tree_has_the_line_of_the_profile_that_names_it(checkout):
    put(checkout.root / "profiles", "added/dev/null")
    write(checkout, "parent", "hypervisor:\n  extra:\n    files: added\n")
    (checkout.root / "profiles/mine.yaml").write_text("extends: parent\n")
    with pytest.raises(CornerstoneError, match=r"^profiles/parent\.yaml:6: \.hypervisor\.extra\.files: 'added': 'dev/"):
        load_profile("mine", checkout.root)


def test_a_profile_named_after_a_suite_has_no_packages(checkout):
    write(checkout, "trixie", "hypervisor: {extra: {packages: [tree]}}\n")
    with pytest.raises(CornerstoneError, match=r"trixie\.yaml:4: \.hypervisor\.extra\.packages: the lock of"):
        load_profile("trixie", checkout.root)


def test_additions_are_inherited_key_by_key_and_files_stay_beside_the_one_that_names_them(checkout, tmp_path):
    put(checkout.root / "profiles", "added/etc/a")
    write(checkout, "parent", "hypervisor: {extra: {packages: [pv], files: added, kernel_arguments: [quiet]}}\n"
                              "cvm: {extra: {packages: [tree]}}\n")
    child = put(tmp_path, "elsewhere/child.yaml",
                "extends: parent\nhypervisor: {extra: {packages: [], kernel_arguments: [nosmt]}}\n"
                "cvm: {memory: 6 GiB, extra: {}}\n")
    profile = load_profile(str(child), checkout.root)
    assert profile.hypervisor.extra.resolved() == {
        "files": read(checkout.root / "profiles/added").sha256, "kernel_arguments": ["nosmt"]}
    assert profile.cvm.extra == Additions(("tree",))
    assert profile.argument == str(child) and load_profile("parent", checkout.root).argument == "parent"


# what moves with them

@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Workspace:
    """A checkout with our elements and suites' locks, a room for each root, and the profiles that a test writes."""
    monkeypatch.delenv("CORNERSTONE_CACHE", raising=False)
    monkeypatch.delenv("CORNERSTONE_SIGNING_KEY", raising=False)
    root = tmp_path / "checkout"
    (root / "profiles").mkdir(parents=True)
    shutil.copy(ROOT / "profiles/base.yaml", root / "profiles")
    shutil.copytree(ROOT / "versions", root / "versions")
    (root / "elements").symlink_to(ROOT / "elements")
    for room in ("foundation", "cvm"):
        put(root, f"src/cornerstone/{room}/__init__.py", "")
    return Workspace(root)


def write(checkout: Workspace, name: str, text: str) -> None:
    (checkout.root / "profiles" / f"{name}.yaml").write_text(BASE + text)


def lock_with(checkout: Workspace, root: str, name: str, *packages: str) -> None:
    """Write the lock of a profile: the suite's, as if apt had answered that the packages add nothing."""
    suite = read_lock(checkout.locks, root, "trixie")
    own = replace(suite, requests=tuple(sorted({*suite.requests, *packages})), profile=name)
    lock_path(checkout.locks, root, "trixie", name).write_text(own.text())


def planned(checkout: Workspace, name: str):
    return make_plan(checkout, load_profile(name, checkout.root), signing_key(checkout.cache))


def keys(plan) -> dict[str, str]:
    return {name: layer.key for name, layer in plan.layers.items()} | {"iso": str(sorted(plan.iso_inputs.items()))}


HYPERVISOR_LAYERS = {"hypervisor", "hypervisor-boot", "efi-image", "netboot-initrd"}
MOVES = {
    "hypervisor packages": ("hypervisor: {extra: {packages: [tree]}}",
                            {"hypervisor-packages", "netboot-drivers", *HYPERVISOR_LAYERS}),
    "hypervisor files": ("hypervisor: {extra: {files: added}}", HYPERVISOR_LAYERS),
    "hypervisor arguments": ("hypervisor: {extra: {kernel_arguments: [nosmt]}}", set()),
    "cvm packages": ("cvm: {extra: {packages: [tree]}}", {"cvm-packages", "cvm", "cvm-boot", "cvm-disk"}),
    "cvm files": ("cvm: {extra: {files: added}}", {"cvm", "cvm-boot", "cvm-disk"}),
    "cvm arguments": ("cvm: {extra: {kernel_arguments: [nosmt]}}", {"cvm-disk"}),
    "none": ("hypervisor: {extra: {}}\ncvm: {extra: {packages: [], kernel_arguments: []}}", None),
}


@pytest.mark.parametrize(("text", "moved"), MOVES.values(), ids=MOVES.keys())
def test_each_addition_moves_the_keys_of_what_is_made_from_it_and_no_other(checkout, text, moved):
    put(checkout.root / "profiles", "added/etc/a")
    write(checkout, "mine", "")
    before = keys(planned(checkout, "mine"))
    write(checkout, "mine", text)
    for root in elements.ROOTS:
        lock_with(checkout, root, "mine", "tree")
    after = keys(planned(checkout, "mine"))
    assert {name for name in before if before[name] != after[name]} == (set() if moved is None else moved | {"iso"})


def besides_code(layer) -> set[str]:
    return {name for name in layer.inputs if not name.startswith((PREFIX, ROOMS))}


def test_a_profile_without_additions_has_no_input_of_theirs(checkout):
    """So its keys are those of a factory that knows of none."""
    write(checkout, "mine", "")
    plan = planned(checkout, "mine")
    tools = {f"tool {name}" for name in ("mmdebstrap", "squashfs-tools", "apt-utils")}
    for root in elements.ROOTS:
        assert besides_code(plan.layers[f"{root}-packages"]) == {"lock", *tools}
        assert besides_code(plan.layers[root]) == {"elements", "public key", "diskimage-builder",
                                                   "tool squashfs-tools"}
    assert besides_code(plan.layers["cvm-disk"]) == {"disk size", "root slot size", *(
        f"tool {name}" for name in ("dosfstools", "mtools", "e2fsprogs", "qemu-utils"))}
    assert "extra" not in plan.iso_inputs["profile"]
    assert "additions" not in {name for root in elements.ROOTS for name in elements.closure(checkout.elements, root)}


def test_a_change_of_one_file_moves_the_root(checkout):
    file = put(checkout.root / "profiles", "added/etc/a")
    write(checkout, "mine", "hypervisor: {extra: {files: added}}")
    before = keys(planned(checkout, "mine"))
    file.write_text("y")
    after = keys(planned(checkout, "mine"))
    assert {name for name in before if before[name] != after[name]} == {
        "hypervisor", "hypervisor-boot", "efi-image", "netboot-initrd", "iso"}


@pytest.mark.parametrize(("path", "packaged"), [("usr/lib/firmware/x.bin", False), ("usr/lib/modules/6.1/x.ko", False),
                                                ("usr/lib/modules-load.d/x.conf", True)])
def test_drivers_of_a_profile_are_in_the_archive_for_network_boots(checkout, path, packaged):
    put(checkout.root / "profiles", f"added/{path}")
    write(checkout, "mine", "hypervisor: {extra: {files: added}}")
    source, = planned(checkout, "mine").layers["netboot-drivers"].needs
    assert source.name == ("hypervisor-packages" if packaged else "hypervisor")


def test_a_profile_reads_its_own_lock_or_says_what_to_run(checkout):
    write(checkout, "mine", "hypervisor: {extra: {packages: [tree]}}")
    with pytest.raises(CornerstoneError) as caught:
        planned(checkout, "mine")
    assert caught.value.message.endswith("mine-hypervisor.lock is missing: the hypervisor root, to which profile mine "
                                         "adds packages, has no locked packages for trixie")
    assert caught.value.hint == "run: ./invoke lock --profile mine"
    lock_with(checkout, "hypervisor", "mine", "tree")
    plan = planned(checkout, "mine")
    assert {name: lock.profile for name, lock in plan.locks.items()} == {"hypervisor": "mine", "cvm": ""}

    write(checkout, "mine", "hypervisor: {extra: {packages: [pv]}}")
    with pytest.raises(CornerstoneError) as caught:
        planned(checkout, "mine")
    assert caught.value.message == (
        "the lock of the hypervisor root (trixie) doesn't fit the elements and profile mine; "
        "asked for and not locked: pv; locked and no longer asked for: tree")
    assert caught.value.hint == "run: ./invoke lock --profile mine --update"


def test_the_lock_of_another_profile_is_refused(checkout):
    write(checkout, "mine", "hypervisor: {extra: {packages: [tree]}}")
    lock_with(checkout, "hypervisor", "theirs", "tree")
    locks = checkout.locks
    lock_path(locks, "hypervisor", "", "theirs").rename(lock_path(locks, "hypervisor", "", "mine"))
    with pytest.raises(CornerstoneError, match="is a lock of profile theirs; needed is one of profile mine"):
        planned(checkout, "mine")


def test_a_profile_elsewhere_is_named_by_its_path_in_the_command(checkout, tmp_path):
    path = put(tmp_path, "my profiles/mine.yaml", f"{BASE}hypervisor: {{extra: {{packages: [tree]}}}}\n")
    with pytest.raises(CornerstoneError) as caught:
        make_plan(checkout, load_profile(str(path), checkout.root), signing_key(checkout.cache))
    assert caught.value.hint == f"run: ./invoke lock --profile '{path}'"


# how they get there

def test_the_menus_have_the_arguments_and_without_any_are_as_they_were():
    plain = menus(IDENTITY, PROFILE, "development")
    assert plain == menus(IDENTITY, PROFILE, "development", ())
    for path, menu in menus(IDENTITY, PROFILE, "development", ("pci=noaer", "nosmt")).items():
        assert menu == plain[path].replace(b" audit=0 $", b" audit=0 pci=noaer nosmt $")
        assert menu != plain[path]


def test_the_script_for_the_network_has_the_arguments():
    plain, more = (ipxe_script(IDENTITY, PROFILE, "development", "a" * 64, given)
                   for given in ((), ("pci=noaer", "nosmt")))
    assert more == plain.replace(" audit=0 $", " audit=0 pci=noaer nosmt $") != plain


@pytest.mark.parametrize(("path", "owner"), [
    ("etc/multipath.conf", "hypervisor"), ("usr/bin/foundation/x", "foundation"), ("etc/ssh/sshd_config.d", "base")])
def test_a_file_in_the_place_of_an_elements_file_is_named(tmp_path, path, owner):
    tree = read(put(tmp_path, f"added/{path}") and tmp_path / "added")
    with pytest.raises(CornerstoneError) as caught:
        additions.inputs(Workspace(ROOT), "hypervisor", Additions(files=tree))
    assert caught.value.message.endswith(f": {path} would take the place of a file of the element {owner}")


def test_the_elements_of_another_root_are_not_asked(tmp_path):
    tree = read(put(tmp_path, "added/etc/multipath.conf") and tmp_path / "added")
    assert additions.inputs(Workspace(ROOT), "cvm", Additions(files=tree))["extra files"] == tree.sha256


def test_a_root_with_files_is_made_from_its_elements_and_one_more(folder, checkout):
    workspace = replace(checkout, build="build-1")
    extra = Additions(files=read(folder), replace=("usr/bin/show",))
    with additions.laid(workspace, "cvm", extra) as laid:
        names = elements.closure(ROOT / "elements", "cvm")
        assert sorted(path.name for path in laid.elements.iterdir()) == sorted([*names, "additions"])
        assert set((laid.elements / "cvm/element-deps").read_text().split()) == {
            *(ROOT / "elements/cvm/element-deps").read_text().split(), "additions"}
        own = laid.elements / "additions"
        assert {str(path.relative_to(own / "static")): path.stat().st_mode & 0o7777
                for path in (own / "static").rglob("*") if path.is_file() and not path.is_symlink()} == {
            "etc/site.d/words": 0o644, "usr/bin/show": 0o755}
        assert str((own / "static/usr/bin/node").readlink()) == "../bin/show"
        assert (own / "additions/files").read_text() == "etc/site.d/words\nusr/bin/node\nusr/bin/show\n"
        assert (own / "additions/replace").read_text() == "usr/bin/show\n"
        assert os.access(own / "install.d/05-additions", os.X_OK)
        assert (laid.source, laid.pool, laid.temporary) == (workspace.source, workspace.pool, workspace.temporary)
    assert not laid.elements.exists()


def test_without_files_the_elements_are_the_checkouts(checkout):
    with additions.laid(checkout, "cvm", Additions(("tree",), kernel_arguments=("quiet",))) as laid:
        assert laid is checkout


def test_files_that_change_after_the_plan_are_refused(folder, checkout):
    extra = Additions(files=read(folder))
    put(folder, "etc/site.d/words", "others")
    with pytest.raises(CornerstoneError, match="was changed while the root was made"), \
            additions.laid(checkout, "cvm", extra):
        pass
    assert not list(checkout.temporary.glob("elements-*"))


# the hook, in a root that is this machine's with other /opt and /srv

PREPARE = """
mount -t tmpfs none /opt && mount -t tmpfs none /srv && mkdir -p /opt/folder /srv/real || exit 9
echo theirs >/opt/there; ln -s /srv/real /opt/link; echo kept >/srv/real/file
"$1"
status=$?
cat /opt/there 2>/dev/null
[ -e /srv/real/file ] && [ -L /opt/link ] && echo untouched
exit $status
"""


def run_hook(tmp_path: Path, files: list[str], replace: list[str]) -> subprocess.CompletedProcess:
    if os.geteuid():
        pytest.skip("a mount namespace takes root")
    hook = tmp_path / "hooks/install.d/05-additions"
    hook.parent.mkdir(parents=True)
    shutil.copy(HOOK, hook)
    for name, paths in (("files", files), ("replace", replace)):
        put(tmp_path, f"hooks/additions/{name}", "".join(f"{path}\n" for path in paths))
    return subprocess.run(["unshare", "--mount", "sh", "-c", PREPARE, "-", hook], capture_output=True, text=True,
                          check=False)


@pytest.mark.parametrize(("path", "replaced", "said"), [
    ("opt/there", False, "opt/there is there already"),
    ("opt/link", False, "opt/link is there already"),
    ("etc/debian_version", False, "etc/debian_version is there already, from the package base-files"),
    ("opt/link/file2", False, "opt/link/file2 lies below opt/link, a link to /srv/real"),
    ("opt/there/below", False, "opt/there/below lies below opt/there, a file"),
    ("opt/folder", True, "opt/folder is a folder, and a file can't replace it"),
    ("opt/nothing", True, "opt/nothing isn't there, so there is nothing to replace"),
])
def test_the_hook_refuses(tmp_path, path, replaced, said):
    done = run_hook(tmp_path, ["opt/new", path], [path] * replaced)
    assert (done.returncode, done.stderr) == (1, f"additions: {said}\n")
    assert done.stdout == "theirs\nuntouched\n"


def test_the_hook_takes_away_what_is_replaced_and_nothing_else(tmp_path):
    done = run_hook(tmp_path, ["opt/folder/new", "opt/there", "opt/new"], ["opt/there"])
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "untouched\n")


def test_a_refusal_of_the_hook_is_the_builds_error(tmp_path):
    error, log = CornerstoneError("disk-image-create failed", "run it by hand", Code.STEP), tmp_path / "log"
    assert additions.explained(error, log, "cvm") is error
    stamp = time.strftime("%Y-%m-%d %H:%M:%S.000")
    log.write_text(f"{stamp} | a\nadditions: etc/a is there already\n{stamp} | additions: usr/b is there already\n")
    better = additions.explained(error, log, "cvm")
    assert better.message == ("files of .cvm.extra don't fit the cvm root: etc/a is there already; "
                              "usr/b is there already")
    assert ".cvm.extra.replace" in better.hint and better.code is Code.STEP
    log.write_text("nothing of ours\n")
    assert additions.explained(error, log, "cvm") is error
