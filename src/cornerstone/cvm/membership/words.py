"""What an operator has said to this node by the command `cluster`: an empty file for each word, until it is used up."""

from __future__ import annotations

from pathlib import Path

from cornerstone.cvm.membership.kept import write
from cornerstone.lib.atomic import flush
from cornerstone.model.contracts.places import STATE

# form the cluster that the site leaves to be formed by hand
CREATE = "create"
# other clusters' OSDs are given up, as far as node.json allows that too
NEW = "new-cluster"
# the cluster of the OSDs here goes on, though this node has lost all else of it
RECOVER = "recover"


def say(word: str, folder: Path = STATE) -> None:
    """Keep a word."""
    write(folder / word, "")


def said(word: str, folder: Path = STATE) -> bool:
    """Tell whether a word was said and isn't used up yet."""
    return (folder / word).exists()


def forget(word: str, folder: Path = STATE) -> None:
    """Use a word up."""
    if said(word, folder):
        (folder / word).unlink()
        flush(folder)
