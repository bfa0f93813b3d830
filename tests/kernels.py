"""Kernels made up for a CPU, which has none, so that there is something to prove."""

import time

import jax
import jax.numpy as jnp

from charjax.model.recurrence import choose, plain, scan, triton

PROVEN = "triton"

_scan = scan.run


def install(set_attribute, run=plain.run, otherwise=0.01):
    """Makes `run` a kernel that `auto` takes on a CPU where it is proven, and slows what
    would run otherwise by so many seconds.

    `set_attribute` is that of a monkeypatch, or `setattr`.
    """
    set_attribute(choose, "_PREFERRED", {"cpu": (PROVEN, "scan")})
    set_attribute(triton, "why_not", lambda *_: None)
    set_attribute(triton, "run", run)
    set_attribute(scan, "run", slow(_scan, otherwise))


def slow(run, seconds):
    """A recurrence that waits for so long at each call."""

    def wait(zero):
        time.sleep(seconds)
        return zero

    def waiting(*arguments):
        hidden, last = run(*arguments)
        zero = jnp.zeros((), jnp.float32)
        return hidden + jax.pure_callback(wait, zero, zero), last

    return waiting
