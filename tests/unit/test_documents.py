"""What the documents tell people to type: the words that have to be there, and commands that are run as they stand."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))


def test_the_index_has_every_page_and_no_other():
    index = (ROOT / "docs/README.md").read_text()
    named = set(re.findall(r"\]\(([a-z-]+\.md)\)", index))
    assert named == {path.name for path in PAGES} - {"README.md"}
    assert all((ROOT / "docs" / path).is_file() for path in re.findall(r"\]\((\.\./[A-Z]+\.md)\)", index))


def test_the_glossary_explains_each_word_once_and_in_order():
    rows = re.findall(r"^\| ([^|]+) \|", (ROOT / "docs/glossary.md").read_text(), re.MULTILINE)[1:]
    assert rows == sorted(set(rows), key=str.casefold)


def section(page: str, heading: str) -> str:
    return (ROOT / "docs" / page).read_text().split(f"## {heading}\n")[1].split("\n## ")[0]


def test_m5_a_page_says_how_to_write_a_stick_on_each_system_and_how_to_check_it():
    write, check = section("media.md", "Write a stick"), section("media.md", "Check a stick")
    for system in ("**Linux**", "**macOS**", "**Windows**", "FAT32"):
        assert system in write
    for words in ("# Linux", "# macOS", "On Windows", "cmp --bytes"):
        assert words in check
    assert "docs/media.md" in (ROOT / "README.md").read_text()


def commands(text: str) -> list[str]:
    """The lines of the shell blocks of a section, without comments and sudo."""
    return [line.removeprefix("sudo ") for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
            for line in block.splitlines() if line and not line.startswith("#")]


@pytest.fixture
def stick(tmp_path):
    """An ISO, and a stick that is larger, with other bytes behind."""
    (tmp_path / "foundation-aos-6.8.iso").write_bytes(bytes(range(256)) * 8192)
    (tmp_path / "stick").write_bytes(b"\xff" * (3 << 20))
    return tmp_path


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    for device in ("/dev/sdX", "/dev/rdiskN"):
        command = command.replace(device, "stick")
    return subprocess.run(["sh", "-c", command], cwd=folder, capture_output=True, text=True, check=False)


def test_m5_m7_the_commands_for_linux_write_and_check(stick):
    (write,) = [line for line in commands(section("media.md", "Write a stick")) if "of=/dev/sdX" in line]
    (check,) = [line for line in commands(section("media.md", "Check a stick")) if line.startswith("cmp --bytes")]
    assert run(check, stick).returncode != 0
    # a file on some file systems can't be written past the cache
    done = run(write.replace(" oflag=direct", "") + " conv=notrunc,fsync", stick)
    assert done.returncode == 0, done.stderr
    assert run(check, stick).stdout == "the same\n"


def test_m5_m7_the_check_for_macos_tells_a_stick_from_another(stick):
    size, check = commands(section("media.md", "Check a stick"))[-2:]
    # stat there has other flags
    size = size.replace("stat -f %z", "stat -c %s")
    check = check.replace("sudo ", "")
    assert run(f"{size}\n{check}", stick).returncode != 0
    iso = (stick / "foundation-aos-6.8.iso").read_bytes()
    (stick / "stick").write_bytes(iso + b"\xff" * 4096)
    assert run(f"{size}\n{check}", stick).stdout == "the same\n"


def test_m40_who_has_another_openssl_is_told_so_before_its_first_command():
    for page in PAGES:
        text = page.read_text()
        if "-rawin" not in text:
            continue
        before = text[:text.index("```sh\nopenssl")]
        for words in ("OpenSSL 3", "LibreSSL", "OpenSSL 1.1", "macOS", "shasum -a 256"):
            assert words in before, page.name
