"""A Hugging Face folder of the llama family as a GGUF file: what llama.cpp reads in `experiments.bench.decode`.

    PYTHON experiments/bench/gguf_files.py HF_DIR OUT.gguf f32     # or f16, q8_0; PYTHON has gguf and safetensors

Run in an interpreter of its own, which needs neither jax nor codelm. The file has no vocabulary: llama.cpp then takes
ids and gives ids. Of models it knows the plain one: no biases, no stretched rotary embedding.
"""

# pyrefly: ignore-errors
# gguf is in no environment of this project.

import json
import sys
from pathlib import Path

import numpy as np

NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def main() -> None:
    # Only here: the tests read the rest without them.
    import gguf
    from safetensors.numpy import load_file

    folder, out, kind = Path(sys.argv[1]), sys.argv[2], sys.argv[3].upper()
    config = json.loads((folder / "config.json").read_text())
    if config["model_type"] != "llama" or config["rope_parameters"]["rope_type"] != "default":
        raise SystemExit(f"{folder} is no plain model of the llama family")
    writer = gguf.GGUFWriter(out, "llama")
    writer.add_file_type(gguf.LlamaFileType[f"ALL_{kind}" if kind == "F32" else f"MOSTLY_{kind}"])
    writer.add_tokenizer_model("no_vocab")
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    for file in sorted(folder.glob("*.safetensors")):
        for name, tensor in load_file(file).items():
            heads = {"self_attn.q_proj": "num_attention_heads", "self_attn.k_proj": "num_key_value_heads"}
            if turned := next((config[count] for module, count in heads.items() if module in name), None):
                tensor = interleaved(tensor, turned)
            stored = gguf.GGMLQuantizationType[kind if tensor.ndim > 1 else "F32"]
            writer.add_tensor(gguf_name(name), gguf.quants.quantize(tensor, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def gguf_name(name: str) -> str:
    """The name of a tensor there: model.layers.3.mlp.up_proj.weight is blk.3.ffn_up.weight."""
    module, layer = name.removesuffix(".weight"), ""
    if module.startswith("model.layers."):
        number, module = module.removeprefix("model.layers.").split(".", 1)
        layer = f"blk.{number}."
    if module not in NAMES or not name.endswith(".weight"):
        raise SystemExit(f"a plain llama model has no tensor {name}")
    return f"{layer}{NAMES[module]}.weight"


def interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """A projection [out, in] to queries or keys for a rotary embedding of neighbours.

    Hugging Face's turns output i of a head together with i + half, llama.cpp's 2i together with 2i + 1.
    """
    out, width = weight.shape
    return weight.reshape(heads, 2, out // heads // 2, width).swapaxes(1, 2).reshape(out, width)


if __name__ == "__main__":
    main()
