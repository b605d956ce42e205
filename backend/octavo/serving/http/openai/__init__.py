"""The OpenAI API over HTTP: routes, status codes and server-sent events. What bodies mean is in ``protocol.openai``."""
