"""The engine without a server: ``LLM`` for Python, and what ``octavo generate``, ``chat`` and ``batch`` run on."""
