"""Equinox models of well-known Hub architectures, each one file: modules, `Config`, `rules(config)`.

They use the public names of `bridge` only, as your own models would. Nothing is imported here, so that
`import bridge.models` stays light: import the file you want, `from bridge.models import bert`.
"""
