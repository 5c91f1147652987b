"""The Jenkinsfile, read as a tree of blocks: nothing here runs Jenkins. What its steps call is held against the tasks.

And what those steps rest on: .ci/as-root, and the reports of `boot` and `verify`.
"""

from __future__ import annotations

import copy
import os
import re
import shlex
import shutil
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cornerstone.cli import booting
from cornerstone.factory.iso import iso_checks
from cornerstone.factory.verify import verify
from cornerstone.lib.error import Code, CornerstoneError
from small_iso import KEY

ROOT = Path(__file__).resolve().parents[2]
# strings, comments, braces, ends of lines; whatever else as it is
TOKENS = re.compile(r"'''.*?'''|'(?:[^'\\\n]|\\.)*'|\"(?:[^\"\\\n]|\\.)*\"|//[^\n]*|[{}\n]|[^'\"{}\n/]+|/", re.DOTALL)


@dataclass
class Block:
    """header { … }: its own lines, and the blocks in it."""

    header: str
    lines: list[str] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)

    def all(self) -> Iterator[Block]:
        yield self
        for block in self.blocks:
            yield from block.all()

    def find(self, header: str) -> list[Block]:
        return [block for block in self.all() if re.fullmatch(header, block.header)]

    def one(self, header: str) -> Block:
        found = self.find(header)
        assert len(found) == 1, (header, [block.header for block in found])
        return found[0]

    @property
    def text(self) -> str:
        return "\n".join((*self.lines, *(f"{block.header}\n{block.text}" for block in self.blocks)))

    @property
    def commands(self) -> list[str]:
        """What its sh steps run, strings that are added being one."""
        joined = re.sub(r"'\s*\+\s*'", "", self.text)
        return re.findall(r"\bsh '(.*?)'$", joined, re.MULTILINE)


def parse(text: str) -> Block:
    top = Block("")
    stack, line = [top], ""

    def end() -> None:
        nonlocal line
        if line.strip():
            stack[-1].lines.append(line.strip())
        line = ""
    for token in TOKENS.findall(text):
        if token == "{":
            block = Block(line.strip())
            stack[-1].blocks.append(block)
            stack.append(block)
            line = ""
        elif token == "}":
            end()
            stack.pop()
        elif token == "\n" and not line.rstrip().endswith(("+", ",")):
            end()
        elif not token.startswith("//"):
            line += token
    assert len(stack) == 1, "a brace too many or too few"
    return top


@pytest.fixture(scope="module")
def jenkins() -> Block:
    return parse((ROOT / "Jenkinsfile").read_text())


def stages(jenkins: Block) -> dict[str, Block]:
    return {block.header[7:-2]: block for block in jenkins.one("pipeline").find(r"stage\('.*'\)")}


def test_a_cell_for_each_profile():
    top = parse((ROOT / "Jenkinsfile").read_text())
    names = re.findall(r"'([^']+)'", top.one("axis").text.split("values", 1)[1])
    assert set(names) == {path.stem for path in (ROOT / "profiles").glob("aos-*.yaml")}, \
        "a new profile has a cell: docs/catalogue.md"


def test_each_step_is_a_task_with_flags_that_there_are(jenkins):
    import tasks
    # of copies, for a task gives away its words of help with its arguments
    known = {name: {word for argument in copy.deepcopy(task).get_arguments() for word in argument.names}
             for name, task in tasks.ns.tasks.items()}
    commands = jenkins.commands
    assert len(commands) == 12
    for command in commands:
        words = shlex.split(command)
        assert words[0] == ".ci/as-root", command
        if words[1] == ".ci/fetch":
            continue
        assert words[1] == "./invoke", command
        flags = {word[2:] for word in words[3:] if word.startswith("--")}
        assert flags <= {name.replace("_", "-") for name in known[words[2]]}, command
        assert "|" not in command and ">" not in command and ";" not in command


def test_t43_a_cell_has_its_own_results_and_nothing_of_another(jenkins):
    matrix = jenkins.one("matrix")
    assert matrix.commands[0] == jenkins.one(r"stage\('Test'\)").commands[0] == ".ci/as-root ./invoke clean"
    (always,) = [block for block in matrix.blocks if block.header == "post"][0].find("always")
    paths = re.findall(r"output/[^,\"' ]+", always.text)
    assert all("${PROFILE}" in path or path == "output/boots/**" for path in paths), paths
    assert "output/**" not in jenkins.text
    # without a build there is no verification: its stages stand one behind the other
    assert [name for name in stages(jenkins) if name in ("Fetch", "Build", "Verify", "Boot")] \
        == ["Fetch", "Build", "Verify", "Boot"]


def test_t44_no_time_is_counted_while_a_machine_is_waited_for(jenkins):
    for name, stage in stages(jenkins).items():
        assert not any("timeout" in block.text for block in stage.find("options")), name
    alone = jenkins.one(r"def alone\(.*\)")
    (lock,) = alone.blocks
    assert lock.header.startswith("lock(") and lock.blocks[0].header.startswith("timeout(")
    # each command has a limit
    bounded = [command for block in jenkins.find(r"alone\(\d+\)") for command in block.commands]
    assert sorted(bounded) == sorted(jenkins.commands)


def test_t45_the_whole_run_has_time_for_all_cells_on_one_machine(jenkins):
    minutes = {name: sum(int(block.header[6:-1]) for block in stage.find(r"alone\(\d+\)"))
               for name, stage in stages(jenkins).items()}
    cells = len(re.findall(r"'aos-[^']+'", jenkins.one("axis").text))
    needed = minutes["Check"] + cells * minutes["Matrix"] + max(minutes["Test"], minutes["Nightly test"])
    hours = re.search(r"timeout\(time: (\d+), unit: 'HOURS'\)", jenkins.one("pipeline").one("options").text)
    assert needed <= int(hours[1]) * 60 <= 2 * needed
    assert "env.NODE_NAME" in jenkins.one(r"lock\(.*\)").header


def test_t46_the_key_is_where_something_is_signed_and_nowhere_else(jenkins):
    signing = [name for name, stage in stages(jenkins).items() if stage.find("signing")]
    assert signing == ["Matrix", "Build"]
    assert "CORNERSTONE_SIGNING_KEY_PEM" in jenkins.one(r"withCredentials\(.*\)").header
    assert "SIGNING" not in jenkins.one("environment").text
    assert not any("KEY" in command for command in jenkins.commands)


def test_t47_mirrors_and_the_pool_are_parameters_and_a_dropped_package_has_one_way(jenkins):
    from cornerstone.factory import settings
    asked = jenkins.one("parameters").text
    known = (ROOT / "src/cornerstone/factory/settings.py").read_text()
    assert settings
    for name in ("MIRROR", "SECURITY_MIRROR", "SNAPSHOT_MIRROR", "CACHE"):
        assert f"name: '{name}'" in asked
        assert f'CORNERSTONE_{name} = "${{params.{name}}}"' in jenkins.one("environment").text
        assert f"CORNERSTONE_{name}" in known
    assert any(".ci/fetch" in command for command in jenkins.one("matrix").commands)
    run = (ROOT / ".ci/run").read_text()
    assert ".ci/fetch" in run and "--update" not in run


FETCH = """#!/bin/sh
echo "$@" >>calls
echo "hint: ./invoke lock --suite trixie --update" >&2
[ "$1" != fetch ] || exit 4
"""


@pytest.mark.parametrize(("name", "ends"), [
    ("NO_COLOR", 0), ("SIGNING_KEY", 4), ("CORNERSTONE_SIGNING_KEY", 4), ("CORNERSTONE_SIGNING_KEY_PEM", 4)])
def test_a8_a_job_that_signs_resolves_no_lock_anew(name, ends, tmp_path):
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci/fetch", tmp_path / ".ci/fetch")
    (tmp_path / "invoke").write_text(FETCH)
    (tmp_path / "invoke").chmod(0o755)
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", name: "a"}
    done = subprocess.run([tmp_path / ".ci/fetch", "aos-6.8"], env=environment, capture_output=True, check=False)
    calls = (tmp_path / "calls").read_text().splitlines()
    assert (done.returncode, len(calls)) == (ends, 1 if ends else 2), calls
    # and Jenkins' parameter reaches it by sudo
    assert "SIGNING_KEY" in (ROOT / ".ci/as-root").read_text()


def test_t48_six_ways_are_six_results_with_their_consoles(jenkins):
    (command,) = stages(jenkins)["Boot"].commands
    assert "--firmware all --media all" in command and "--junit" in command
    assert "output/boots/**" in jenkins.one("matrix").text and "output/${PROFILE}/**" in jenkins.one("matrix").text


def test_t49_the_options_are_chosen(jenkins):
    pipeline = jenkins.one("pipeline")
    options = pipeline.one("options").text
    assert "timestamps()" in options and "disableConcurrentBuilds(abortPrevious: true)" in options
    assert "cron(" in pipeline.one("triggers").text
    assert "test --nightly" in stages(jenkins)["Nightly test"].commands[-1]
    assert {"failure", "fixed"} <= {block.header for block in pipeline.blocks[-1].blocks}
    assert "params.NOTIFY" in pipeline.blocks[-1].text


# what the steps rest on

@pytest.fixture
def tools(tmp_path, monkeypatch):
    """An `id` that is a user's, and a `sudo` that writes down how it was called and runs it without the rest."""
    (folder := tmp_path / "bin").mkdir()
    (folder / "id").write_text("#!/bin/sh\necho 1000\n")
    (folder / "sudo").write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" >{tmp_path}/said\n"
                                 "while [ $1 != -- ]; do shift; done; shift; exec \"$@\"\n")
    for tool in folder.iterdir():
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return tmp_path / "said"


def test_t50_a_user_s_settings_get_through_sudo_and_their_values_are_no_arguments(tools, monkeypatch):
    monkeypatch.setenv("CI", "true")
    monkeypatch.setenv("CORNERSTONE_SIGNING_KEY_PEM", "-----BEGIN\nhush\n-----END")
    monkeypatch.setenv("https_proxy", "http://user:hush@192.0.2.1:3128")
    done = subprocess.run([ROOT / ".ci/as-root", "printf", "%s|", "a b", "c"], capture_output=True, text=True,
                          check=True)
    assert done.stdout == "a b|c|"
    said = tools.read_text().splitlines()
    names = next(word for word in said if word.startswith("--preserve-env=")).partition("=")[2].split(",")
    assert {"CI", "CORNERSTONE_SIGNING_KEY_PEM", "https_proxy"} <= set(names)
    assert "hush" not in tools.read_text() and "--non-interactive" in said


def test_t50_root_needs_no_sudo(tools):
    (tools.parent / "bin" / "id").write_text("#!/bin/sh\necho 0\n")
    done = subprocess.run([ROOT / ".ci/as-root", "echo", "here"], capture_output=True, text=True, check=True)
    assert done.stdout == "here\n" and not tools.exists()


@pytest.fixture
def booted(monkeypatch):
    """Which ways were booted; BIOS from CD fails."""
    ways = []

    def boot(iso, *, firmware, media, memory_mib, log_dir):
        ways.append(f"{firmware}-{media}")
        log_dir.mkdir(parents=True)
        (log_dir / "console.log").write_bytes(b"\x1b[2Jthe \xff console\n")
        return Code.BOOT if ways[-1] == "bios-cd" else 0
    monkeypatch.setattr(booting, "boot_task", boot)
    return ways


def test_t48_each_way_is_booted_whatever_becomes_of_another(booted, tmp_path):
    iso = tmp_path / "foundation-aos-6.8.1.iso"
    assert booting.boot_ways(iso, "all", "all", 4096, tmp_path / "boots", tmp_path / "junit" / "aos-6.8.1") == Code.BOOT
    assert booted == [f"{one}-{other}" for one in ("bios", "uefi", "secureboot") for other in ("cd", "usb")]
    top = ET.parse(tmp_path / "junit" / "aos-6.8.1" / "boot-foundation-aos-6.8.1.xml").getroot()
    cases = list(top.iter("testcase"))
    assert [case.get("name") for case in cases] == booted
    assert {case.get("classname") for case in cases} == {"boot.foundation-aos-6_8_1"}
    assert [case.get("name") for case in cases if case.find("failure") is not None] == ["bios-cd"]
    assert "the � console" in cases[0].find("system-out").text
    assert top.get("tests") == "6" and top.get("failures") == "1" == top[0].get("failures")


def test_t48_a_word_that_is_no_firmware_boots_nothing(booted, tmp_path):
    for firmware, media in (("bios,eufi", "cd"), ("", "cd"), ("bios", "cd,"), ("bios", "floppy")):
        with pytest.raises(CornerstoneError, match="is unknown"):
            booting.boot_ways(tmp_path / "x.iso", firmware, media, 4096, tmp_path / "boots")
    assert booted == []


def test_t49_a_verification_reports_each_check_with_its_profile(tmp_path, monkeypatch):
    checks = list(iso_checks.CHECKS.values())[:3]
    findings = [iso_checks.Finding(checks[0]), iso_checks.Finding(checks[1], ("it is cut short",)),
                iso_checks.Finding(checks[2], kept_by=checks[1].id)]
    monkeypatch.setattr(verify, "told", lambda subject, say: findings)
    monkeypatch.setattr(verify, "read_key", lambda key, **_: KEY.public_pem())
    monkeypatch.setattr(verify, "trust", lambda *_: [])
    (tmp_path / "manifest.pem").touch()
    assert verify.verify_iso(tmp_path / "foundation-aos-6.8.iso", junit=tmp_path / "junit") == Code.VERIFY
    top = ET.parse(tmp_path / "junit" / "verify-foundation-aos-6.8.xml").getroot()
    one, two, three = top.iter("testcase")
    assert {case.get("classname") for case in (one, two, three)} == {"verify.foundation-aos-6_8"}
    assert len(one) == 0 and two.find("failure").get("message") == "it is cut short"
    assert three.find("skipped").get("message") == f"{checks[1].id} failed"
