"""Wire messages to ``GenerateRequest`` and ``GenerateChunk`` to wire messages: one dialect after the other. Knows no transport."""
