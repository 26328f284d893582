"""Running a function of a model so that each submodule's inputs and outputs are seen: `bridge.trace`."""
