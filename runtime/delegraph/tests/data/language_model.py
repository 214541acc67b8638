"""A language model of two layers with random weights and one matrix for tokens and logits, as `transformers` exports it.

    PYTHON language_model.py

writes beside it `language_model.pt2` (any number of tokens), `language_model.prefill.pt2` (five), `language_model.decode.pt2` (one),
`language_model.bf16.pt2` (any number, in bfloat16), and `language_model.safetensors`: tokens, and for each step the logits of the last token in eager
PyTorch: in float32, in bfloat16 (`bf16.N`), and in float32 with the weights of the latter (`rounded.N`). torch 2.15.0, transformers 5.24.0.
"""

import pathlib

import safetensors.torch
import torch
import transformers
from transformers.integrations.executorch import TorchExportableModuleForDecoderOnlyLM as Exportable

CACHE, PROMPT, SINGLE = 32, 5, 4
HERE = pathlib.Path(__file__).parent


def model(dtype=torch.float32):
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, vocab_size=64,
        max_position_embeddings=64, tie_word_embeddings=True, initializer_range=0.2,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0})
    model = transformers.LlamaForCausalLM(config).eval().to(dtype)
    model.generation_config = transformers.GenerationConfig(
        use_cache=True, cache_implementation="static", max_length=CACHE, cache_config={"batch_size": 1, "max_cache_len": CACHE})
    return Exportable(model)


def export(name, tokens, dynamic, dtype=torch.float32):
    length = torch.export.Dim("length", min=1, max=CACHE - 1)
    shapes = {"input_ids": {1: length}, "cache_position": {0: length}} if dynamic else None
    torch.set_default_dtype(dtype)  # what the cache is made of
    made = model(dtype)
    torch.set_default_dtype(torch.float32)
    program = made.export(
        input_ids=torch.zeros((1, tokens), dtype=torch.long), cache_position=torch.arange(tokens), dynamic_shapes=shapes, strict=False)
    torch.export.save(program, HERE / name)


def main():
    export("language_model.pt2", 3, True)
    export("language_model.prefill.pt2", PROMPT, False)
    export("language_model.decode.pt2", 1, False)
    export("language_model.bf16.pt2", 3, True, torch.bfloat16)
    tokens = torch.randint(0, 64, (1, PROMPT + SINGLE), generator=torch.Generator().manual_seed(1))
    steps = {}
    for kind, dtype, then in (("logits", torch.float32, None), ("bf16", torch.bfloat16, None), ("rounded", torch.bfloat16, torch.float32)):
        eager = model(dtype)
        plain = eager.model.model if hasattr(eager.model, "model") else eager.model
        plain = plain.to(then) if then else plain
        with torch.no_grad():
            # Each step anew from the beginning, without a cache: what the cache has to give.
            for step in range(SINGLE + 1):
                logits = plain(input_ids=tokens[:, : PROMPT + step], use_cache=False).logits
                steps[f"{kind}.{step}"] = logits[:, -1:, :].float().contiguous()
    safetensors.torch.save_file({"tokens": tokens} | steps, HERE / "language_model.safetensors")


main()
