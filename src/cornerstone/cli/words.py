"""The words of a command line: which task's flag each one belongs to, and whether it can be a value of it at all.

invoke takes a word by position only where a task requires it, and then takes even --help for it. Here a task names with
invoke's own `positional` what it takes by position, required or not, and its parser is given flags alone.
"""

from __future__ import annotations

import re

from invoke import Argument, Collection
from invoke.parser import ParserContext

from cornerstone.lib.error import CornerstoneError


class Words:
    """Reads command lines of a collection's tasks; core has the flags that go with any of them."""

    def __init__(self, collection: Collection, core: ParserContext) -> None:
        self.collections = collection.collections
        self.core = core
        self.tasks = {name: context for context in collection.to_contexts()
                      for name in (context.name, *context.aliases)}

    def with_flags(self, words: list[str]) -> list[str]:
        """The words with a flag before each that is taken by position: `verify X` is `verify --iso X`.

        A call for help becomes that alone. Raises CornerstoneError for a value that is empty or of the wrong kind.
        """
        if words[:1] == ["help"]:
            words = ["--help", *words[1:]]
        if words[:1] in (["--help"], ["-h"]) and words[1:2] and words[1] in self.collections:
            return ["--list", words[1]]
        if words[:1] and words[0] in self.collections and words[1:2] in (["--help"], ["-h"]):
            return ["--list", words[0]]
        flagged: list[str] = []
        context, places, last, at = self.core, [], None, 0
        while at < len(words) and words[at] != "--":
            word = words[at]
            at += 1
            if word.startswith("-") and word != "-":
                if context is not self.core and word in ("--help", "-h") and word not in context.flags:
                    return ["--help", context.name]
                flagged.append(word)
                at += self._take_value(context, places, words, at, flagged)
            elif places and (word not in self.tasks or (_is_required(places[0]) and places[0] is not last)):
                last = place = places[0]
                if place.kind is not list:
                    places.pop(0)
                check_value(context, place, word)
                flagged += [_flag(place), word]
            else:
                if word in self.tasks:
                    context = self.tasks[word]
                    places = list(context.positional_args)
                flagged.append(word)
        # without a task they are for invoke's own completion
        return flagged + (words[at:] if context is self.core else self._after_dashes(context, places, words[at + 1:]))

    def _after_dashes(self, context: ParserContext, places: list[Argument], words: list[str]) -> list[str]:
        """The words after a task and `--`, each by position, whatever it begins with, unless it is a flag of the task.

        invoke itself keeps them for tasks that would look at them, and none does. Raises CornerstoneError for a word
        that has no place.
        """
        flagged = []
        for word in words:
            if not places:
                raise CornerstoneError(f"{context.name}: no idea what {word!r} is", f"./invoke --help {context.name}")
            place = places[0]
            if place.kind is not list:
                places.pop(0)
            check_value(context, place, word)
            flagged.append(f"{_flag(place)}={word}")
        return flagged

    def _take_value(self, context: ParserContext, places: list[Argument], words: list[str], at: int,
                    flagged: list[str]) -> int:
        """Check the value of the flag that was just read, and move it over; returns how many words it took."""
        name, equals, value = words[at - 1].partition("=")
        argument = context.flags.get(name) or self.core.flags.get(name)
        if argument is None:
            return 0
        if argument in places and argument.kind is not list:
            places.remove(argument)
        if not argument.takes_value:
            if equals:
                raise CornerstoneError(f"{_of(context, argument)} takes no value, and {value!r} is given",
                                       f"write {name} alone")
            return 0
        if equals:
            check_value(context, argument, value)
            return 0
        if argument.optional:
            return 0
        if at == len(words) or words[at] in context.flags:
            raise CornerstoneError(f"{_of(context, argument)} needs a value", _hint(argument))
        check_value(context, argument, words[at])
        flagged.append(words[at])
        return 1


def check_value(context: ParserContext, argument: Argument, value: str) -> None:
    """Raise CornerstoneError when the value of a task's flag is empty, or isn't the number that it has to be."""
    if not value.strip():
        raise CornerstoneError(f"{_of(context, argument)} is empty", _hint(argument))
    if argument.kind is int and not re.fullmatch("-?[0-9]{1,9}", value):
        raise CornerstoneError(f"{_of(context, argument)} is {value!r}, not a whole number", _hint(argument))


def _is_required(argument: Argument) -> bool:
    """Whether the first word after the task is this argument's, even one that is the name of a task."""
    return argument.kind is list or argument.default is None


def _flag(argument: Argument) -> str:
    name = argument.names[0]
    return f"--{name}" if len(name) > 1 else f"-{name}"


def _of(context: ParserContext, argument: Argument) -> str:
    return f"{context.name}: {_flag(argument)}" if context.name else _flag(argument)


def _hint(argument: Argument) -> str:
    return f"give it a value, or leave it out: {argument.help}" if argument.help else "give it a value, or leave it out"
