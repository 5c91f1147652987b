"""How a node becomes a member of its cluster, and how members speak with one another: mutual TLS on port 2100."""

from cornerstone.cvm.membership.join import bootstrap_secret, bring_up, get_to_know
from cornerstone.cvm.membership.kept import Membership, keep, load

__all__ = ["Membership", "bootstrap_secret", "bring_up", "get_to_know", "keep", "load"]
