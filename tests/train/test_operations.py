"""What a compiled program is made of, by texts of which it is known."""
# ruff: noqa: E501 - XLA writes long lines

import pytest

from train.operations import Operation, operations

# As XLA writes it: a table of stacks (frames count their parents from 1), fusions with what is in them, a library call.
TEXT = """HloModule jit_whole, is_scheduled=true, entry_computation_layout={(f32[8]{0})->f32[8]{0}}

FileNames
1 "train/step.py"
2 "codelm/model.py"
3 "codelm/attention.py"
4 "site-packages/optax/transform.py"

FunctionNames
1 "sums_of"
2 "updated"
3 "Block.heads"
4 "Block.product"
5 "dense"
6 "scale.<locals>.update_fn"

FileLocations
1 {file_name_id=1 function_name_id=1 line=75 end_line=75 column=1 end_column=2}
2 {file_name_id=2 function_name_id=3 line=98 end_line=98 column=1 end_column=2}
3 {file_name_id=2 function_name_id=4 line=147 end_line=147 column=1 end_column=2}
4 {file_name_id=3 function_name_id=5 line=281 end_line=281 column=1 end_column=2}
5 {file_name_id=1 function_name_id=2 line=90 end_line=90 column=1 end_column=2}
6 {file_name_id=4 function_name_id=6 line=300 end_line=300 column=1 end_column=2}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=2}
3 {file_location_id=3 parent_frame_id=3}
4 {file_location_id=4 parent_frame_id=3}
5 {file_location_id=5 parent_frame_id=1}
6 {file_location_id=6 parent_frame_id=6}

%fused (p0: bf16[8,4], p1: bf16[4,4]) -> bf16[8,4] {
  %p0 = bf16[8,4]{1,0:T(8,128)} parameter(0)
  %p1 = bf16[4,4]{1,0} parameter(1)
  %dot.1 = bf16[8,4]{1,0} dot(%p0, %p1), metadata={op_name="jit(whole)/jvp()/bsd,dnh->bsnh/dot_general" stack_frame_id=3}
  ROOT %add.1 = bf16[8,4]{1,0} add(%dot.1, %p0), metadata={op_name="jit(whole)/jvp()/add" stack_frame_id=2}
}

%moved (p2: f32[8]) -> f32[8] {
  %p2 = f32[8]{0} parameter(0)
  ROOT %copy.3 = f32[8]{0} copy(%p2)
}

ENTRY %main (x: f32[8]) -> f32[8] {
  %x = f32[8]{0} parameter(0), metadata={op_name="x"}
  %fusion.7 = (bf16[8,4]{1,0}, /*index=1*/f32[8]{0}) fusion(%x), kind=kLoop, calls=%fused, metadata={op_name="jit(whole)/jvp()/add" stack_frame_id=2}
  %fusion.8 = f32[8]{0} fusion(%x), kind=kLoop, calls=%moved
  %softmax = f32[8]{0} exponential(%x), metadata={op_name="jit(whole)/transpose(jvp())/rematted_computation/exp" stack_frame_id=4}
  %forgotten = f32[8]{0} dot(%softmax, %x), lhs_contracting_dims={1}
  %custom-call.2 = f32[8]{0} custom-call(%x), custom_call_target="__cublas$gemm", metadata={op_name="jit(whole)/transpose(jvp())/dot_general" stack_frame_id=2}
  %all-gather-start.1 = (f32[4]{0}, f32[8]{0}) all-gather-start(%x), dimensions={0}
  ROOT %multiply.9 = f32[8]{0} multiply(%x, %x), metadata={op_name="jit(whole)/mul" stack_frame_id=6}
}
"""


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fusion.7", ("matrix products", "forward", "dot_general bsd,dnh->bsnh", "codelm/model.py:98 heads")),
        ("fusion.8", ("copies", "other", "fusion", "")),
        ("softmax", ("attention", "recomputed", "exp", "codelm/attention.py:281 dense")),
        ("forgotten", ("attention", "recomputed", "dot", "codelm/attention.py:281 dense")),
        ("custom-call.2", ("matrix products", "backward", "dot_general", "codelm/model.py:98 heads")),
        ("all-gather-start.1", ("collectives", "other", "all-gather-start", "")),
        ("multiply.9", ("element-wise", "update", "mul", "train/step.py:90 updated")),
    ],
)
def test_what_operations_are_and_where_they_are_from(name: str, expected: tuple[str, str, str, str]) -> None:
    module, found = operations(TEXT)
    assert module == "jit_whole"
    assert found[name] == Operation(*expected)


def test_of_programs_that_xla_made_one_the_first() -> None:
    line = '  %y = f32[8]{0} add(%x, %x), metadata={op_name="jit(f)/(transpose(jvp())/ab->a/dot_general:jvp()/mul)"}'
    _, found = operations(f"HloModule jit_f\n\nENTRY %main (x: f32[8]) -> f32[8] {{\n{line}\n}}\n")
    assert found["y"].what == "dot_general ab->a"


def test_without_a_table_of_stacks_the_line_that_is_named() -> None:
    line = (
        '  %y = f32[8]{0} add(%x, %x), metadata={op_name="jit(f)/jvp()/add" source_file="codelm/rope.py" source_line=7}'
    )
    _, found = operations(f"HloModule jit_f\n\nENTRY %main (x: f32[8]) -> f32[8] {{\n{line}\n}}\n")
    assert found["y"] == Operation("element-wise", "forward", "add", "codelm/rope.py:7")
