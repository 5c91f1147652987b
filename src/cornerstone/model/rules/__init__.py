"""Rules: each an id, a level, one function, one sentence and one hint. Standard library only: they run anywhere.

registry.py is the machinery, for any kind of rule; release.py holds the rules on releases and profiles, hardware.py
those on machines. Nothing is imported here: a room has the rules that it runs, and no others.
"""
