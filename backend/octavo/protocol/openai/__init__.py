"""The OpenAI dialect: request bodies to ``GenerateRequest``, answers to bodies and server-sent events. Knows no route."""
