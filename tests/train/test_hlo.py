"""Programs whose figures can be worked out by hand."""

import jax
import jax.numpy as jnp
import pytest

from train.hlo import Program

LOOPS = """HloModule jit_f

%body (state: (s32[], s32[], f32[4,8])) -> (s32[], s32[], f32[4,8]) {
  %state = (s32[], s32[], f32[4,8]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %limit = s32[] get-tuple-element(%state), index=1
  %x = f32[4,8]{1,0} get-tuple-element(%state), index=2
  %three = s32[] constant(3)
  %next = s32[] add(%i, %three)
  %y = f32[4,8]{1,0} negate(%x)
  ROOT %out = (s32[], s32[], f32[4,8]{1,0}) tuple(%next, %limit, %y)
}

%condition (state: (s32[], s32[], f32[4,8])) -> pred[] {
  %state = (s32[], s32[], f32[4,8]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %limit = s32[] get-tuple-element(%state), index=1
  ROOT %less = pred[] compare(%i, %limit), direction=LT
}

ENTRY %main (x: f32[4,8]) -> f32[4,8] {
  %x = f32[4,8]{1,0} parameter(0)
  %zero = s32[] constant(0)
  %ten = s32[] constant(10)
  %start = (s32[], s32[], f32[4,8]{1,0}) tuple(%zero, %ten, %x)
  %loop = (s32[], s32[], f32[4,8]{1,0}) while(%start), condition=%condition, body=%body
  ROOT %out = f32[4,8]{1,0} get-tuple-element(%loop), index=2
}
"""
SLICES = """HloModule jit_f

%sliced (big: f32[100,8], at: s32[]) -> f32[1,8] {
  %big = f32[100,8]{1,0} parameter(0)
  %at = s32[] parameter(1)
  %zero = s32[] constant(0)
  ROOT %row = f32[1,8]{1,0} dynamic-slice(%big, %at, %zero), dynamic_slice_sizes={1,8}
}

ENTRY %main (big: f32[100,8], at: s32[], near: f32[64]) -> f32[1,8] {
  %big = f32[100,8]{1,0} parameter(0)
  %at = s32[] parameter(1)
  %near = f32[64]{0:S(1)} parameter(2)
  %twice = f32[64]{0:S(1)} add(%near, %near)
  ROOT %row = f32[1,8]{1,0} fusion(%big, %at), kind=kLoop, calls=%sliced
}
"""


def test_a_loop_runs_until_its_counter_says_so() -> None:
    program = Program(LOOPS)
    assert program.runs["body"] == 4  # 0, 3, 6, 9
    assert program.hbm_traffic() == 4 * (2 * 4 * 8 * 4 + 3 * 4)  # a negation of 4 x 8, and the counter's addition


def test_a_fusion_reads_what_it_slices_and_fast_memory_is_not_counted() -> None:
    assert Program(SLICES).hbm_traffic() == 2 * 8 * 4 + 4  # a row read and written, and where it is


@pytest.mark.parametrize(("outer", "inner"), [(3, 5), (7, 2)])
def test_loops_that_xla_compiled(outer: int, inner: int) -> None:
    def turn(x: jax.Array, _: None) -> tuple[jax.Array, None]:
        return jax.lax.fori_loop(0, inner, lambda i, y: jnp.sin(y @ y), x), None

    compiled = jax.jit(lambda x: jax.lax.scan(turn, x, length=outer)[0]).lower(jnp.ones((8, 8))).compile()
    program = Program(compiled.as_text())
    products = [
        part
        for _, found, times in program.instructions()
        for part in program.parts(found) * times
        if part.opcode in ("dot", "custom-call")
    ]
    assert len(products) == outer * inner
