"""The build: from a plan to an ISO with its evidence, reproducibly."""
