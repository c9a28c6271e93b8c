"""What the command line sets before JAX starts, and what it leaves to the user."""

import os
import subprocess
import sys

import pytest

from floral.processes.startup import prepare_jax


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"JAX_NUM_CPU_DEVICES": "4", "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}),
        ({"JAX_NUM_CPU_DEVICES": "1"}, {"JAX_NUM_CPU_DEVICES": "1"}),
        ({"XLA_FLAGS": "--xla_force_host_platform_device_count=3"}, {}),
        ({"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=true"}, {"JAX_NUM_CPU_DEVICES": "4"}),
    ],
    ids=["nothing", "one device", "devices by flag", "threads by flag"],
)
def test_what_a_user_sets_is_left_as_it_is(given, expected):
    settings = {**given, "JAX_COMPILATION_CACHE_DIR": "/elsewhere"}
    prepare_jax(settings, cores=4)
    assert settings == {"JAX_COMPILATION_CACHE_DIR": "/elsewhere", **given, **expected}


def test_the_cache_follows_the_users_cache_folder():
    settings = {"XDG_CACHE_HOME": "/caches"}
    prepare_jax(settings, cores=1)
    assert settings["JAX_COMPILATION_CACHE_DIR"] == "/caches/floral/xla"


def test_jax_starts_with_as_many_devices_as_it_is_told():
    program = (
        "import os; from floral.processes.startup import prepare_jax;"
        "prepare_jax(os.environ, cores=3);"
        "import jax; print(len(jax.devices()), jax.config.jax_compilation_cache_dir)"
    )
    clean = {
        name: value
        for name, value in os.environ.items()
        if name not in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES", "JAX_COMPILATION_CACHE_DIR")
    }
    seen = subprocess.run(
        [sys.executable, "-c", program],
        env=clean | {"XDG_CACHE_HOME": "/nowhere", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert seen.stdout.split() == ["3", "/nowhere/floral/xla"]
