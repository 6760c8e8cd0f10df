"""Versions of the software and names of the hardware that a report was made with."""

import importlib.metadata
import platform

import torch

_DISTRIBUTIONS = ("fairseq-fixed", "fairseq", "torch", "numpy", "sacrebleu", "ctranslate2")
_CPUINFO = "/proc/cpuinfo"  # Linux only


def collect_versions(devices):
    """{name: version} of Python and packages, and the names of processor and GPU.

    Args:
        devices: the torch devices that were used
    """
    versions = {"python": platform.python_version(), "processor": _processor_name()}
    for name in _DISTRIBUTIONS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    for device in devices:
        if device.type == "cuda":
            versions["gpu"] = torch.cuda.get_device_name(device)
    return versions


def _processor_name():
    """The model name in /proc/cpuinfo, or else the name that Python's platform module has."""
    try:
        with open(_CPUINFO) as lines:
            names = [line.split(":")[1].strip() for line in lines if "model name" in line]
    except OSError:  # not Linux
        names = []
    return names[0] if names else platform.processor() or platform.machine()
