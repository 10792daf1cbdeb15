"""A network of an ONNX file as onnxruntime runs it: a black box."""

from typing import Any, Self

import onnxruntime
import torch
from torch import Tensor

from robustbench_lab.errors import UsageError, describe_error
from robustbench_lab.plugin_tools.local_files import listed

PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")


def session(path: str, source: str) -> Any:
    """A file as onnxruntime runs it. Raises UsageError."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()  # as many as this worker may use
    options.log_severity_level = 4
    chosen = [one for one in PROVIDERS if one in onnxruntime.get_available_providers()]
    try:
        return onnxruntime.InferenceSession(path, options, chosen)
    except Exception as error:  # damaged, no ONNX file, an operator or version that it does not know
        raise UsageError(f"{source}: onnxruntime cannot load it ({describe_error(error)})") from error


class Inference:
    """Images `[B, C, H, W]` to any number of outputs, without gradient. Raises UsageError."""

    def __init__(self, path: str, source: str) -> None:
        self.session = session(path, source)
        self.source = source
        inputs = self.session.get_inputs()
        if len(inputs) != 1 or inputs[0].type != "tensor(float)" or len(inputs[0].shape) not in (3, 4):
            takes = listed(f"{one.name} {one.type} {one.shape}" for one in inputs)
            raise UsageError(f"{source}: takes {takes}; one input of float32 images is needed")
        self.input = inputs[0].name
        lengths = [one if isinstance(one, int) else None for one in inputs[0].shape]
        self.image_axes = len(lengths)
        """4, or 3 where it takes an image alone."""
        self.batch = 1 if self.image_axes == 3 else lengths[0]
        """How many images it takes at once; None: any number."""
        self.size: tuple[int | None, int | None] = (lengths[-2], lengths[-1])
        """Height and width of its images, None where the file leaves it open."""
        if self.batch not in (1, None):
            raise UsageError(f"{source}: takes {self.batch} images at once; export it for one, or for any number")
        self.outputs = [(one.name, one.shape) for one in self.session.get_outputs()]

    def __deepcopy__(self, _memo: Any) -> Self:
        return self  # it has no state

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Its outputs, in the file's order, for as many images as it takes at once."""
        given = images.detach().to("cpu", torch.float32).numpy()
        try:
            made = self.session.run(None, {self.input: given[0] if self.image_axes == 3 else given})
        except Exception as error:  # a size that does not fit
            raise UsageError(f"{self.source}: onnxruntime fails on it ({describe_error(error)})") from error
        return [torch.from_numpy(one).to(images.device) for one in made]
