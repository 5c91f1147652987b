"""In the Controller VM: who it is. Standard library only."""
