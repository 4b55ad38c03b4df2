"""What Triton loads for each model whose config says ``backend: "tensorrtllm"``: our engine, NVIDIA's tensors."""

from __future__ import annotations

import json
import sys
import threading
import traceback
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

from labsupport.backends.tensorrtllm import inputs, outputs, parameters
from labsupport.backends.tensorrtllm.load import load
from labsupport.backends.tensorrtllm.metrics import Gauges, values
from labsupport.backends.tensorrtllm.replies import Reply
from labsupport.backends.tensorrtllm.scheduler import Open, Scheduler
from labsupport.engine.requests import Result
from labsupport.errors import LabError

SWITCH_S = 2e-4  # a graph holds Python's lock while it runs: at 5 ms, the default, an answer waits for a step or two
FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


class TritonPythonModel:
    """One instance of a model."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load the engine and start the threads."""
        sys.setswitchinterval(SWITCH_S)
        warnings.simplefilter("always", UserWarning)  # an output that is cut short is told each time
        warnings.showwarning = lambda message, *_, **__: pb_utils.Logger.log_warn(str(message))
        self.parameters = parameters.read(
            json.loads(args["model_config"]), Path(args["model_repository"]), pb_utils.Logger.log_warn
        )
        executor, note = load(self.parameters)
        pb_utils.Logger.log_info(note)
        self.vocab_size = executor.vocab_size
        self.logits = np.float16 if self.parameters.half_logits else np.float32
        self.scheduler = Scheduler(
            executor,
            self.render,
            pb_utils.Logger.log_error,
            cancellation_check_period_ms=self.parameters.cancellation_check_period_ms,
            max_queue_size=self.parameters.max_queue_size,
        )
        self.closing = threading.Event()
        gauges = Gauges(pb_utils, args["model_name"], args["model_version"], self.parameters.batching_type)
        threading.Thread(target=self.report, args=(gauges,), daemon=True).start()

    def execute(self, requests: list[Any]) -> None:
        """Hand the requests to the batch, and return; the threads answer."""
        for request in requests:
            reply = Reply(request.get_response_sender(), make_response, FINAL)
            try:
                self.take(request, reply)
            except Exception as problem:
                if not isinstance(problem, LabError):
                    pb_utils.Logger.log_error(traceback.format_exc())
                reply.fail(str(problem))

    def take(self, request: Any, reply: Reply) -> None:
        """One request."""
        name = request.request_id()
        given = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        if np.any(given.get("stop", False)):
            self.stop(name, reply)
            return
        prompts = inputs.read(
            given,
            decoupled=self.parameters.decoupled,
            exclude_input=self.parameters.exclude_input_in_output,
            vocab_size=self.vocab_size,
        )
        reply.parts(len(prompts))
        self.scheduler.submit(name, prompts, reply)

    def stop(self, name: str, reply: Reply) -> None:
        """Cancel the request of that name, and answer with nothing."""
        if not name:
            reply.fail("Trying to stop a request but request ID is not provided")
            return
        self.scheduler.stop(name)
        reply.send({}, ends=True)

    def render(self, result: Result, one: Open) -> None:
        """Send a result."""
        one.reply.send(outputs.tensors(result, one.prompt, self.logits), ends=result.is_final)

    def report(self, gauges: Gauges) -> None:
        """Show the gauges, again and again."""
        while not self.closing.wait(self.parameters.stats_check_period_ms / 1000):
            try:
                gauges.show(values(self.scheduler))
            except Exception:
                pb_utils.Logger.log_error(traceback.format_exc())

    def finalize(self) -> None:
        """Answer everybody, and end the threads."""
        self.closing.set()
        self.scheduler.close()


def make_response(tensors: Mapping[str, NDArray[Any]], error: str | None) -> Any:
    """A response of Triton."""
    if error is not None:
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(error))
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, array) for name, array in tensors.items()])
