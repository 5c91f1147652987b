"""On the installed host: the Controller VM's domain, and the watch over it. Standard library only."""
