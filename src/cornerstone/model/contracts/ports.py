"""The ports on which a node's services listen, on its host and in its Controller VM. Standard library only."""

from __future__ import annotations

SSH = 22
NTP = 123
# the host's: what its CVM offers of the cluster's volumes (model/contracts/iscsi.py)
OFFERS = 2102
# a CVM's, for members by mutual TLS and, on the internal network, a page for its host
MEMBERSHIP = 2100
ISCSI = 3260
# a Ceph monitor's, the second version of the protocol alone
MONITOR = 3300
# `ms bind port min` and `max` of Ceph: OSDs and managers
CEPH_DAEMONS = range(6800, 7569)
