"""What a result was made with: versions, devices, and the machine around them."""

import importlib.metadata
import os
import platform
from pathlib import Path

import jax


def versions() -> dict[str, str]:
    packages = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy')
    device = jax.local_devices()[0]
    return {
        'python': platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
        'hardware': f'{jax.local_device_count()} x {device.device_kind} ({device.platform}), {host()}',
    }


def host() -> str:
    """The machine under the devices: its processor, how many cores of it this process may use, its memory."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    facts = [processor(), f'{cores} cores']
    if 'SC_PHYS_PAGES' in getattr(os, 'sysconf_names', {}):
        facts.append(f'{os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30:.1f} GiB of memory')
    return ', '.join(facts)


def processor(told: Path = Path('/proc/cpuinfo')) -> str:
    """The model as Linux tells it, else as Python does: the architecture at least."""
    lines = told.read_text(encoding='utf-8', errors='replace').splitlines() if told.exists() else []
    models = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    return next(filter(None, [*models[:1], platform.processor(), platform.machine()]), 'unknown processor')
