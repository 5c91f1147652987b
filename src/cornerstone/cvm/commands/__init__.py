"""The commands of a CVM: cluster and acli."""
