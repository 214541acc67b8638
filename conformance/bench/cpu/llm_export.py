"""Writes decoder-only language models of the Llama shape with random weights, for both sides.

    PYTHON conformance/bench/cpu/llm_export.py WORK --shape 110m|1b [--dtype float32|bfloat16] [--cache 512]     # has transformers
    PYTHON conformance/bench/cpu/llm_export.py WORK --shape 110m|1b --gguf Q4_0,Q8_0                             # has gguf

The first writes WORK/llama-SHAPE.pt2, as `transformers` exports it: one forward of a dynamic length with a static cache, and the same weights as
WORK/llama-SHAPE.safetensors under transformers' names. The second writes WORK/llama-SHAPE.TYPE.gguf for llama.cpp, from numbers of the same
distribution: quantized weights of an untrained model are noise either way, and only their bytes cost time. `1b` has the shape of Llama 3.2 1B;
in float32 its export takes 12 GB of memory.
"""

import argparse
import pathlib

SHAPES = {  # width, hidden, layers, heads, heads of keys and values, vocabulary, shared embedding
    "tiny": (64, 172, 2, 4, 2, 160, False),
    "110m": (768, 2048, 12, 12, 4, 32000, False),
    "1b": (2048, 8192, 16, 32, 8, 128256, True),
}
ROPE_THETA = 500000.0
SPREAD = 0.02


def export(path, shape, dtype, cache):
    import torch
    import transformers
    from transformers.integrations.executorch import TorchExportableModuleForDecoderOnlyLM as Exportable

    width, hidden, layers, heads, key_heads, vocabulary, shared = SHAPES[shape]
    torch.manual_seed(0)
    torch.set_default_dtype(getattr(torch, dtype))  # what the cache is made of
    config = transformers.LlamaConfig(
        hidden_size=width, intermediate_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=key_heads,
        vocab_size=vocabulary, max_position_embeddings=max(2048, cache), tie_word_embeddings=shared, dtype=dtype,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA})
    model = transformers.LlamaForCausalLM(config).eval()
    model.generation_config = transformers.GenerationConfig(
        use_cache=True, cache_implementation="static", max_length=cache, cache_config={"batch_size": 1, "max_cache_len": cache})
    length = torch.export.Dim("length", min=1, max=cache - 1)
    program = Exportable(model).export(
        input_ids=torch.zeros((1, 3), dtype=torch.long), cache_position=torch.arange(3),
        dynamic_shapes={"input_ids": {1: length}, "cache_position": {0: length}}, strict=False)
    torch.export.save(program, path)
    folder = path.with_suffix(".hf")
    model.save_pretrained(folder, max_shard_size="100GB")
    (folder / "model.safetensors").rename(path.with_suffix(".safetensors"))


def write_gguf(path, shape, kind):
    import gguf
    import numpy

    width, hidden, layers, heads, key_heads, vocabulary, shared = SHAPES[shape]
    size = width // heads
    quantization = gguf.GGMLQuantizationType[kind]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(2048)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(heads)
    writer.add_head_count_kv(key_heads)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(size)
    writer.add_rope_freq_base(ROPE_THETA)
    writer.add_vocab_size(vocabulary)
    writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{kind}"])
    writer.add_tokenizer_model("no_vocab")
    random = numpy.random.default_rng(0)

    def matrix(name, rows, columns):
        # In slabs: a float32 copy of the embedding alone is 1 GB.
        slabs = range(0, rows, 4096)
        numbers = (random.standard_normal((min(4096, rows - row), columns), dtype=numpy.float32) * numpy.float32(SPREAD) for row in slabs)
        writer.add_tensor(name, numpy.concatenate([gguf.quants.quantize(slab, quantization) for slab in numbers]), raw_dtype=quantization)

    def ones(name):
        writer.add_tensor(name, numpy.ones(width, dtype=numpy.float32))

    matrix("token_embd.weight", vocabulary, width)
    for layer in range(layers):
        block = f"blk.{layer}."
        ones(block + "attn_norm.weight")
        ones(block + "ffn_norm.weight")
        matrix(block + "attn_q.weight", heads * size, width)
        matrix(block + "attn_k.weight", key_heads * size, width)
        matrix(block + "attn_v.weight", key_heads * size, width)
        matrix(block + "attn_output.weight", width, heads * size)
        matrix(block + "ffn_gate.weight", hidden, width)
        matrix(block + "ffn_up.weight", hidden, width)
        matrix(block + "ffn_down.weight", width, hidden)
    ones("output_norm.weight")
    if not shared:
        matrix("output.weight", vocabulary, width)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("--shape", choices=SHAPES, default="110m")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--cache", type=int, default=512, help="positions")
    parser.add_argument("--gguf", default="", help="Q4_0, Q8_0 or F16, several with commas; in place of the export")
    args = parser.parse_args()
    stem = args.work / f"llama-{args.shape}"
    if not args.gguf:
        export(stem.with_suffix(".pt2"), args.shape, args.dtype, args.cache)
    for kind in filter(None, args.gguf.split(",")):
        write_gguf(f"{stem}.{kind}.gguf", args.shape, kind)


if __name__ == "__main__":
    main()
