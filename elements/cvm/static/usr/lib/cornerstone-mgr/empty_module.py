"""A module of Ceph's manager that does nothing, in the place of one that the manager doesn't do without."""

from mgr_module import MgrModule


class Module(MgrModule):
    """Has no commands, and hears of nothing."""

    NOTIFY_TYPES = []
