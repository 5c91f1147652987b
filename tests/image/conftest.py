"""The roots inside an ISO, unpacked for testinfra: of the ISO that CORNERSTONE_ISO names, else of profiles built here.

Needs root: unpacking keeps the files' owners, and chroot is root's. What is unpacked lies below the cache and goes when
the last test that wants it has ended.
"""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest
import testinfra
from testinfra.host import Host

from cornerstone.factory.build import build
from cornerstone.factory.iso_image import Extent, Image
from cornerstone.factory.layers import Store
from cornerstone.factory.lock import read_lock
from cornerstone.factory.plan import make_plan
from cornerstone.factory.roots import Disk, copy_disk
from cornerstone.factory.settings import Workspace
from cornerstone.factory.signing import signing_key
from cornerstone.factory.verify import ISO_SETTING, KEY_SETTING, find_key
from cornerstone.model.error import CornerstoneError
from cornerstone.model.event import Event
from cornerstone.model.manifest import CVM, HYPERVISOR, Manifest
from cornerstone.model.profile import load_profile

WORKSPACE = Workspace(Path(__file__).resolve().parents[2])
# one on each Debian suite
PROFILES = ("aos-6.8", "aos-6.7")


@dataclass(frozen=True)
class Product:
    """An ISO with the public key that signed it, and a folder to unpack into.

    layers: the folders of the layers that it was made from, by name, when it was built here; else None.
    """

    iso: Path
    key: Path
    scratch: Path
    layers: dict[str, Path] | None = None

    @cached_property
    def manifest(self) -> Manifest:
        with self.image() as image:
            return image.manifest

    @property
    def suite(self) -> str:
        """The Debian suite of both roots."""
        return self.manifest.profile["reference"]["suite"]

    def image(self) -> contextlib.closing[Image]:
        """The ISO opened, for a with statement."""
        return contextlib.closing(Image(self.iso))

    def content(self, path: str) -> bytes:
        """A file of the ISO."""
        with self.image() as image:
            return image.content(path)

    def place(self, path: str) -> Extent:
        """Where a file is on the ISO."""
        with self.image() as image:
            return image.place(path)


@dataclass(frozen=True)
class Root:
    """An unpacked root: its name, its folder, testinfra's view of it (chroot), and its packages (name: version)."""

    name: str
    path: Path
    host: Host
    packages: dict[str, str]
    product: Product

    def read(self, path: str) -> str:
        return (self.path / path).read_text()

    def run(self, command: str) -> str:
        """The output of a shell command in the root; it must succeed."""
        return self.host.check_output(command)

    def files(self, *below: str) -> Iterator[Path]:
        """All regular files, of the whole root or below some folders; never through a link."""
        for start in [self.path / folder for folder in below] or [self.path]:
            for folder, _, names in os.walk(start):
                for name in names:
                    if stat.S_ISREG((path := Path(folder, name)).lstat().st_mode):
                        yield path

    def short(self, path: Path) -> str:
        """A path as the root itself has it, without the leading slash."""
        return str(path.relative_to(self.path))

    @cached_property
    def kernel(self) -> str:
        """The release of its one kernel."""
        (folder,) = (self.path / "usr/lib/modules").iterdir()
        return folder.name


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every test runs for each product; the session's fixtures make them one after another."""
    if "product" in metafunc.fixturenames:
        named = os.environ.get(ISO_SETTING)
        metafunc.parametrize("product", [named] if named else PROFILES, indirect=True, scope="session",
                             ids=[Path(named).stem] if named else PROFILES)


@pytest.fixture(scope="session")
def product(request: pytest.FixtureRequest, scratch: Path) -> Product:
    named = os.environ.get(ISO_SETTING)
    if named:
        iso = Path(named)
        setting = os.environ.get(KEY_SETTING)
        return Product(iso, find_key(iso, Path(setting) if setting else None), scratch)
    return build_profile(request.param, request.config, scratch)


@pytest.fixture(scope="session")
def isos(request: pytest.FixtureRequest, scratch: Path) -> list[Path]:
    """The ISOs of all PROFILES, for what is about more than one."""
    if ISO_SETTING in os.environ:
        pytest.skip("it takes several ISOs, and one was given")
    return [build_profile(name, request.config, scratch).iso for name in PROFILES]


def build_profile(name: str, config: pytest.Config, scratch: Path) -> Product:
    """Build a profile's ISO; what is built already costs a second. Its steps go to the terminal."""
    capture = config.pluginmanager.getplugin("capturemanager")

    def say(event: Event) -> None:
        if event.state != "progress":
            seconds = f" {event.data['seconds']} s" if event.data and "seconds" in event.data else ""
            with capture.global_and_fixture_disabled():
                print(f"\n{name}: {event.step} {event.state}{seconds} {event.message}".rstrip(), end="", flush=True)
    try:
        profile = load_profile(name, WORKSPACE.root)
        iso = build(WORKSPACE, profile, say)
        plan, store = make_plan(WORKSPACE, profile, signing_key(WORKSPACE.cache)), Store(WORKSPACE.layers)
        layers = {layer.name: store.path(layer) for layer in plan.layers.values()}
        return Product(iso, find_key(iso, None), scratch, layers)
    except CornerstoneError as error:
        pytest.fail(f"profile {name} can't be built: {error}", pytrace=False)


@pytest.fixture(scope="session")
def scratch() -> Iterator[Path]:
    """A folder for what is unpacked, below the cache; it is removed at the end, and so is what a killed run left."""
    if os.geteuid() != 0:
        pytest.fail("unpacking roots needs root: run the image tests with sudo", pytrace=False)
    WORKSPACE.cache.mkdir(parents=True, exist_ok=True)
    for left in WORKSPACE.cache.glob("tmp-verify-*"):
        if not Path("/proc", left.name.rpartition("-")[2]).exists():
            shutil.rmtree(left, ignore_errors=True)
    folder = WORKSPACE.cache / f"tmp-verify-{os.getpid()}"
    # SIGTERM, which ends a job in CI, ends the tests as Ctrl-C does: with their cleaning up
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
        signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def hypervisor(product: Product) -> Iterator[Root]:
    """The hypervisor's root, from its squashfs in its place on the ISO."""
    yield from unpacked("hypervisor", product, product.iso, product.place(HYPERVISOR).start)


@pytest.fixture(scope="session")
def cvm(product: Product, cvm_disk: Disk) -> Iterator[Root]:
    """The CVM's root, from slot A of its disk."""
    yield from unpacked("cvm", product, cvm_disk.path, cvm_disk.partition("root-a").start)


def unpacked(name: str, product: Product, file: Path, offset: int) -> Iterator[Root]:
    # a path of its own for each product: testinfra keeps what it learned of a host by this path
    target = product.scratch / f"{hashlib.sha256(os.fsencode(product.iso)).hexdigest()[:16]}-{name}"
    done = subprocess.run(["unsquashfs", "-quiet", "-no-progress", "-offset", str(offset), "-dest", target, file],
                          capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"the {name} root can't be unpacked into {product.scratch}: {done.stderr.strip()[-500:]}; "
                    "is there room for 2 GiB?", pytrace=False)
    # programs in the chroot want it; the squashfs itself carries no devices
    (target / "dev/null").unlink(missing_ok=True)
    os.mknod(target / "dev/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    try:
        with ascii_name(target) as link:
            yield Root(name, target, testinfra.get_host(str(link), connection="chroot"), packages_of(name, product),
                       product)
    finally:
        shutil.rmtree(target)


@contextlib.contextmanager
def ascii_name(folder: Path) -> Iterator[Path]:
    """A link to a folder by a path without blanks and letters beyond ASCII, whatever the folder's own is.

    testinfra asks a host for its locale by a command with this path, which it can't encode before it knows the locale.
    """
    with tempfile.TemporaryDirectory(prefix="cornerstone-root-", dir="/tmp") as home:
        link = Path(home) / hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
        link.symlink_to(folder.absolute())
        yield link


def packages_of(name: str, product: Product) -> dict[str, str]:
    """What a root's bill of materials beside the ISO names; without one, or for an ISO built here, what its lock does.

    `invoke verify` has checked the bill before.
    """
    bill = product.iso.with_name(f"sbom-{name}.cdx.json")
    if product.layers is None and bill.is_file():
        return {part["name"]: part["version"] for part in json.loads(bill.read_text())["components"] if "purl" in part}
    lock = read_lock(WORKSPACE.locks, name, product.suite)
    if product.manifest.epoch < lock.epoch:
        pytest.fail("versions/locks is newer than this ISO: check out the commit that it was built from, take the "
                    "evidence beside it along, or build again", pytrace=False)
    return {package.name: package.version for package in lock.packages}


@pytest.fixture(params=["hypervisor", "cvm"], scope="session")
def root(request: pytest.FixtureRequest, product: Product) -> Root:
    """Each of the two roots, for what holds in both."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def cvm_disk(product: Product) -> Iterator[Disk]:
    raw = product.scratch / "cvm.raw"
    try:
        yield copy_disk(product.iso, product.place(CVM), raw)
    finally:
        raw.unlink(missing_ok=True)


@pytest.fixture(scope="session")
def public_key(product: Product) -> bytes:
    return product.key.read_bytes()
