"""Files of others, and folders in which others may write (factory/files.py)."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from cornerstone.factory.files import read_regular, require_own
from cornerstone.model.error import Code, CornerstoneError


@pytest.mark.parametrize("make", [
    lambda path: path.symlink_to("/etc/hostname"), os.mkfifo, lambda path: path.mkdir(),
    lambda path: path.write_bytes(bytes(11)), lambda path: None], ids=["link", "pipe", "folder", "large", "none"])
def test_a1_only_a_regular_file_of_some_size_is_read(tmp_path, make):
    (tmp_path / "good").write_bytes(bytes(10))
    assert read_regular(tmp_path / "good", 10) == bytes(10)
    make(tmp_path / "x")
    with pytest.raises(OSError):
        read_regular(tmp_path / "x", 10)


@pytest.fixture
def checkout():
    # below a folder that others may enter, unlike pytest's
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        checkout = Path(folder, "checkout")
        (checkout / "output/cache").mkdir(parents=True)
        yield checkout


def test_a6_below_a_private_folder_nobody_reaches_anything(checkout):
    (checkout / "output/cache").chmod(0o777)
    (checkout / "output").chmod(0o700)
    require_own([checkout / "output/cache"], checkout)


def test_a6_own_folders_pass_also_those_to_come(checkout):
    require_own([checkout / "output/cache", checkout / "output/cache/layers"], checkout)


@pytest.mark.parametrize("change", [
    lambda folder: folder.chmod(0o757), lambda folder: os.chown(folder, 65534, 65534),
    lambda folder: (os.chown(folder, 0, 65534), folder.chmod(0o775)),
    lambda folder: folder.chmod(0o1777)], ids=["all", "another's", "a group", "all, sticky"])
@pytest.mark.parametrize("place", ["output/cache", "output"])
def test_a6_a_folder_of_others_is_refused(checkout, change, place):
    change(checkout / place)
    sticky_above = place == "output" and (checkout / place).stat().st_mode & 0o1000
    if sticky_above:
        require_own([checkout / "output/cache"], checkout)
        return
    with pytest.raises(CornerstoneError, match="others may write in") as caught:
        require_own([checkout / "output/cache/layers", checkout / "output/cache"], checkout)
    assert caught.value.code is Code.MACHINE
    assert str(checkout / place) in caught.value.message


def test_a6_who_may_change_the_checkout_may_write_its_output(checkout):
    """A developer who calls sudo: the code that is about to sign is theirs."""
    for folder in (checkout, checkout / "output", checkout / "output/cache"):
        os.chown(folder, 1000, 1000)
        folder.chmod(0o775)
    require_own([checkout / "output/cache"], checkout)
    checkout.chmod(0o755)
    with pytest.raises(CornerstoneError, match="others may write in"):
        require_own([checkout / "output/cache"], checkout)
