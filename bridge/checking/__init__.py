"""A port held against what the PyTorch model computed."""
