"""What a model is to the mapping: the names of its leaves, and the layouts of its layers. JAX begins here."""
