"""Index maps: rules meet names and shapes. Pure: no files, no models, no JAX, no values."""
