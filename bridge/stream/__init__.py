"""A plan carried out: bytes from files into the memory that the array library then takes over. Numpy and threads only."""
