"""Where checkpoints are written: the old one or the new one stands there, whole, at every moment."""
