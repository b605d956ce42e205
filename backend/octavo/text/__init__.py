"""Text in, text out: tokenising, detokenising, stop strings and one request's life. Knows no wire format and no tensor."""
