"""Rules: each an id, a level, one function, one sentence and one hint. Standard library only: they run anywhere.

registry.py is the machinery, for any kind of rule; release.py holds the rules on releases and profiles, hardware.py
those on machines.
"""

from cornerstone.model.rules.hardware import check_machine
from cornerstone.model.rules.registry import REGISTRY, Level, Outcome, Result, Rule, Verdict
from cornerstone.model.rules.release import check_pair, check_profile, require_profile

__all__ = ["REGISTRY", "Level", "Outcome", "Result", "Rule", "Verdict", "check_machine", "check_pair", "check_profile",
           "require_profile"]
