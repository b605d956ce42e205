"""Grammars that answers follow, each in a process that may be killed."""
