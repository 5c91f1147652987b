"""The cluster as its admin sees it: commands to the monitors, by the bindings, for a `ceph` process takes seconds."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from cornerstone.cvm.ceph.files import ADMIN_KEYRING, CONF
from cornerstone.lib.error import Code, CornerstoneError
from cornerstone.lib.json_text import parse

LOOK_AGAIN_SECONDS = 1
# of one answer: the map of OSDs of a cluster many times larger than ours
LONGEST_ANSWER = 64 << 20


class Cluster:
    """A connection as client.admin; for a with statement."""

    def __init__(self) -> None:
        # only there where it runs
        import rados
        self.error = rados.Error
        self.rados = rados.Rados(conffile=str(CONF), name="client.admin", conf={
            "keyring": str(ADMIN_KEYRING), "log_to_stderr": "false"})

    def __enter__(self) -> Cluster:
        try:
            self.rados.connect()
        except self.error as error:
            seconds = self.rados.conf_get("client_mount_timeout")
            raise CornerstoneError(f"no monitor answers within {seconds} s: {error}",
                                   "see: journalctl -u 'ceph-mon@*'; without a majority of them there is no cluster",
                                   Code.FAILED) from error
        return self

    def __exit__(self, *_: object) -> None:
        self.rados.shutdown()

    def command(self, prefix: str, **arguments: Any) -> Any:
        """The parsed answer to a command of `ceph`, None when it is empty. CornerstoneError with what it says."""
        return self._ask(self.rados.mon_command, prefix, arguments)

    def report(self, prefix: str, **arguments: Any) -> Any:
        """The same for a command that the manager answers; there must be one."""
        return self._ask(self.rados.mgr_command, prefix, arguments)

    def _ask(self, ask: Callable, prefix: str, arguments: Mapping[str, Any]) -> Any:
        words = {"prefix": prefix, "format": "json", **arguments}
        try:
            code, answer, said = ask(json.dumps(words), b"")
        except self.error as error:
            code, answer, said = -1, b"", str(error)
        if code:
            raise CornerstoneError(f"ceph {prefix}: {said or f'error {code}'}", "see: ceph status", Code.FAILED)
        return parsed(prefix, answer) if answer.strip() else None

    def key(self, entity: str, **capabilities: str) -> str:
        """The cephx key of an entity; made with these capabilities if there is none: mon="allow profile osd"."""
        caps = [word for pair in capabilities.items() for word in pair]
        return self.command("auth get-or-create", entity=entity, caps=caps)[0]["key"]


def parsed(prefix: str, answer: bytes) -> Any:
    """The answer to a command of `ceph`. Raises CornerstoneError when it isn't JSON; what Ceph says twice counts once.

    Daemons of other releases answer too, and what they list has names and labels of other people's.
    """
    try:
        return parse(answer, LONGEST_ANSWER, controls=True)[0]
    except ValueError as error:
        raise CornerstoneError(f"ceph {prefix}: what it answers {error}", "see: ceph status", Code.FAILED) from None


def wait_until(so: Callable[[], bool], seconds: float) -> bool:
    """Whether something came true in time. The monitors tell clients of the bindings nothing, so they are asked."""
    end = time.monotonic() + seconds
    while not so():
        if time.monotonic() > end:
            return False
        time.sleep(LOOK_AGAIN_SECONDS)
    return True
