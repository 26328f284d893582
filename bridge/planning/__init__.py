"""The plan: specs, a template and rules come in; a proven recipe, or a report of all that is wrong, comes out. Pure."""
