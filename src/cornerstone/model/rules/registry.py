"""What a rule is, and the one registry of all rules. Standard library only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Level(StrEnum):
    """How bad a violation is."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


class Outcome(StrEnum):
    """What a rule found."""

    OK = "ok"
    VIOLATED = "violated"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Result:
    """The outcome, and a message that names the values that led to it."""

    outcome: Outcome
    message: str

    @classmethod
    def ok(cls, message: str) -> Result:
        """The rule holds."""
        return cls(Outcome.OK, message)

    @classmethod
    def violated(cls, message: str) -> Result:
        """The rule is broken."""
        return cls(Outcome.VIOLATED, message)

    @classmethod
    def unknown(cls, message: str) -> Result:
        """Nothing that is known decides; never a pass."""
        return cls(Outcome.UNKNOWN, message)


@dataclass(frozen=True)
class Rule:
    """scope names what check takes: pair and profile take a Subject of release.py, machine one of hardware.py.

    sentence: what holds when the rule is met; hint: how to mend it when it isn't.
    """

    id: str
    level: Level
    scope: str
    sentence: str
    hint: str
    check: Callable[[Any], Result]


@dataclass(frozen=True)
class Verdict:
    """One rule's result for one subject."""

    rule: Rule
    outcome: Outcome
    message: str

    @property
    def severity(self) -> Level | None:
        """None when the rule is met; its level when violated; when unknown the level too, but at most a warning."""
        if self.outcome is Outcome.OK:
            return None
        if self.outcome is Outcome.UNKNOWN and self.rule.level is Level.ERROR:
            return Level.WARNING
        return self.rule.level


class Registry:
    """All rules by id, in the order of their definition."""

    def __init__(self) -> None:
        self._rules: dict[str, Rule] = {}

    def rule(self, rule_id: str, level: Level, scope: str, hint: str) -> Callable[[Callable[[Any], Result]],
                                                                                  Callable[[Any], Result]]:
        """Register a function as a rule; its docstring is the sentence. ValueError for an id that is taken."""
        def register(check: Callable[[Any], Result]) -> Callable[[Any], Result]:
            if rule_id in self._rules:
                raise ValueError(f"two rules have the id {rule_id}")
            self._rules[rule_id] = Rule(rule_id, level, scope, (check.__doc__ or "").strip(), hint, check)
            return check
        return register

    def rules(self, *scopes: str) -> tuple[Rule, ...]:
        """The rules of these scopes; of all scopes when none is given."""
        return tuple(rule for rule in self._rules.values() if not scopes or rule.scope in scopes)

    def check(self, subject: Any, *scopes: str) -> tuple[Verdict, ...]:
        """Run the rules of these scopes on one subject, in order."""
        verdicts = []
        for rule in self.rules(*scopes):
            result = rule.check(subject)
            verdicts.append(Verdict(rule, result.outcome, result.message))
        return tuple(verdicts)


REGISTRY = Registry()
