"""A model to be loaded and unloaded; nobody asks it anything."""


class TritonPythonModel:
    def execute(self, requests):
        return []
