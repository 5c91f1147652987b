"""Network namespaces for tests: two or more machines with cables between them, gone afterwards."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")
CLONE_NEWNET = 0x40000000
_numbers = itertools.count()
_libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """A network namespace; only this process's threads that are sent into it, and their children, are there."""

    def __init__(self, name: str) -> None:
        self.name = name

    def ip(self, *lines: str) -> None:
        """Run commands of `ip` in it."""
        subprocess.run(["ip", "-netns", self.name, "-batch", "-"], input="".join(f"{line}\n" for line in lines),
                       text=True, check=True)

    def call(self, function: Callable[..., Result], *arguments, **named) -> Result:
        """Call a function in it, on a thread of its own."""
        with ThreadPoolExecutor(1, initializer=self._enter) as thread:
            return thread.submit(function, *arguments, **named).result()

    def _enter(self) -> None:
        handle = os.open(Path("/run/netns") / self.name, os.O_RDONLY)
        try:
            if _libc.setns(handle, CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
        finally:
            os.close(handle)


@contextlib.contextmanager
def namespace() -> Iterator[Namespace]:
    """A new namespace, without any card but lo."""
    name = f"cornerstone-{os.getpid()}-{next(_numbers)}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        yield Namespace(name)
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


def cable(one: Namespace, nic: str, mac: str, other: Namespace, other_nic: str, other_mac: str) -> None:
    """A cable between two: a pair of cards, both up."""
    one.ip(f"link add {nic} address {mac} type veth peer name {other_nic} address {other_mac} netns {other.name}",
           f"link set {nic} up")
    other.ip(f"link set {other_nic} up")
