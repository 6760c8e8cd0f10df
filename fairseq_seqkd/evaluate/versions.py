"""What numbers were made with."""

import importlib.metadata
import platform

import torch

_DISTRIBUTIONS = ("fairseq-fixed", "fairseq", "torch", "numpy", "sacrebleu", "ctranslate2")


def versions(devices):
    """{what: version or name}, of what is installed.

    Args:
        devices: torch's, whose names are wanted
    """
    found = {"python": platform.python_version(), "processor": _processor()}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    for device in devices:
        if device.type == "cuda":
            found["gpu"] = torch.cuda.get_device_name(device)
    return found


def _processor():
    try:
        with open("/proc/cpuinfo") as lines:
            names = [line.split(":")[1].strip() for line in lines if "model name" in line]
    except OSError:  # elsewhere than on Linux
        names = []
    return names[0] if names else platform.processor() or platform.machine()
