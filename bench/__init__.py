"""Measures bridge beside plain reads and beside its peers: whole processes, interleaved, as ratios within one run."""
