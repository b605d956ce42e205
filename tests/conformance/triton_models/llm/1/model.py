"""What vllm_backend sends for a prompt, with a word for every token and no model behind it."""

import json
import threading

import numpy as np
import triton_python_backend_utils as pb_utils

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
WORD = " word"
NO_PROMPT = "Error generating stream: When streaming, `exclude_input_in_output` = False is not allowed."


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            tensors = {tensor.name(): tensor.as_numpy()[0] for tensor in request.inputs()}
            asked = request.requested_output_names()
            threading.Thread(target=self._answer, args=(request.get_response_sender(), tensors, asked), daemon=True).start()

    def _answer(self, sender, tensors, asked):
        stream = bool(tensors.get("stream", False))
        exclude = bool(tensors.get("exclude_input_in_output", stream))
        if stream and not exclude:
            error = pb_utils.InferenceResponse([pb_utils.Tensor("text_output", _strings("N/A"))], pb_utils.TritonError(NO_PROMPT))
            sender.send(error, flags=FINAL)
            return
        count = json.loads(tensors.get("sampling_parameters", b"{}")).get("max_tokens", 16)
        prompt = tensors["text_input"].decode()
        if not stream:
            self._send(sender, tensors, asked, ("" if exclude else prompt) + WORD * count, count, last=True)
            return
        for place in range(1, count + 1):
            if sender.is_cancelled():
                return
            self._send(sender, tensors, asked, WORD, 1, last=place == count)

    def _send(self, sender, tensors, asked, text, tokens, last):
        values = {
            "finish_reason": _strings("length" if last else "None"),
            "cumulative_logprob": np.array([-1.0], dtype=np.float32),
            "logprobs": _strings("null"),
            "num_input_tokens": np.asarray(len(tensors["text_input"]), dtype=np.uint32),
            "num_output_tokens": np.array([tokens], dtype=np.uint32),
        }
        outputs = [pb_utils.Tensor("text_output", _strings(text))]
        outputs += [pb_utils.Tensor(name, value) for name, value in values.items() if tensors.get(f"return_{name}", False)]
        response = pb_utils.InferenceResponse([output for output in outputs if output.name() in asked])
        sender.send(response, flags=FINAL if last else 0)


def _strings(text):
    return np.array([text.encode()], dtype=object)
