"""Arrays onto devices: which shards this process holds, and memory that JAX takes over without a copy."""
