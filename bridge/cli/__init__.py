"""The command line: a file for each command. The only room that prints."""
