"""A plan carried out: bytes from files into the memory that JAX then takes over. Numpy and threads only."""
