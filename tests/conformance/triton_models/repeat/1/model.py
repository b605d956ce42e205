"""One response per element of ``IN``, the last with the final flag; ``ERROR`` names the code of an error that follows them all."""

import threading
import time

import numpy as np
import triton_python_backend_utils as pb_utils

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            threading.Thread(target=self._answer, args=(request.get_response_sender(), *self._read(request)), daemon=True).start()

    def _read(self, request):
        tensors = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        error = tensors["ERROR"][0].decode() if "ERROR" in tensors else ""
        return tensors["IN"].tolist(), int(tensors.get("DELAY_MS", [0])[0]) / 1000, error

    def _answer(self, sender, values, delay, error):
        for place, value in enumerate(values, 1):
            if sender.is_cancelled():
                break
            time.sleep(delay)
            response = pb_utils.InferenceResponse([pb_utils.Tensor("OUT", np.array([value], dtype=np.int32))])
            sender.send(response, flags=FINAL if place == len(values) and not error else 0)
        if error:
            code = getattr(pb_utils.TritonError, error)
            sender.send(pb_utils.InferenceResponse(error=pb_utils.TritonError(f"it failed with {error}", code)), flags=FINAL)
