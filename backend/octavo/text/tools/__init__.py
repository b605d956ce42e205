"""How models call tools: one file for each format that they were trained on. Knows no wire."""
