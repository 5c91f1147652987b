"""What is inside an ISO's roots, read as data; nothing in it is run."""
