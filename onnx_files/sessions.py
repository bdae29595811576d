"""ONNX Runtime sessions on each execution provider, and what they give back.

`PROVIDERS` is the table of where a file can run. A session never falls back to another provider in silence: one that
is not there is an error, and `nodes_on_provider` says how much of a graph truly runs on the one that was asked for.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from foundation.arrays import let_go_of_pages
from foundation.errors import NotMeasuredError, StageError, UsageError
from foundation.progress import Progress, no_progress
from onnx_files.answers import AnswerForm
from onnx_files.preprocessing import METADATA_KEY, Preprocessing

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, SessionOptions

_OPENVINO = "OpenVINOExecutionProvider"
_OPENVINO_REGISTRATION = "edgeproof-openvino"
_MAPPED_BYTES = 1 << 25
"""Of images that are mapped from disk, which may stay in memory."""


@dataclass(frozen=True)
class Provider:
    """Where a file can run.

    Attributes:
        execution_provider: ONNX Runtime's name of it.
        attach: gives session options what the provider needs for a number of threads, and returns the list of
            providers to open the session with (None where the options hold it already). Raises NotMeasuredError
            where the provider is not installed or this machine is not one of its own.
    """

    execution_provider: str
    attach: Callable[[SessionOptions, int], Sequence[str | tuple[str, dict[str, str]]] | None]


def open_session(path: Path, provider: str, threads: int, profile_prefix: Path | None = None) -> InferenceSession:
    """Open a model on one provider with a fixed number of threads.

    Inside a query the threads spin as they would in an application; between queries they rest, so that an idle
    session takes nothing from the one that is being measured.

    Args:
        path: an ONNX file.
        provider: a key of `PROVIDERS`.
        threads: threads inside an operator, at least 1; operators run one after another.
        profile_prefix: begins the path of a profile of every query; None for no profile.

    Raises:
        UsageError: the file is missing or is no ONNX model, or the provider is unknown.
        NotMeasuredError: the provider is not installed, or not for this machine.
        StageError: the provider refused the model.
    """
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as states

    row = _provider_row(provider)
    if not path.is_file():
        raise UsageError(f"{path}: expected an ONNX file, found none. Run the stage that writes it first.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4 if provider == "cpu" else 3  # what the processor's says is in the error it raises
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if profile_prefix is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile_prefix)
    providers = row.attach(options, threads)
    try:
        # enable_fallback would retry a refused model on the CPU and say so on stdout only.
        session = onnxruntime.InferenceSession(path, options, providers=providers, enable_fallback=0)
    except (states.InvalidProtobuf, states.InvalidGraph, states.InvalidArgument, states.Fail) as error:
        raise UsageError(
            f"{path}: expected an ONNX model that ONNX Runtime {onnxruntime.__version__} can read, found something "
            f"else ({_first_line(error)}). Delete it and run the stage that writes it again."
        ) from error
    except (states.NotImplemented, states.EPFail, states.RuntimeException, states.EngineError) as error:
        raise StageError(
            f"{path}: the provider {provider} cannot run this model ({_first_line(error)}). "
            "Leave the variant or the provider out of the configuration."
        ) from error
    if row.execution_provider not in session.get_providers():
        raise NotMeasuredError(
            f"{provider}: expected {row.execution_provider}, but the session for {path} runs on "
            f"{', '.join(session.get_providers())} only. Check the provider's installation with `edgeproof doctor`."
        )
    return session


def nodes_on_provider(session: InferenceSession, provider: str) -> float:
    """Return the share of the graph's nodes, 0 to 1, that ONNX Runtime gave to the provider; the CPU has the rest.

    The nodes are counted when they are assigned, before the provider fuses them.
    """
    wanted = _provider_row(provider).execution_provider
    assigned = [(part.ep_name, len(part.get_nodes())) for part in session.get_provider_graph_assignment_info()]
    total = sum(count for _, count in assigned)
    return sum(count for name, count in assigned if name == wanted) / total if total else 0.0


def why_unavailable(provider: str) -> str | None:
    """Return the sentence that says why a provider cannot be used here, or None if it can."""
    import onnxruntime

    try:
        _provider_row(provider).attach(onnxruntime.SessionOptions(), 1)
    except NotMeasuredError as error:
        return str(error)
    return None


def available_providers() -> tuple[str, ...]:
    """Return the names of the providers that can be used on this machine."""
    return tuple(name for name in PROVIDERS if why_unavailable(name) is None)


def session_preprocessing(session: InferenceSession) -> Preprocessing:
    """Return how images reach the model, from the metadata of its file.

    Raises:
        UsageError: the file carries no such metadata.
    """
    metadata: Mapping[str, str] = session.get_modelmeta().custom_metadata_map
    try:
        return Preprocessing.from_metadata(metadata)
    except (KeyError, ValueError) as error:
        raise UsageError(
            f"{_path_of(session)}: expected the metadata entry {METADATA_KEY}, found "
            f"{', '.join(sorted(metadata)) or 'no metadata'}. Export the network with edgeproof."
        ) from error


def session_answers(session: InferenceSession) -> AnswerForm | None:
    """Return what a file answers with, from its metadata; None for logits in its first output.

    Raises:
        UsageError: the entry is none of ours.
    """
    try:
        return AnswerForm.from_metadata(session.get_modelmeta().custom_metadata_map)
    except ValueError as error:
        raise UsageError(f"{_path_of(session)}: {error}. Remove the entry.") from error


def gives_scores(session: InferenceSession) -> bool:
    """Return whether a file says how sure it is; False where it gives the number of a class alone.

    Raises:
        UsageError: what its metadata say of its answers is none of ours.
    """
    answers = session_answers(session)
    return answers is None or answers.kind != "label"


def batch_size_of(session: InferenceSession, asked: int) -> int:
    """Return the images of one query: as many as the file takes; as were asked for where it leaves that open."""
    fixed = session.get_inputs()[0].shape[0]
    return fixed if isinstance(fixed, int) else asked


def predict(
    session: InferenceSession, images: NDArray[np.uint8], batch_size: int, progress: Progress = no_progress
) -> NDArray[np.float32]:
    """Return a model's logits for images, in memory that does not grow with images that are mapped from disk.

    Args:
        session: of a model with one input, in either layout, and the metadata entry `edgeproof.preprocessing`; what
            it answers with stands in `edgeproof.answers`, and without such an entry its first output holds logits.
        images: uint8 [n, channels, height, width]; may be mapped from disk.
        batch_size: images per query, where the file leaves that open. It can change the answer: dynamic quantization
            takes its range from the batch. A fixed batch that images do not fill is filled up with the last one.
        progress: called after each query with the images done and all.

    Returns:
        float32 [n, classes].

    Raises:
        UsageError: the images don't fit the model.
        StageError: a logit is NaN or infinite.
    """
    preprocessing, answers = session_preprocessing(session), session_answers(session)
    _require_fitting(session, images, preprocessing)
    name = answers.output if answers else session.get_outputs()[0].name
    entry = session.get_inputs()[0].name
    size, fixed = batch_size_of(session, batch_size), session.get_inputs()[0].shape[0]
    logits = np.empty((0, 0), np.float32)
    pages_at_a_time = max(size, _MAPPED_BYTES // max(1, images[:1].nbytes))
    let_go = 0
    for start in range(0, len(images), size):
        batch = images[start : start + size]
        count = len(batch)
        if size == fixed and count < size:
            batch = np.concatenate([batch, np.repeat(batch[-1:], size - count, axis=0)])
        values = np.asarray(session.run([name], {entry: preprocessing.to_input(batch)})[0])[:count]
        found = answers.to_logits(values) if answers else values.reshape(count, -1)
        if not len(logits):
            logits = np.empty((len(images), found.shape[1]), np.float32)
        logits[start : start + count] = found
        if start + count - let_go >= pages_at_a_time:
            let_go_of_pages(images)
            let_go = start + count
        progress(start + count, len(images))
    broken = int((~np.isfinite(logits)).any(axis=1).sum())
    if broken:
        raise StageError(
            f"{_path_of(session)}: expected finite logits, found NaN or infinity for {broken} of "
            f"{len(logits)} images. Its numbers overflow; leave more of it in float or choose another method."
        )
    return logits


def _require_fitting(session: InferenceSession, images: NDArray[np.uint8], preprocessing: Preprocessing) -> None:
    expected, found = list(session.get_inputs()[0].shape[1:]), list(images.shape[1:])
    axes = ["channels", "height", "width"]
    if preprocessing.layout == "NHWC":
        found, axes = [*found[1:], *found[:1]], [*axes[1:], *axes[:1]]
    # A dimension with a name instead of a number takes any size.
    if len(expected) != len(found) or any(
        isinstance(e, int) and e != f for e, f in zip(expected, found, strict=True)
    ):
        raise UsageError(
            f"{_path_of(session)}: expected images of shape {expected} ({', '.join(axes)}), found {found}. "
            "Use the data that the model was exported for."
        )


# --- how each provider is attached ---


def _attach_cpu(options: SessionOptions, threads: int) -> list[str]:
    return ["CPUExecutionProvider"]


def _attach_cuda(options: SessionOptions, threads: int) -> list[str]:
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise NotMeasuredError(
            "cuda: expected an onnxruntime with CUDA, found one without. Install `onnxruntime-gpu` in place of "
            "`onnxruntime` on a machine with an NVIDIA GPU, or leave cuda out of the providers."
        )
    return ["CUDAExecutionProvider", "CPUExecutionProvider"]


def _attach_openvino(options: SessionOptions, threads: int) -> Sequence[str | tuple[str, dict[str, str]]] | None:
    import onnxruntime

    # On processors with bfloat16 it would compute a float file in that, and its latency would belong to answers that
    # nobody measured. `num_of_threads` is ignored by the plug-in; the device's own property is what counts.
    properties = {"CPU": {"INFERENCE_NUM_THREADS": str(threads), "INFERENCE_PRECISION_HINT": "f32"}}
    given = {"load_config": json.dumps(properties)}
    registered = {device.ep_name for device in onnxruntime.get_ep_devices()}  # the plug-in, by an earlier session
    if _OPENVINO in onnxruntime.get_available_providers() and _OPENVINO not in registered:
        # The provider of onnxruntime-openvino, in place of onnxruntime.
        return [(_OPENVINO, {"device_type": "CPU", **given}), "CPUExecutionProvider"]
    devices = _openvino_cpu_devices()
    if not devices:
        raise NotMeasuredError(
            "openvino: expected onnxruntime-ep-openvino to offer this machine's CPU, found that it does not "
            f"({platform.machine()}, {_cpu_vendor()}; its versions up to 1.8.1 take Intel's CPUs only). Install "
            "`onnxruntime-openvino` in place of `onnxruntime`, which takes every x86-64, or leave openvino out of "
            "the providers."
        )
    options.add_provider_for_devices(devices, given)
    return None


def _openvino_cpu_devices() -> list[Any]:
    try:
        import onnxruntime_ep_openvino as plug_in
    except ImportError as error:
        raise NotMeasuredError(
            "openvino: expected the package onnxruntime-ep-openvino, found none. "
            "Install it with `pip install 'edgeproof[openvino]'`, or leave openvino out of the providers."
        ) from error
    import onnxruntime
    from onnxruntime.capi.onnxruntime_pybind11_state import Fail

    try:
        onnxruntime.register_execution_provider_library(_OPENVINO_REGISTRATION, plug_in.get_library_path())
    except Fail as error:
        if "already registered" not in str(error):
            raise NotMeasuredError(
                f"openvino: expected onnxruntime {onnxruntime.__version__} to load the plug-in, found that it cannot "
                f"({_first_line(error)}). Install the versions that `edgeproof doctor` names."
            ) from error
    # Beside the plain provider the plug-in lists meta-devices such as "….AUTO", which would choose for themselves.
    return [
        device
        for device in onnxruntime.get_ep_devices()
        if device.ep_name == plug_in.get_ep_name() and device.device.type == onnxruntime.OrtHardwareDeviceType.CPU
    ]


def _cpu_vendor() -> str:
    import onnxruntime

    vendors = {device.device.vendor for device in onnxruntime.get_ep_devices() if device.device.vendor}
    return "/".join(sorted(vendors)) or "vendor unknown"


def _provider_row(provider: str) -> Provider:
    if provider not in PROVIDERS:
        raise UsageError(f"provider {provider!r}: expected one of {', '.join(PROVIDERS)}.")
    return PROVIDERS[provider]


def _path_of(session: InferenceSession) -> str:
    return str(getattr(session, "_model_path", None) or "the model")


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


PROVIDERS: Mapping[str, Provider] = {
    "cpu": Provider("CPUExecutionProvider", _attach_cpu),
    "openvino": Provider(_OPENVINO, _attach_openvino),
    "cuda": Provider("CUDAExecutionProvider", _attach_cuda),
}
