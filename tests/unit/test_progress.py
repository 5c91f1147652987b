"""How a build looks: plain lines when piped, alive on a terminal."""

from __future__ import annotations

import io
import re
import threading

import pytest
from rich.console import Console

from cornerstone.factory.build.progress import Progress
from cornerstone.lib.event import Event


def event(step: str, state: str, message: str = "", **data: object) -> Event:
    return Event("build", step, state, message, data)


BUILD = [event("cvm", "cached"), event("hypervisor", "started"),
         event("hypervisor", "progress", "7 of 9 MiB", percent=77), event("hypervisor", "done", seconds=12.34),
         event("iso", "started"), event("iso", "failed", "no [red] space")]


def shown(events: list[Event], **console: object) -> str:
    out = io.StringIO()
    with Progress(Console(file=out, width=60, highlight=False, **console)) as show:
        for one in events:
            show(one)
    return out.getvalue()


def test_plain_lines():
    assert shown(BUILD).splitlines() == [
        "= cvm                  cached",
        "  hypervisor …",
        "✓ hypervisor           12.3 s",
        "  iso …",
        "✗ iso                  failed  no [red] space"]


def test_piped_there_are_no_control_characters():
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", shown(BUILD))


def test_a_long_message_stays_one_line():
    message = "output/aos-6.8/foundation-aos-6.8.iso is up to date: nothing to do " * 3
    assert len(shown([event("iso", "cached", message)]).splitlines()) == 1


@pytest.mark.parametrize(("state", "mark"), [("done", "✓"), ("cached", "="), ("failed", "✗"), ("warning", "!"),
                                             ("waiting", "·")])
def test_marks(state, mark):
    assert shown([event("x", state)]).startswith(f"{mark} x ")


def test_progress_of_what_is_not_running_is_ignored():
    assert shown([event("x", "progress", "50 %")]) == ""


def test_terminal_shows_what_runs_and_leaves_only_the_results():
    out = io.StringIO()
    console = Console(file=out, width=60, force_terminal=True, highlight=False)
    with Progress(console) as show:
        for one in BUILD[:3]:
            show(one)
        show._live.refresh()
        assert re.search(r"hypervisor +0 s  7 of 9 MiB", out.getvalue())
        for one in BUILD[3:]:
            show(one)
        out.truncate(0)
        show._live.refresh()
        assert "hypervisor" not in out.getvalue(), "it runs no more"


def test_terminal_is_given_back_after_an_error():
    out = io.StringIO()
    with pytest.raises(KeyboardInterrupt), Progress(Console(file=out, width=60, force_terminal=True)) as show:
        show(event("x", "started"))
        raise KeyboardInterrupt
    assert not show._live.is_started
    assert out.getvalue().rpartition("\x1b[?25")[2].startswith("h"), "the cursor is back"


def test_two_threads_at_once():
    out = io.StringIO()

    def tell(show: Progress, name: str) -> None:
        for _ in range(50):
            show(event(name, "started"))
            show(event(name, "progress", "x"))
            show(event(name, "done", seconds=1.0))

    with Progress(Console(file=out, width=60, highlight=False)) as show:
        threads = [threading.Thread(target=tell, args=(show, name)) for name in ("one", "two")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    lines = out.getvalue().splitlines()
    assert len(lines) == 200
    assert all(re.fullmatch(r"  (one|two) …|✓ (one|two) +1\.0 s", line) for line in lines)
