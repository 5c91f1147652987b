"""acli's words: what is taken, and that anything else is refused before Ceph is asked."""

from __future__ import annotations

import pytest

from cornerstone.controller.data_services.acli import main, parse, size_text


@pytest.mark.parametrize("words, parsed", [
    (["vg.list"], ("vg.list", "", {})),
    (["vg.get", "vm1"], ("vg.get", "vm1", {})),
    (["vg.create", "vm1"], ("vg.create", "vm1", {})),
    (["vg.delete", "vm1"], ("vg.delete", "vm1", {})),
    (["vg.disk_create", "vm1", "create_size=10G"], ("vg.disk_create", "vm1", {"create_size": "10G"})),
    (["vg.disk_create", "create_size=10G", "vm1"], ("vg.disk_create", "vm1", {"create_size": "10G"})),
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
])
def test_anything_else_is_refused_in_a_sentence(words, said, capsys):
    assert main(words) == 2
    shown = capsys.readouterr().err
    assert shown.startswith(said)
    assert "Traceback" not in shown


@pytest.mark.parametrize("size, text", [(64 << 20, "64M"), (1 << 30, "1G"), (1536 << 20, "1536M"), (2 << 40, "2T")])
def test_a_size_is_shown_as_it_is_given(size, text):
    assert size_text(size) == text
