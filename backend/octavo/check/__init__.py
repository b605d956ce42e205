"""Looks at a repository before anything is loaded: what would be refused, and what memory each model will take."""
