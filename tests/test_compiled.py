"""Reading compiled programs, and what is said where a target is unknown or its compiler missing."""

import pytest

from benchmarks import environments, programs

TEXT = """HloModule jit_step

%fused (a: f32[64,64], b: f32[]) -> (f32[64,64], bf16[64,64]) {
  %a = f32[64,64]{1,0} parameter(0)
  %wide = f64[] constant(1)
}

ENTRY %main.3 (p.1: f32[64,64], s.1: f32[]) -> (f32[64,64], bf16[64,64]) {
  %p.1 = f32[64,64]{1,0} parameter(0), sharding={replicated}
  %s.1 = f32[] parameter(1)
  %scale = f32[] fusion(%s.1), kind=kLoop, calls=%small, backend_config={"estimated_cycles":"18"}
  %loop = (f32[64,64]{1,0}, bf16[64,64]{1,0}) fusion(%p.1, %scale), kind=kLoop, calls=%fused, "estimated_cycles":"700"
  %first = f32[64,64]{1,0} get-tuple-element(%loop), index=0
  %second = bf16[64,64]{1,0} get-tuple-element(%loop), index=1
  ROOT %tuple.5 = (f32[64,64]{1,0}, bf16[64,64]{1,0}) tuple(%first, %second)
}
"""


def test_a_program_is_read():
    assert [kernel.name for kernel in programs.kernels(TEXT)] == ["scale", "loop"]
    assert programs.instructions(TEXT) == 9
    assert programs.bytes_moved(TEXT) == (4 + 4) + (4 * 64 * 64 + 4) + (4 + 2) * 64 * 64
    assert programs.large_results(TEXT) == [2]
    assert programs.wide_floats(TEXT) == (1, 0)
    assert programs.cycles(TEXT) == 718


def test_where_the_compilers_are_is_told(monkeypatch):
    monkeypatch.setattr(environments, "installed", lambda platform: False)
    assert environments.told() == "compiled for GPU and TPU: not checked here, `make compiled-test` does"
    monkeypatch.setattr(environments, "installed", lambda platform: platform == "tpu")
    assert environments.told() == (
        "compiled for TPU: checked here; compiled for GPU: not checked here, `make compiled-test` does"
    )


def test_an_unknown_target_and_a_missing_compiler_are_refused(monkeypatch):
    from benchmarks import targets

    with pytest.raises(ValueError, match=r"`target` must be one of 'h100', .*, got 'h200'"):
        targets.device("h200")
    monkeypatch.setattr(targets, "installed", lambda platform: False)
    with pytest.raises(ValueError, match=r"`target` 'v5e' needs the module 'libtpu', .*: `make compiled-tpu` fills"):
        targets.mesh("v5e")


def test_a_missing_assembler_is_refused(monkeypatch):
    monkeypatch.setattr(programs.shutil, "which", lambda name: None)
    monkeypatch.setattr(programs.sys, "path", [])
    with pytest.raises(ValueError, match="`ptxas` must be installed, got none: `make compiled-gpu` fills"):
        programs.assembler()
