"""`invoke verify` of an ISO whose path has blanks and letters beyond ASCII, whole: its own checks and both roots'."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from cornerstone.factory.build import netboot
from cornerstone.factory.evidence import evidence

pytestmark = pytest.mark.nightly


@pytest.mark.parametrize(("folder", "name", "locale"), [
    ("wörk ünd more", "ü.iso", "C"), ("a b", "-x, y.iso", "C.UTF-8")])
def test_m35_an_iso_at_any_path_is_verified_whole(iso, root, tmp_path, folder, name, locale):
    place = tmp_path / folder
    place.mkdir()
    shutil.copyfile(iso, place / name)
    for each in (*evidence.LISTED, evidence.SUMS, evidence.SUMS_SIGNATURE):
        shutil.copyfile(iso.with_name(each), place / each)
    shutil.copytree(netboot.folder_of(iso), netboot.folder_of(place / name))
    told = run(root, place, locale, "verify", f"./{name}", "--format", "json", "--junit", "jünit reports")
    assert {each["id"]: each["wrong"] or each["reason"] for each in told["checks"] if each["result"] != "passed"} == {}
    assert (told["roots"], told["iso"]) == ("passed", name)
    assert sorted(path.name for path in (place / "jünit reports").iterdir()) == sorted(
        f"verify-{part}{Path(name).stem}.xml" for part in ("", "roots-"))


def run(root: Path, place: Path, locale: str, *words: str) -> dict:
    """What the command prints, run in a folder by somebody with that locale."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("LC_", "LANG", "PYTEST_"))}
    done = subprocess.run([root / "invoke", *words], cwd=place, env=environment | {"LC_ALL": locale},
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return json.loads(done.stdout)
