"""The words that all rooms share: releases, pairings, rules, profiles, the manifest, events and errors.

Modules that run inside an image (error, event, manifest) use the standard library only.
"""
