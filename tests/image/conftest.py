"""The roots inside an ISO, read for tests: of the ISO that CORNERSTONE_ISO names, else of profiles built here.

An ISO is data: nothing of it is run, mounted or unpacked, and looking needs no root's rights (building does). What
must be run to be tested is in tests/sandbox.
"""

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

from cornerstone.customize.iso_image import Extent, Image
from cornerstone.factory.build.build import build
from cornerstone.factory.build.plan import make_plan
from cornerstone.factory.diff.packages import STATUS, versions
from cornerstone.factory.inspection.roots import Disk, copy_disk
from cornerstone.factory.inspection.tree import Tree, read_tree
from cornerstone.factory.inspection.units import Units
from cornerstone.factory.packages.lock import read_lock
from cornerstone.factory.settings import Workspace
from cornerstone.factory.signing.signing import signing_key
from cornerstone.factory.store.layers import Store
from cornerstone.factory.verify.evidence_checks import MOST
from cornerstone.factory.verify.verify import ISO_SETTING, KEY_SETTING, find_key
from cornerstone.lib.error import CornerstoneError
from cornerstone.lib.event import Event
from cornerstone.lib.json_text import read_bounded, read_json
from cornerstone.model.contracts.manifest import CVM, HYPERVISOR, Manifest
from cornerstone.model.profile.profile import load_profile

WORKSPACE = Workspace(Path(__file__).resolve().parents[2])
# one on each Debian suite
PROFILES = ("aos-6.8", "aos-6.7")


@dataclass(frozen=True)
class Product:
    """An ISO with the public key that signed it, and a folder to read into.

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
    """A root as data: its name, what it holds, its systemd units, and the packages that it should have by version."""

    name: str
    tree: Tree
    packages: dict[str, str]
    product: Product

    @cached_property
    def units(self) -> Units:
        return Units(self.tree)

    @cached_property
    def installed(self) -> dict[str, str]:
        """The version of each package that is installed, by name."""
        return versions({STATUS: self.tree.read(STATUS)})

    @cached_property
    def kernel(self) -> str:
        """The release of its one kernel."""
        (release,) = self.tree.names("usr/lib/modules")
        return release

    @cached_property
    def modules(self) -> set[str]:
        """The names of its kernel's modules, built in or not, with underscores."""
        folder = f"usr/lib/modules/{self.kernel}"
        known = self.tree.text(f"{folder}/modules.dep") + self.tree.text(f"{folder}/modules.builtin")
        return {Path(line.split(":")[0]).name.split(".")[0].replace("-", "_") for line in known.splitlines()}


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
    """A folder for what is read, below the cache; it is removed at the end, and so is what a killed run left."""
    place = WORKSPACE.cache
    with contextlib.suppress(PermissionError):
        place.mkdir(parents=True, exist_ok=True)
    if not os.access(place, os.W_OK):
        place = Path(tempfile.gettempdir())
    for left in place.glob("tmp-verify-*-*"):
        if not Path("/proc", left.name.split("-")[2]).exists():
            shutil.rmtree(left, ignore_errors=True)
    # SIGTERM, which ends a job in CI, ends the tests as Ctrl-C does: with their cleaning up
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with tempfile.TemporaryDirectory(prefix=f"tmp-verify-{os.getpid()}-", dir=place) as folder:
            yield Path(folder)
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def hypervisor(product: Product) -> Iterator[Root]:
    """The hypervisor's root, from its squashfs in its place on the ISO."""
    yield from opened("hypervisor", product, product.iso, product.place(HYPERVISOR).start)


@pytest.fixture(scope="session")
def cvm(product: Product, cvm_disk: Disk) -> Iterator[Root]:
    """The CVM's root, from slot A of its disk."""
    yield from opened("cvm", product, cvm_disk.path, cvm_disk.partition("root-a").start)


def opened(name: str, product: Product, file: Path, offset: int) -> Iterator[Root]:
    with contextlib.closing(read_tree(file, offset, product.scratch)) as tree:
        yield Root(name, tree, packages_of(name, product), product)


def packages_of(name: str, product: Product) -> dict[str, str]:
    """What a root's bill of materials beside the ISO names; without one, or for an ISO built here, what its lock does.

    `invoke verify` has checked the bill before.
    """
    bill = product.iso.with_name(f"sbom-{name}.cdx.json")
    if product.layers is None and bill.is_file():
        parts = read_json(read_bounded(bill, MOST), bill.name, most=MOST)["components"]
        return {part["name"]: part["version"] for part in parts if "purl" in part}
    extra = product.manifest.profile[name].get("extra", {})
    if extra.get("packages"):
        pytest.fail(f"the profile of this ISO adds packages to the {name} root: take the evidence beside it along",
                    pytrace=False)
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
