"""Runs in processes of their own: several that train together, and some that are killed."""

import pathlib
import signal
import subprocess
import sys

import pytest

from benchmarks import survival

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _environment_of_a_user(monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)  # the programs choose their own number of devices
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def test_two_processes_train_to_the_losses_of_one_device():
    command = [sys.executable, str(ROOT / "examples" / "sharded.py"), "--processes", "2", "--modes", "zero1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "2 process(es), 4 devices" in done.stdout
    rows = {line[:14].strip(): line[14:].replace(",", "").split() for line in done.stdout.splitlines()}
    (params, state), (same_params, split_state) = (map(int, rows[mode][1:3]) for mode in ("one device", "zero1"))
    assert params == same_params
    assert split_state < 0.26 * state  # a quarter on four devices, and the few small leaves whole
    assert "of one device" in " ".join(rows["zero1"])  # the program ends with an error where a loss differs


def test_a_run_killed_at_random_moments_ends_with_the_same_bits():
    result = survival.kills(2, seed=1, steps=16)
    assert result["identical"]
    assert [kill["exit"] for kill in result["kills"]] == [-signal.SIGKILL] * 2


def test_a_process_whose_peer_is_killed_ends_and_both_resume():
    result = survival.pair(victim=0, steps=16)
    assert result["survivor_exit"] not in (0, -signal.SIGKILL)  # an end of its own, and not the limit's
    assert result["survivor_ended_after_s"] < survival.SURVIVOR_LIMIT
    assert result["identical"]
