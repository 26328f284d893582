"""The rule language: text in, checked `Rule` out. Knows no files, no models, no JAX."""
