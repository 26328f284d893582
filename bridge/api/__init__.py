"""The public functions, and how each joins the rooms below."""
