"""Model folders that rows of `benchmarks.badinput` read: one for additions, one for texts, one for chats."""

from __future__ import annotations

from pathlib import Path

PRINTABLE = "\n" + "".join(map(chr, range(32, 127)))
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_models(folder: Path) -> None:
    """Write the folders `addition`, `plain` and `chat`."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from hybridflow.tasks.tokenizer import char_tokenizer

    for name, alphabet in (("addition", "0123456789+="), ("plain", PRINTABLE), ("chat", PRINTABLE)):
        tokenizer = char_tokenizer(alphabet, max_tokens=256)
        if name == "chat":
            tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
            tokenizer.chat_template = CHATML
        config = Qwen2Config(
            vocab_size=len(tokenizer), hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=2, max_position_embeddings=256, bos_token_id=None, dtype=torch.float32,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        )  # fmt: skip
        torch.manual_seed(0)
        Qwen2ForCausalLM(config).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
