"""Changes of the catalogue in Ceph: nothing of another's change is lost, and what is missing isn't taken for empty.

RADOS is played by one object with a version; tests/engine/test_volumes.py does the same with the real one.
"""

from __future__ import annotations

import importlib
import json
import sys
import types
from collections.abc import Callable
from dataclasses import replace

import pytest

from cornerstone.cvm.iscsi_target.catalogue import Catalogue, Disk, Released
from cornerstone.lib.error import CornerstoneError


class RadosError(Exception):
    errno = 0


class WrongVersion(RadosError):
    errno = 34


class ObjectNotFound(RadosError):
    errno = 2


class ObjectExists(RadosError):
    errno = 17


class TimedOut(RadosError):
    errno = 110


class NoSpace(RadosError):
    errno = 28


class WriteOp:
    """Notes what is written on which condition."""

    def __enter__(self) -> WriteOp:
        self.version, self.exclusive = None, False
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def assert_version(self, version: int) -> None:
        self.version = version

    def new(self, exclusive: int) -> None:
        self.exclusive = True

    def write_full(self, data: bytes) -> None:
        self.data = data


class Object:
    """The catalogue's object. before: called once before the next write, as another's change in between."""

    def __init__(self) -> None:
        self.data: bytes | None = None
        self.version = 0
        self.before: Callable[[], object] = lambda: None
        self.answer: RadosError | None = None

    def put(self, data: bytes) -> None:
        self.data, self.version = data, self.version + 1

    def read(self, name: str, length: int) -> bytes:
        if self.data is None:
            raise ObjectNotFound
        return self.data

    def get_last_version(self) -> int:
        return self.version

    def operate_write_op(self, write: WriteOp, name: str, flags: int) -> None:
        before, self.before = self.before, lambda: None
        before()
        if self.answer is not None:
            raise self.answer
        if write.exclusive and self.data is not None:
            raise ObjectExists
        if write.version not in (None, self.version):
            raise WrongVersion
        self.put(write.data)


class Volumes:
    """The images."""

    def __init__(self) -> None:
        self.there: dict[str, int] = {}
        self.placed: list[Disk] = []

    def names(self) -> list[str]:
        return sorted(self.there)

    def make(self, group: str, size: int) -> Disk:
        image = f"volume-{len(self.placed)}{len(self.there)}"
        self.there[image] = size
        return Disk(0, 0, image, f"serial-{image}", size)

    def place(self, group: str, disk: Disk) -> None:
        self.placed.append(disk)

    def discard(self, image: str, deletion: int | None, wake: object) -> None:
        del self.there[image]

    def trash(self) -> list:
        return []


@pytest.fixture
def store(monkeypatch):
    """A Store over one object; kept: what the monitors keep."""
    rados = types.SimpleNamespace(
        Error=RadosError, OSError=RadosError, ObjectNotFound=ObjectNotFound, ObjectExists=ObjectExists,
        TimedOut=TimedOut, NoSpace=NoSpace, WriteOpCtx=WriteOp, LIBRADOS_CREATE_EXCLUSIVE=1, Ioctx=object, Rados=object)
    rbd = types.SimpleNamespace(Error=RadosError, NoSpace=NoSpace, DiskQuotaExceeded=NoSpace, Image=object)
    for name, module in {"rados": rados, "rbd": rbd}.items():
        monkeypatch.setitem(sys.modules, name, module)
    for name in ("images", "store"):
        monkeypatch.delitem(sys.modules, f"cornerstone.cvm.iscsi_target.{name}", raising=False)
    module = importlib.import_module("cornerstone.cvm.iscsi_target.store")
    made = module.Store("container")
    made._catalogue, made.volumes = Object(), Volumes()
    made.kept = {}
    made.told = 0

    def tell(message: dict) -> None:
        made.told += 1

    def command(prefix: str, **arguments: str) -> bytes:
        if prefix == "config-key set":
            made.kept[arguments["key"]] = arguments["val"]
        return json.dumps({
            "config-key dump": {key: value for key, value in made.kept.items()
                                if key.startswith(arguments.get("key", ""))},
            "df": {"stats": {"total_bytes": 100 << 30}, "pools": [{"name": "container", "stats": {"max_avail": 1}}]},
            "osd dump": {"nearfull_ratio": 0.8, "pools": [{"pool_name": "container", "size": 2}]}}.get(prefix)).encode()
    monkeypatch.setattr(made, "tell", tell)
    monkeypatch.setattr(made, "command", command)
    yield made
    for name in ("images", "store"):
        sys.modules.pop(f"cornerstone.cvm.iscsi_target.{name}", None)


def test_d20_a_change_that_another_overtook_is_made_anew_from_what_is_there(store):
    store.create_group("a")
    store._catalogue.before = lambda: store.create_group("b")
    store.create_group("c")
    assert [group.name for group in store.catalogue().groups] == ["a", "b", "c"]


def test_d20_two_disks_never_get_one_lun(store):
    store.create_group("a")
    others: list[Disk] = []
    store._catalogue.before = lambda: others.append(store.create_disk("a", 64 << 20))
    mine = store.create_disk("a", 64 << 20)
    assert [(each.index, each.lun) for each in (*others, mine)] == [(0, 0), (1, 1)]
    assert store.catalogue().group("a").disks == (*others, mine)
    assert store.volumes.placed[-1] == mine, "its image says the same"


def test_d20_an_image_whose_volume_cannot_be_made_goes(store):
    store.create_group("a")
    store._catalogue.before = lambda: store._change(lambda catalogue: catalogue.without_group("a"))
    with pytest.raises(CornerstoneError, match="no volume group 'a'"):
        store.create_disk("a", 64 << 20)
    assert store.volumes.there == {}


def test_d20_an_image_whose_volume_may_be_there_stays_and_is_named(store):
    """A write without an answer may be done later."""
    store.create_group("a")
    store._catalogue.answer = TimedOut()
    with pytest.raises(CornerstoneError, match="it isn't known whether the volume is there") as unknown:
        store.create_disk("a", 64 << 20)
    (image,) = store.volumes.there
    assert image in unknown.value.hint


def test_d20_a_change_ends_when_others_are_always_first(store):
    store.create_group("a")
    store._swap = lambda catalogue, version: False
    with pytest.raises(CornerstoneError, match="others are changing volumes all the time"):
        store.create_group("b")


@pytest.mark.parametrize("data", [None, b"", b"{", b'{"groups":[{"name":"a","di', b"\0" * 40])
def test_d21_a_lost_catalogue_beside_images_is_an_error_that_names_them(store, data):
    store.volumes.there["volume-1"] = 1
    if data is not None:
        store._catalogue.put(data)
    for ask in (store.catalogue, store.begin, lambda: store.create_group("a"), lambda: store.create_disk("a", 1)):
        with pytest.raises(CornerstoneError, match=r"the catalogue of volumes is.*images of volumes: volume-1"):
            ask()
    assert store._catalogue.data == data and store.told == 0


@pytest.mark.parametrize("data", [None, b""])
def test_d21_a_container_without_images_begins_with_an_empty_catalogue(store, data):
    if data is not None:
        store._catalogue.put(data)
    assert store.catalogue() == Catalogue()
    store.begin()
    assert Catalogue.from_json(store._catalogue.data) == Catalogue()
    store.create_group("a")
    store.begin()
    assert [group.name for group in store.catalogue().groups] == ["a"]


def test_d21_of_two_that_begin_at_once_neither_undoes_the_other(store):
    store._catalogue.before = lambda: store.create_group("a")
    store.begin()
    assert [group.name for group in store.catalogue().groups] == ["a"]


@pytest.mark.parametrize("answers, released", [
    ({"a": "7", "b": "9"}, ()), ({"a": "9"}, (3,)), ({"a": "6", "b": "9"}, (3,)), ({}, (3,))])
def test_d17_a_lun_leaves_quarantine_when_every_host_has_answered(store, answers, released):
    store.kept |= {f"cornerstone/initiators/{member}": "{}" for member in "ab"}
    for member, generation in answers.items():
        store.note_answer(member, int(generation))
    store._catalogue.put(replace(Catalogue(), released=(Released(3, 7),), generation=9).to_json())
    store.create_group("x")
    assert tuple(each.lun for each in store.catalogue().released) == released


def test_d17_a_catalogue_made_anew_is_later_than_all_answers(store):
    """The monitors keep what hosts have answered, which was about another catalogue."""
    store.kept |= {"cornerstone/initiators/a": "{}", "cornerstone/answered/a": "40"}
    store.begin()
    assert store.catalogue().generation == 40


def test_d26_more_than_the_cluster_may_promise_is_refused_before_an_image_is_made(store):
    store.create_group("a")
    with pytest.raises(CornerstoneError, match="would be more than 10 times"):
        store.create_disk("a", 401 << 30)
    assert store.create_disk("a", 300 << 30).size == 300 << 30
    with pytest.raises(CornerstoneError, match="would be more than 10 times"):
        store.create_disk("a", 101 << 30)
    assert len(store.volumes.there) == 1
