"""How the programs of a node end: in one line, with a code of docs/errors.md, and with an event where they have any."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from cornerstone.lib.error import Code, CornerstoneError, ends_in_one_line
from cornerstone.lib.event import telling_the_end

SOURCE = Path(__file__).resolve().parents[2] / "src"
ROOMS = ("cvm", "foundation", "hypervisor")
ERRORS = [
    (CornerstoneError("what is wrong", "how to mend it", Code.VERIFY), "what is wrong; how to mend it", Code.VERIFY),
    (FileNotFoundError(2, "No such file or directory", "/x"), "/x: No such file or directory", Code.MACHINE),
    (BrokenPipeError(32, "Broken pipe"), "Broken pipe", Code.MACHINE),
    (KeyError("odd"), "this is a defect of Cornerstone: KeyError: 'odd'", Code.DEFECT),
    (RecursionError("deep"), "this is a defect of Cornerstone: RecursionError: deep", Code.DEFECT),
]


@pytest.mark.parametrize(("error", "words", "code"), ERRORS, ids=lambda value: type(value).__name__)
def test_whatever_ends_a_program_is_its_last_line(capsys, error, words, code):
    @ends_in_one_line
    def main() -> int:
        raise error
    assert main() == code
    said = capsys.readouterr().err
    assert said.splitlines()[-1].startswith(words)
    assert ("Traceback" in said) == (code is Code.DEFECT)


@pytest.mark.parametrize(("error", "words", "code"), ERRORS, ids=lambda value: type(value).__name__)
def test_whatever_ends_it_is_the_last_event(error, words, code):
    told = []
    with pytest.raises(type(error)), telling_the_end(told.append, "hypervisor", "data-path"):
        raise error
    [event] = told
    assert (event.stage, event.step, event.state) == ("hypervisor", "data-path", "failed")
    assert words.startswith(event.message) and event.data["code"] == code.name.lower() and event.data["hint"]


def test_an_end_after_which_it_is_started_again_is_a_warning():
    told = []
    with pytest.raises(OSError), telling_the_end(told.append, "data-services", "target", again=True):
        raise OSError(110, "timed out")
    assert [event.state for event in told] == ["warning"]


def test_a_good_end_is_no_event():
    told = []
    with telling_the_end(told.append, "hypervisor", "data-path"):
        pass
    assert told == []


def programs() -> list[Path]:
    """The modules of a node that are started."""
    return [path for room in ROOMS for path in sorted((SOURCE / "cornerstone" / room).rglob("*.py"))
            if "__name__ == \"__main__\"" in path.read_text()]


@pytest.mark.parametrize("path", programs(), ids=lambda path: path.stem)
def test_every_program_of_a_node_ends_so(path):
    tree = ast.parse(path.read_text())
    name = "command" if path.stem == "__main__" else "main"
    [main] = [each for each in tree.body if isinstance(each, ast.FunctionDef) and each.name == name]
    assert "ends_in_one_line" in [each.id for each in main.decorator_list if isinstance(each, ast.Name)]


def test_there_are_programs():
    assert len(programs()) > 10


def test_a_pipe_that_is_not_read_ends_quietly():
    """More than a pipe holds, to a reader that has gone."""
    code = ("import sys; from cornerstone.lib.error import ends_in_one_line\n"
            "main = ends_in_one_line(lambda: print('x' * 200_000) or 0)\nsys.exit(main())")
    done = subprocess.run(["bash", "-c", '"$0" -c "$1" | head -c 1; echo "${PIPESTATUS[0]}"', sys.executable, code],
                          env={"PYTHONPATH": str(SOURCE), "PATH": "/usr/bin:/bin"}, capture_output=True, text=True,
                          check=True)
    assert (done.stdout, done.stderr) == ("x141\n", "")
