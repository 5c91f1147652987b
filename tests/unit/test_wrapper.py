"""./invoke, the lock and the other scripts at the root. The wrapper runs for real, with fakes for apt and Python."""

from __future__ import annotations

import os
import pty
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ["invoke", ".ci/run", "tests/fresh-machine"]
TOOLS = ["bash", "cat", "chmod", "cp", "env", "flock", "grep", "ln", "mkdir", "readlink", "rm", "sed", "sha256sum",
         "sleep", "stat", "tail"]

# Plays python3, `python3 -m venv` and the pip inside; notes what it was asked to make in $LOG.
PYTHON = """#!/usr/bin/env bash
case "$*" in
    --version) echo "Python 3.11.0" ;;
    "-c import sys;"*) echo "${FAKE_VERSION:-3.11}" ;;
    "-c import ensurepip"*) exit "${FAKE_ENSUREPIP:-0}" ;;
    "-c import sysconfig"*) mkdir -p "${0%/bin/*}/site"; echo "${0%/bin/*}/site" ;;
    "-m venv "*)
        echo venv >>"$LOG"
        mkdir -p "$3/bin"
        cp "$0" "$3/bin/python"
        sleep "${FAKE_SLEEP:-0}"
        ;;
    "-m pip install "*)
        echo "pip $*" >>"$LOG"
        echo "no index answers"
        exit "${FAKE_PIP:-0}"
        ;;
    "-P "*"/checkout/tasks.py"*)
        shift 2
        echo "ran $* in $PWD"
        [ -z "${SHOW:-}" ] || env
        ;;
    *) exit 99 ;;
esac
"""
FAKES = {
    "python3": PYTHON,
    "id": '#!/usr/bin/env bash\necho "${FAKE_UID:-0}"\n',
    "dpkg-query": """#!/usr/bin/env bash
echo dpkg-query >>"$LOG"
sed -nE 's/^([a-z0-9.+-]+).*#.*/installed \\1/p' debian-packages.txt | grep -vxF "installed ${MISSING:-none}"
""",
    "apt-get": '#!/usr/bin/env bash\necho "apt-get $*" >>"$LOG"\nexit "${FAKE_APT:-0}"\n',
    "apt-cache": '#!/usr/bin/env bash\n[ "$3" = p7zip-full ] && echo "Candidate: (none)" || echo "Candidate: 1.0"\n',
}


class Machine:
    """A directory with the wrapper's files and a PATH that has only what the wrapper may use."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "checkout"
        self.bin = directory / "bin"
        self.log = directory / "log"
        self.root.mkdir()
        self.bin.mkdir()
        for name in ("invoke", "requirements.lock", "debian-packages.txt"):
            shutil.copy2(ROOT / name, self.root)
        for name in TOOLS:
            tool = shutil.which(name)
            assert tool, name
            (self.bin / name).symlink_to(tool)
        for name, text in FAKES.items():
            self.add(name, text)
        self.dpkg_status = directory / "status"
        self.dpkg_status.touch()
        self.edit("invoke", "/var/lib/dpkg/status", str(self.dpkg_status))

    def add(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def edit(self, name: str, old: str, new: str) -> None:
        text = (self.root / name).read_text()
        assert old in text
        (self.root / name).write_text(text.replace(old, new))

    def environment(self, **settings: str) -> dict[str, str]:
        return {"PATH": str(self.bin), "LOG": str(self.log), "HOME": str(self.root), **settings}

    def run(self, *arguments: str, cwd: Path | None = None, **settings: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.root / "invoke", *arguments], env=self.environment(**settings), cwd=cwd or self.root,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
        )

    def made(self) -> list[str]:
        """What the fakes were asked for since the last call: first words only."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return [" ".join(line.split()[:1]) for line in lines]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_first_call_prepares_and_the_second_does_nothing(machine: Machine) -> None:
    first = machine.run("build", "--profile", "a b", cwd=Path("/"))
    assert first.returncode == 0, first.stderr
    assert first.stdout == "ran build --profile a b in /\n"
    assert machine.made() == ["dpkg-query", "venv", "pip"]
    assert (machine.root / ".venv/site/cornerstone.pth").read_text() == f"{machine.root}/src\n"

    second = machine.run("--list")
    assert (second.stdout, second.stderr) == (f"ran --list in {machine.root}\n", "")
    assert machine.made() == []


def test_pip_takes_only_wheels_that_the_lock_names(machine: Machine) -> None:
    machine.run("--list")
    command = next(line for line in machine.log.read_text().splitlines() if line.startswith("pip"))
    assert "--require-hashes --only-binary :all: --requirement requirements.lock" in command
    assert "index" not in command


def test_the_same_with_the_venv_activated(machine: Machine) -> None:
    machine.run("--list")
    machine.made()
    (machine.root / ".venv/bin/python3").symlink_to("python")
    machine.edit("requirements.lock", "pytest==", "pytest==0.")
    again = machine.run("--list", PATH=f"{machine.root}/.venv/bin:{machine.bin}")
    assert again.returncode == 0, again.stderr
    assert machine.made() == ["venv", "pip"]


@pytest.mark.parametrize("name", ["requirements.lock", "invoke"])
def test_a_changed_file_makes_the_venv_again(machine: Machine, name: str) -> None:
    machine.run("--list")
    machine.made()
    with (machine.root / name).open("a") as file:
        file.write("\n# changed\n")
    assert machine.run("--list").returncode == 0
    assert machine.made() == ["venv", "pip"]


def test_another_python_makes_the_venv_again(machine: Machine) -> None:
    machine.run("--list")
    machine.made()
    machine.add("python3.12", PYTHON.replace("3.11", "3.12"))
    assert machine.run("--list", PYTHON="python3.12").returncode == 0
    assert machine.made() == ["venv", "pip"]
    assert machine.run("--list", PYTHON="python3.12").returncode == 0
    assert machine.made() == []


def test_a_venv_that_was_killed_half_way_is_made_again(machine: Machine) -> None:
    killed = subprocess.Popen([machine.root / "invoke", "--list"], env=machine.environment(FAKE_SLEEP="20"),
                              stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 20
    while not (machine.root / ".venv/bin/python").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(killed.pid, 9)
    killed.wait(10)
    machine.made()

    healed = machine.run("--list")
    assert healed.returncode == 0, healed.stderr
    assert machine.made() == ["dpkg-query", "venv", "pip"]


def test_two_first_calls_at_once_make_one_venv(machine: Machine) -> None:
    both = [
        subprocess.Popen([machine.root / "invoke", "--list"], env=machine.environment(FAKE_SLEEP="1"),
                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert machine.made().count("venv") == 1
    assert sum("waiting" in err for _, err in said) == 1


def test_a_removed_package_is_noticed(machine: Machine) -> None:
    machine.run("--list")
    machine.made()
    os.utime(machine.dpkg_status, (1, 1))
    refused = machine.run("--list", MISSING="xorriso")
    assert refused.returncode == 3
    assert "xorriso                  reads the ISO back" in refused.stderr
    assert machine.made() == ["dpkg-query"]


@pytest.mark.parametrize(("arguments", "settings"), [(["--yes"], {}), ([], {"CI": "true"})])
def test_yes_and_ci_install_what_is_missing(machine: Machine, arguments: list[str], settings: dict[str, str]) -> None:
    answer = machine.run(*arguments, "--list", MISSING="xorriso", **settings)
    assert answer.stdout == f"ran --list in {machine.root}\n", answer.stderr
    commands = [line for line in machine.log.read_text().splitlines() if line.startswith("apt-get")]
    assert [line.split("Use-Pty=0 ")[1] for line in commands] == [
        "update", "install --yes --no-install-recommends xorriso"]


def test_the_first_alternative_that_the_release_has_is_installed(machine: Machine) -> None:
    machine.run("--yes", MISSING="p7zip-full")
    assert "install --yes --no-install-recommends 7zip\n" in machine.log.read_text()


def test_sudo_installs_for_those_who_are_not_root(machine: Machine) -> None:
    machine.add("sudo", '#!/usr/bin/env bash\necho "sudo $*" >>"$LOG"\n')
    assert machine.run("--yes", MISSING="xorriso", FAKE_UID="1000").returncode == 0
    assert "sudo env DEBIAN_FRONTEND=noninteractive apt-get" in machine.log.read_text()


def test_a_terminal_is_asked_once_and_may_say_no(machine: Machine) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen([machine.root / "invoke", "--list"], env=machine.environment(MISSING="xorriso"),
                               stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    os.write(ours, b"n\n")
    assert process.wait(20) == 3
    said = os.read(ours, 65536).decode()
    os.close(ours)
    assert said.count("Install them now (apt-get)? [Y/n]") == 1
    assert "apt-get" not in machine.made()


@pytest.mark.parametrize("kind", ["path", "link", "the venv's"])
def test_t15_a_task_runs_where_it_was_called(machine: Machine, tmp_path: Path, kind: str) -> None:
    machine.run("--list")
    here = tmp_path / "elsewhere"
    here.mkdir()
    (here / "inv").symlink_to(machine.root / "invoke")
    program = {"path": machine.root / "invoke", "link": "./inv", "the venv's": machine.root / ".venv/bin/invoke"}[kind]
    done = subprocess.run([program, "site.check", "x.json"], env=machine.environment(), cwd=here,
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == (f"ran site.check x.json in {here}\n", "")


def test_t15_a_folder_that_is_gone_is_no_obstacle(machine: Machine, tmp_path: Path) -> None:
    machine.run("--list")
    gone = tmp_path / "gone"
    gone.mkdir()
    done = subprocess.run(["bash", "-c", f'rmdir {gone}; exec "$0" --list', machine.root / "invoke"], cwd=gone,
                          env={**machine.environment(), "PATH": f"{machine.bin}:/bin"}, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=60)
    assert done.stdout == f"ran --list in {machine.root}\n", done.stderr


def environment_of_the_task(machine: Machine, **settings: str) -> dict[str, str]:
    done = machine.run("--list", SHOW="1", **settings)
    return dict(line.partition("=")[::2] for line in done.stdout.splitlines()[1:])


def test_t16_the_task_finds_the_tools_of_sbin(machine: Machine) -> None:
    assert environment_of_the_task(machine)["PATH"].split(":")[-2:] == ["/usr/sbin", "/sbin"]


def test_t17_what_is_set_for_other_programs_has_no_effect(machine: Machine) -> None:
    told = environment_of_the_task(machine, PYTHONPATH="/tmp/x", PYTHONHOME="/tmp/x", PYTHONOPTIMIZE="2",
                                   PYTHONSTARTUP="x", PYTHONIOENCODING="ascii", INVOKE_RUN_DRY="1", GIT_DIR="/x",
                                   PYTHONWARNINGS="error")
    assert {name for name in told if name.startswith(("PYTHON", "INVOKE", "GIT"))} == {"PYTHONIOENCODING"}
    assert told["LC_ALL"] == "C.UTF-8"


def test_m36_python_starts_in_a_checkout_whose_path_is_not_ascii(tmp_path: Path) -> None:
    """Python reads .pth files in the encoding of the locale, before any line of ours."""
    (folder := tmp_path / "wörk").mkdir()
    told = environment_of_the_task(Machine(folder), LC_ALL="C", LANG="de_DE")
    assert told["LC_ALL"] == "C.UTF-8"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
    (folder / "src").mkdir()
    (site / "cornerstone.pth").write_text(f"{folder / 'src'}\n", encoding="utf-8")
    done = subprocess.run([folder / "venv" / "bin" / "python", "-c", "import sys; print(ascii(sys.path))"],
                          env=told, capture_output=True, text=True, check=False)
    assert ascii(str(folder / "src")) in done.stdout, done.stderr


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_t10_closed_standard_streams_are_no_error(machine: Machine, closed: str) -> None:
    shown = machine.root / "shown"
    machine.edit("invoke", 'exec "$venv/bin/python"', f'/bin/ls -l /proc/$$/fd >{shown}\nexec "$venv/bin/python"')
    machine.run("--list")
    done = subprocess.run(["bash", "-c", f'"$0" --list {closed}', machine.root / "invoke"], cwd=machine.root,
                          env=machine.environment(), stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert {"0", "1", "2"} <= set(re.findall(r" ([0-9]+) -> ", shown.read_text()))


@pytest.mark.parametrize(("value", "code"), [("1", 0), ("true", 0), ("yes", 0), ("0", 3), ("false", 3), ("", 3)])
def test_t54_ci_is_what_ci_systems_set(machine: Machine, value: str, code: int) -> None:
    assert machine.run("--list", MISSING="xorriso", CI=value).returncode == code


ERRORS = {
    "no Python": (3, "no Python: 'python9' is not in PATH", "PYTHON=/path/to/python3", {"PYTHON": "python9"}),
    "old Python": (3, "is Python 3.9; 3.11 or newer is needed", "Debian 12", {"FAKE_VERSION": "3.9"}),
    "Python 2": (3, "is Python 2.7; 3.11 or newer is needed", "Debian 12", {"FAKE_VERSION": "2.7"}),
    "no ensurepip": (3, "has no venv and ensurepip modules", "python3-venv", {"FAKE_ENSUREPIP": "1"}),
    "nobody to ask": (3, "no terminal to ask on", "apt-get install --no-install-recommends xorriso",
                      {"MISSING": "xorriso"}),
    "no sudo": (3, "you are not root and have no sudo", "as root, run: apt-get install",
                {"MISSING": "xorriso", "FAKE_UID": "1000", "CI": "true"}),
    "apt fails": (4, "apt-get update failed", "network", {"MISSING": "xorriso", "FAKE_APT": "100", "CI": "true"}),
    "pip fails": (4, "pip can't install requirements.lock", "pip config list", {"FAKE_PIP": "1"}),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_say_what_and_how_to_mend_it(machine: Machine, case: str) -> None:
    code, message, hint, settings = ERRORS[case]
    result = machine.run("--list", **settings)
    error = result.stderr[result.stderr.index("error: "):]
    assert (result.returncode, result.stdout) == (code, "")
    assert message in error.splitlines()[0]
    assert hint in error.splitlines()[1]
    assert len(error.splitlines()) == 2
    assert not (machine.root / ".venv/venv.stamp").exists()


def test_sudo_that_wants_a_password_is_an_error(machine: Machine) -> None:
    machine.add("sudo", "#!/usr/bin/env bash\nexit 1\n")
    result = machine.run("--yes", MISSING="xorriso", FAKE_UID="1000")
    assert result.returncode == 3
    assert "error: sudo wants a password, and there is no terminal" in result.stderr
    assert "hint: run it yourself: sudo apt-get install" in result.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_shellcheck_passes(script: str) -> None:
    assert re.search(r"^shellcheck  #", (ROOT / "debian-packages.txt").read_text(), re.MULTILINE)
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is missing: ./invoke installs it")
    result = subprocess.run(["shellcheck", script], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_executable(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)


def test_each_package_has_a_reason() -> None:
    lines = [line for line in (ROOT / "debian-packages.txt").read_text().splitlines() if line and line[0] != "#"]
    assert lines
    for line in lines:
        assert re.fullmatch(r"[a-z0-9.+-]+( \| [a-z0-9.+-]+)*  # \S.*", line), line


def requirements() -> list[str]:
    """The lock's requirements, each with its hashes on one line."""
    text = (ROOT / "requirements.lock").read_text().replace("\\\n", " ")
    return [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def test_the_lock_pins_and_hashes_each_requirement() -> None:
    assert requirements()
    for line in requirements():
        assert re.match(r"[a-z0-9.-]+==[0-9][^ ]*( ;[^-]+)?( +--hash=sha256:[0-9a-f]{64})+$", line), line


def test_the_lock_names_no_host_and_no_path() -> None:
    text = (ROOT / "requirements.lock").read_text()
    assert not re.search(r"://|index|find-links|trusted-host|(^|\s)/\w", text.replace("--no-emit-index-url", ""))


def test_the_lock_has_all_that_pyproject_names() -> None:
    locked = {re.split("[=<>]", line)[0] for line in requirements()}
    text = (ROOT / "pyproject.toml").read_text()
    lists = re.findall(r"^(?:dependencies|test) = \[(.*?)\]", text, re.MULTILINE | re.DOTALL)
    assert len(lists) == 2
    named = {re.split("[=<>]", name)[0] for part in lists for name in re.findall(r'"([^"]+)"', part)}
    assert named <= locked
