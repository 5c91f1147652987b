"""The image tests' own fixtures, where they can be tried without an image."""

from __future__ import annotations

import importlib.util
import os
import stat
import subprocess
from pathlib import Path

import pytest
import testinfra

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def conftest():
    spec = importlib.util.spec_from_file_location("image_conftest", ROOT / "tests/image/conftest.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["ü", "日本", "a b", "plain"])
def test_root_below_any_path_is_looked_into_m35(conftest, tmp_path, name):
    folder = tmp_path / name / "root"
    folder.mkdir(parents=True)
    # a root of this machine's own programs
    for part in ("usr", "bin", "lib", "lib64"):
        (folder / part).mkdir()
    (folder / "dev").mkdir()
    os.mknod(folder / "dev/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    subprocess.run(["sh", "-ec", 'for part in usr bin lib lib64; do mount --bind "/$part" "$1/$part"; done', "-",
                    folder], check=True)
    try:
        with conftest.ascii_name(folder) as link:
            assert str(link).isascii()
            assert " " not in str(link)
            host = testinfra.get_host(str(link), connection="chroot")
            assert host.check_output("echo grün") == "grün"
            assert host.file("/usr/bin").is_directory
    finally:
        subprocess.run(["sh", "-c", 'for part in usr bin lib lib64; do umount "$1/$part"; done', "-", folder],
                       check=True)
