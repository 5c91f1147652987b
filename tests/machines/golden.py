"""What every rule says of every recorded machine, for a profile of the default sizes.

    .venv/bin/python tests/machines/golden.py

writes tests/machines/golden/ anew; look at the difference before you commit it.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "src"))

from cornerstone.model.facts import Facts  # noqa: E402
from cornerstone.model.requirements import GIB, Requirements  # noqa: E402
from cornerstone.model.rules import check_machine  # noqa: E402

# profiles/base.yaml, and an ISO of 2026-11-20
NEEDS = Requirements(controller_memory=20 * GIB, controller_vcpus=8, controller_disk=20 * GIB, root_slot=2 * GIB,
                     epoch=1795132800)


def names() -> list[str]:
    """The recorded machines."""
    return sorted(path.stem for path in HERE.glob("*.json"))


def machine(name: str) -> Facts:
    return Facts.load(HERE / f"{name}.json")


def verdicts(name: str) -> str:
    """One line a rule: severity, or ok; id; message."""
    return "".join(f"{verdict.severity or 'ok':<8} {verdict.rule.id:<21} {verdict.message}\n"
                   for verdict in check_machine(machine(name), NEEDS))


if __name__ == "__main__":
    (HERE / "golden").mkdir(exist_ok=True)
    for old in (HERE / "golden").iterdir():
        old.unlink()
    for each in names():
        (HERE / "golden" / f"{each}.txt").write_text(verdicts(each))
