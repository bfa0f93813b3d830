"""Whether JAX has the devices it was told to use, and what surrounds our computing."""

import contextlib
import os
from collections.abc import Iterator

import jax
from jax.extend.backend import backends, clear_backends

from charjax.errors import InputError
from charjax.model.arithmetic import own_arithmetic

_INSTALLS = {
    **dict.fromkeys(("cuda", "gpu"), 'pip install "jax[cuda12]" (or cuda13)'),
    "tpu": 'pip install "jax[tpu]"',
}


@contextlib.contextmanager
def computing() -> Iterator[None]:
    """Around whatever computes for a run: in types of our own, on devices that are there.

    Raises InputError where JAX has not the devices it was told to use.
    """
    require_devices()
    with own_arithmetic():
        yield


def require_devices() -> None:
    """Raises InputError where JAX has not the devices it was told to use."""
    try:
        jax.devices()
        if (default := _value("jax_default_device")) is not None:
            jax.devices(default)
    except (RuntimeError, AssertionError) as error:
        raise InputError(_refusal(error)) from error


def _refusal(error: Exception) -> str:
    reason = (str(error).partition(" (")[0].partition("\n")[0] or "no such plugin").strip()
    settings = ("jax_platforms", "jax_default_device", "jax_platform_name")
    told = [(name, value) for name in settings if (value := _value(name))]
    if not told:
        return f"JAX finds no device: {reason.rstrip('.')}."
    name, asked = told[0]
    name = f"${name.upper()}" if name.upper() in os.environ else name
    wanted = dict.fromkeys(_INSTALLS.get(each) for each in asked.lower().split(","))
    install = "".join(f"install JAX for it with {how}, or " for how in wanted if how)
    return (
        f"{name} is {asked!r}, and JAX does not find that here, only "
        f"{', '.join(_present())} ({reason.rstrip('.')}): {install}unset {name} to use "
        "what there is."
    )


def _value(setting: str) -> str | None:
    # Read by name, since a setting may not be an attribute of every version's config.
    value = jax.config.values.get(setting)  # pyright: ignore
    return value if isinstance(value, str) else None


def _present() -> list[str]:
    """The platforms that JAX would find by itself; what it was told stays."""
    failures = (RuntimeError, AssertionError)
    with contextlib.suppress(*failures):
        return sorted(backends())
    told = _value("jax_platforms")
    try:
        jax.config.update("jax_platforms", None)
        return sorted(backends())
    except failures:
        return ["none"]
    finally:
        # None were there before, so nothing lies on them.
        clear_backends()
        jax.config.update("jax_platforms", told)
