"""`invoke bench`: how fast the factory is, beside the floor and its peers, on this machine in this hour."""
