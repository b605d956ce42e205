"""Every input back as an output, whatever its type."""

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        names = [(tensor.name().replace("IN_", "OUT_"), tensor) for tensor in request.inputs()]
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, tensor.as_numpy()) for name, tensor in names])
