"""The tasks as a person calls them: the list, the errors and their exit codes, and the end by a signal."""

from __future__ import annotations

import copy
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from invoke import Exit

from cornerstone.cli.cleaning import clean
from cornerstone.cli.ending import end
from cornerstone.cli.inputs import find_iso
from cornerstone.cli.testing import run_pytest
from cornerstone.factory.settings import Workspace
from cornerstone.lib.error import Code, CornerstoneError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tasks():
    """tasks.py as a module."""
    before = list(sys.path)
    sys.path.insert(0, str(ROOT))
    import tasks
    yield tasks
    sys.path[:] = before


def call(*words: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "tasks.py", *words], cwd=ROOT, capture_output=True, text=True,
                          check=False, timeout=60, env={**os.environ, **environment})


def test_list_reads_well():
    done = call("--list")
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"^  (\S+) +(\S.*)$", done.stdout, re.M)
    assert {"build", "verify", "boot", "matrix", "lock", "fetch", "test", "lint", "clean", "why"} <= dict(rows).keys()
    assert [name for name, sentence in rows if not sentence[0].isupper()] == []


def test_help_of_each_task_is_one_sentence(tasks):
    for name, task in tasks.ns.tasks.items():
        assert task.__doc__.splitlines()[0].endswith("."), name


def test_every_parameter_has_a_word_of_help(tasks):
    for name, task in tasks.ns.tasks.items():
        # of a copy, for a task gives away its words of help with its arguments
        arguments = copy.deepcopy(task).get_arguments()
        assert [argument.name for argument in arguments if not argument.help] == [], name


@pytest.mark.parametrize(("words", "message", "hint"), [
    (["build", "--profile", "nope"], "error: there is no profile 'nope'", "hint: "),
    (["why", "--profile", "aos-6.9"], "error: there is no profile 'aos-6.9'", "aos-6.8"),
    (["build", "--profile", "no/such.yaml"], "error: there is no profile file no/such.yaml", "aos-6.8"),
    (["build", "--from", "no/such"], "error: no/such isn't a folder of packages", "./invoke fetch --profile"),
    (["build", "--profile", "base"], "base is only for others to extend", "choose another profile"),
    (["verify", "--iso", "no/such.iso"], "error: no/such.iso isn't there", "./invoke build --profile aos-6.8"),
    (["verify", "no/such.iso"], "error: no/such.iso isn't there", "./invoke build --profile aos-6.8"),
    (["verify", "--key", "no/such.pem", "no/such.iso"], "error: no/such.iso isn't there", "hint: "),
    (["verify", "no/such.iso", "--key", "no/such.pem"], "error: no/such.iso isn't there", "hint: "),
    (["verify", "--profile", "nope"], "error: there is no profile 'nope'", "hint: "),
    (["verify", "--profile=nope", "lint"], "error: there is no profile 'nope'", "hint: "),
    (["boot", "--iso", "README.md", "--firmware", "foo"], "foo", "bios"),
    (["boot", "--iso", "README.md", "--media", "floppy"], "floppy", "usb"),
    (["test", "--tier", "units"], "error: there is no test tier 'units'", "hint: unit, "),
], ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_bad_input_is_one_error_with_a_hint(words, message, hint):
    done = call(*words)
    said = done.stdout + done.stderr
    assert done.returncode == Code.INPUT, said
    assert message in said
    assert hint in said
    assert "Traceback" not in said
    assert said.count("error:") == 1


@pytest.mark.parametrize("words", [["verify", "a.iso", "b.iso"], ["verify", "--iso", "a.iso", "b.iso"],
                                   ["lint", "a.iso"]], ids=" ".join)
def test_a_word_too_many_is_named(words):
    done = call(*words)
    assert done.returncode not in (0, None)
    assert f"No idea what '{words[-1]}' is!" in done.stderr


def test_help_of_a_task_with_an_iso_is_help():
    done = call("verify", "--help")
    assert done.returncode == 0
    assert "--iso" in done.stdout and "Check an ISO" in done.stdout


def test_a_task_that_is_none():
    done = call("biuld")
    assert done.returncode not in (0, None)
    assert "biuld" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("code", Code)
def test_each_error_ends_with_its_code(capsys, code):
    def body():
        raise CornerstoneError("what is wrong", "how to mend it", code)
    assert end(body) == code
    assert capsys.readouterr().err == "error: what is wrong\n  hint: how to mend it\n"


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_task_with_130(capsys, sign):
    before = signal.getsignal(signal.SIGTERM)

    def body():
        os.kill(os.getpid(), sign)
        signal.sigtimedwait([], 5)
    assert end(body) == 130
    assert capsys.readouterr().err.startswith("interrupted")
    assert signal.getsignal(signal.SIGTERM) is before, "the handler is given back"


SLOW = """
import sys
from pathlib import Path
from invoke import Collection, task
from cornerstone.cli.program import CommandLine
from cornerstone.lib import process

@task
def slow(c):
    process.GRACE_SECONDS = 2
    process.run(["sh", "-c", 'sleep 300 & echo $! >pid.new; mv pid.new pid; wait'], log=Path("log"))

CommandLine(Collection(slow), Path("."), before=lambda: None).run()
"""


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT], ids=["TERM", "INT"])
def test_a_signal_to_the_process_ends_what_it_runs(tmp_path, sign):
    (tmp_path / "slow_tasks.py").write_text(SLOW)
    running = subprocess.Popen([sys.executable, "slow_tasks.py", "slow"], cwd=tmp_path, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, start_new_session=True,
                               env={**os.environ, "PYTHONPATH": str(ROOT / "src")})
    try:
        for _ in range(1000):
            if (tmp_path / "pid").exists() or running.poll() is not None:
                break
            signal.sigtimedwait([], 0.01)
        assert running.poll() is None, running.communicate()
        running.send_signal(sign)
        _, said = running.communicate(timeout=20)
    finally:
        running.kill()
    assert running.returncode == 130, said
    assert "interrupted: what was running has been ended" in said
    assert "Traceback" not in said
    stat = Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}/stat")
    assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


def test_without_exit_code_a_task_goes_on(tasks):
    tasks.finish(0)
    with pytest.raises(Exit) as caught:
        tasks.finish(6)
    assert caught.value.code == 6


def test_iso_of_a_profile_and_of_a_path(tmp_path):
    (tmp_path / "x.iso").touch()
    for folder in ("profiles", "versions"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    workspace = Workspace(tmp_path)
    assert find_iso(workspace, str(tmp_path / "x.iso")) == tmp_path / "x.iso"
    with pytest.raises(CornerstoneError, match="aos-6.5.iso isn't there") as caught:
        find_iso(workspace, "", "aos-6.5")
    assert "./invoke build --profile aos-6.5" in caught.value.hint


@pytest.mark.parametrize(("cache", "left"), [(False, {"README.md", "cache"}), (True, {"README.md"})])
def test_clean(tmp_path, cache, left):
    for path in ("output/README.md", "output/aos-6.8/x.iso", "output/cache/pool/x", "output/stray"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    clean(Workspace(tmp_path), cache)
    assert {path.name for path in (tmp_path / "output").iterdir()} == left


@pytest.fixture
def tiers(tmp_path):
    """Two tiers: the one waits for the other to open a pipe, and that one fails when it has."""
    for name, body in (("one", "open(PIPE, 'w').close()"), ("two", "open(PIPE).close()\n    assert not 'the other'")):
        (tmp_path / "tests" / name).mkdir(parents=True)
        (tmp_path / "tests" / name / f"test_{name}.py").write_text(
            f"PIPE = {str(tmp_path / 'pipe')!r}\n\n\ndef test_it():\n    {body}\n")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "output").mkdir()
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    return tmp_path


def test_tiers_run_beside_each_other_and_all_of_them_are_told(tiers, capfd):
    assert run_pytest(Workspace(tiers), [["one"], ["two"]]) == [0, 1]
    said = capfd.readouterr().out
    assert said.index("1 passed") < said.index("assert not 'the other'") < said.index("1 failed")
    assert {path.name for path in (tiers / "output").glob("*.xml")} == {"junit-one.xml", "junit-two.xml"}


def test_an_interrupt_reaches_the_tests_and_is_waited_for(tiers, capfd):
    (tiers / "tests" / "one" / "test_one.py").write_text(
        f"import signal\n\n\ndef test_it():\n    open({str(tiers / 'pipe')!r}, 'w').close()\n    signal.pause()\n")

    def interrupt() -> None:
        (tiers / "pipe").open().close()
        os.kill(os.getpid(), signal.SIGINT)
    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run_pytest(Workspace(tiers), [["one"]])
    thread.join()
    assert "KeyboardInterrupt" in capfd.readouterr().out, "pytest itself has ended in order"
