"""The catalogue: releases, their versions, and which pairs are compatible."""
