"""Commands of the host's tools, each in bounded time: what hangs is left behind, so that the rest can go on."""

from __future__ import annotations

from cornerstone.lib import command

SECONDS = 120.0
# a CVM's memory is pinned, and so zeroed, before its start returns
VIRSH_SECONDS = 600.0


def run(*words: str, seconds: float = SECONDS) -> tuple[int, str]:
    """Run a command and return its exit code and what it said on both outputs.

    124 when it hasn't ended after so many seconds, 127 when it can't be run: with words that say so.
    """
    done = command.run(words, seconds=seconds, merged=True)
    return done.code, done.text.strip() or done.said


def virsh(*words: str, seconds: float = VIRSH_SECONDS) -> tuple[int, str]:
    """Run virsh and return its exit code and what it printed, or else its error, in one line."""
    done = command.run(("virsh", "--quiet", *words), seconds=seconds)
    return done.code, " ".join((done.text.strip() or done.said).split())
