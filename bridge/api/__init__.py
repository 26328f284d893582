"""The public functions, which join the rooms below."""
