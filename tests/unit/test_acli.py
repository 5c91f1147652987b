"""acli's words: what is taken, and that anything else is refused before Ceph is asked."""

from __future__ import annotations

import pytest

from cornerstone.cvm.commands import acli
from cornerstone.cvm.commands.acli import main, parse, rough_size, size_text
from cornerstone.cvm.iscsi_target.catalogue import Disk, VolumeGroup
from cornerstone.lib.error import Code, CornerstoneError


@pytest.mark.parametrize("words, parsed", [
    (["vg.list"], ("vg.list", "", {})),
    (["vg.get", "vm1"], ("vg.get", "vm1", {})),
    (["vg.create", "vm1"], ("vg.create", "vm1", {})),
    (["vg.delete", "vm1"], ("vg.delete", "vm1", {})),
    (["vg.disk_create", "vm1", "create_size=10G"], ("vg.disk_create", "vm1", {"create_size": "10G"})),
    (["vg.disk_create", "create_size=10G", "vm1"], ("vg.disk_create", "vm1", {"create_size": "10G"})),
    (["vg.delete", "--yes", "vm1"], ("vg.delete", "vm1", {"--yes": ""})),
    (["vg.delete", "vm1", "--now", "--yes"], ("vg.delete", "vm1", {"--now": "", "--yes": ""})),
    (["vg.detach", "vm1"], ("vg.detach", "vm1", {})),
    (["vg.trash_list"], ("vg.trash_list", "", {})),
    (["vg.restore", "vm1"], ("vg.restore", "vm1", {})),
    (["vg.purge", "vm1", "--yes"], ("vg.purge", "vm1", {"--yes": ""})),
])
def test_words(words, parsed):
    assert parse(words) == parsed


@pytest.mark.parametrize("words, said", [
    ([], "acli needs a word"),
    (["vm.list"], "acli doesn't know 'vm.list'"),
    (["vg.list", "vm1"], "vg.list takes no name, not 1"),
    (["vg.create"], "vg.create takes one name, not 0"),
    (["vg.create", "a", "b"], "vg.create takes one name, not 2"),
    (["vg.create", "a", "create_size=10G"], "vg.create has no argument create_size"),
    (["vg.disk_create", "a"], "vg.disk_create needs create_size"),
    (["vg.disk_create", "a", "create_size=10G", "container=b"], "vg.disk_create has no argument container"),
    (["vg.disk_create", "a", "create_size=10"], "create_size='10' isn't a size"),
    (["vg.create", "a", "--yes"], "vg.create has no argument --yes"),
    (["vg.delete", "a", "--yes=1"], "vg.delete has no argument --yes=1"),
    (["vg.purge", "a", "--now"], "vg.purge has no argument --now"),
    (["vg.trash_list", "a"], "vg.trash_list takes no name, not 1"),
])
def test_anything_else_is_refused_in_a_sentence(words, said, capsys):
    assert main(words) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(said)
    assert "Traceback" not in shown


@pytest.mark.parametrize("size, text", [(64 << 20, "64M"), (1 << 30, "1G"), (1536 << 20, "1536M"), (2 << 40, "2T")])
def test_a_size_is_shown_as_it_is_given(size, text):
    assert size_text(size) == text


@pytest.mark.parametrize("size, text", [(0, "0.0M"), (64 << 20, "64.0M"), (1536 << 20, "1.5G"), (3 << 40, "3.0T")])
def test_room_is_shown_with_one_decimal(size, text):
    assert rough_size(size) == text


class Store:
    """A group of one disk; notes what is deleted."""

    def __init__(self, full: bool = False) -> None:
        self._full = full
        self.deleted: list[tuple[str, bool]] = []

    def require_unused(self, name: str) -> VolumeGroup:
        return VolumeGroup(name, (Disk(0, 3, "volume-a", "serial", 1 << 30),))

    def full(self) -> bool:
        return self._full

    def delete_group(self, name: str, now: bool) -> None:
        self.deleted.append((name, now))


def terminal(monkeypatch, there: bool) -> None:
    monkeypatch.setattr(acli.sys, "stdin", type("Stdin", (), {"isatty": lambda self: there})())


@pytest.mark.parametrize("answer, code", [("I agree", None), ("", Code.INTERRUPTED), ("y", Code.INTERRUPTED)])
def test_d19_deleting_asks(monkeypatch, answer, code):
    terminal(monkeypatch, True)
    asked, store = [], Store()

    def ask(question: str) -> str:
        asked.append(question)
        return answer
    if code is None:
        acli._delete(store, "vm1", {}, ask)
    else:
        with pytest.raises(CornerstoneError) as refused:
            acli._delete(store, "vm1", {}, ask)
        assert refused.value.code == code
    assert store.deleted == ([("vm1", False)] if code is None else [])
    assert asked[0].startswith("This deletes vm1 with 1 disks, 1G, and keeps them in the trash for a day.")


def test_d19_without_a_terminal_deleting_takes_a_word(monkeypatch):
    terminal(monkeypatch, False)
    store = Store()
    with pytest.raises(CornerstoneError, match="there is nobody to ask") as refused:
        acli._delete(store, "vm1", {}, input)
    assert refused.value.code == Code.REFUSED and store.deleted == []
    acli._delete(store, "vm1", {"--yes": ""}, input)
    assert store.deleted == [("vm1", False)]


@pytest.mark.parametrize("full, arguments", [(True, {}), (False, {"--now": ""})])
def test_d25_what_frees_room_destroys_at_once_and_says_so(monkeypatch, full, arguments):
    terminal(monkeypatch, True)
    asked, store = [], Store(full)
    with pytest.raises(CornerstoneError, match="nothing is deleted"):
        acli._delete(store, "vm1", arguments, lambda question: asked.append(question) or "")
    assert asked[0].startswith("This destroys vm1 with 1 disks, 1G, at once.")
    acli._delete(store, "vm1", arguments | {"--yes": ""}, input)
    assert store.deleted == [("vm1", True)]
