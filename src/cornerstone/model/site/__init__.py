"""A site file: the nodes of a cluster, their addresses, keys and disks."""
