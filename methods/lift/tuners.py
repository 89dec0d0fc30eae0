"""What light tuning attaches to a transformer of timm, by module name. Each starts as if it were not there.

They attach by hooks, so that the network's own modules and the names of its weights stay as they are.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def bottleneck(num_classes: int, blocks: int) -> int:
    """Width of adapters and rank of LoRA: the power of two below C / (2 blocks), at least 1 (released code)."""
    return int(max(1, 2 ** math.floor(math.log2(num_classes / (2 * blocks)))))


class Adapter(nn.Module):
    """s Up(ReLU(Down(LN(x)))), which is 0 at the start; s is learned where `scaled`."""

    def __init__(self, width: int, hidden: int, *, scaled: bool) -> None:
        super().__init__()
        self.ln, self.down, self.up = nn.LayerNorm(width), nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.scale = nn.Parameter(torch.ones(1)) if scaled else 1.0
        nn.init.kaiming_normal_(self.down.weight, a=math.sqrt(5))
        for still in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(still)

    def forward(self, x: Tensor) -> Any:
        """(B, tokens, width) -> the same shape."""
        return self.scale * self.up(F.relu(self.down(self.ln(x))))


class AdaptFormer(Adapter):
    """Beside a block's MLP: u + mlp(norm2(u)) + adapter(u) (Chen et al., NeurIPS 2022)."""

    def __init__(self, block: Any, width: int, hidden: int) -> None:
        super().__init__(width, hidden, scaled=True)
        block.norm2.register_forward_pre_hook(self.note)
        block.mlp.register_forward_hook(self.add)

    def note(self, module: nn.Module, given: tuple[Tensor]) -> None:
        """Keeps u until the MLP is done."""
        self.input = given[0]

    def add(self, module: nn.Module, given: Any, output: Tensor) -> Any:
        """To the MLP's output."""
        u, self.input = self.input, torch.empty(0)
        return output + self(u)


class Behind(Adapter):
    """Behind a block's MLP: o + adapter(o) with o = mlp(norm2(u)) (Houlsby et al., ICML 2019)."""

    def __init__(self, block: Any, width: int, hidden: int) -> None:
        super().__init__(width, hidden, scaled=False)
        block.mlp.register_forward_hook(self.add)

    def add(self, module: nn.Module, given: Any, output: Tensor) -> Any:
        """To the MLP's output."""
        return output + self(output)


class LowRank(nn.Module):
    """x A B / r, which is 0 at the start."""

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.empty(width, rank)), nn.Parameter(torch.zeros(rank, width))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """(B, tokens, width) -> the same shape."""
        return x @ self.a @ self.b / self.a.shape[1]


class LoRA(nn.Module):
    """On the queries and values of a block's attention (Hu et al., ICLR 2022)."""

    def __init__(self, block: Any, width: int, rank: int) -> None:
        super().__init__()
        self.q, self.v = LowRank(width, rank), LowRank(width, rank)
        block.attn.qkv.register_forward_hook(self.add)

    def add(self, module: nn.Module, given: tuple[Tensor], output: Tensor) -> Tensor:
        """To the first and last third of the output."""
        q, k, v = output.chunk(3, dim=-1)
        return torch.cat((q + self.q(given[0]), k, v + self.v(given[0])), dim=-1)


class Prompts(nn.Module):
    """Learned tokens behind those of the image, in place of those of an earlier block (Jia et al., ECCV 2022)."""

    def __init__(self, block: Any, width: int, count: int, patch: int, *, replaces: bool) -> None:
        super().__init__()
        bound = math.sqrt(6 / (3 * patch**2 + width))
        self.prompt = nn.Parameter(torch.empty(count, width).uniform_(-bound, bound))
        self.replaces = replaces
        block.register_forward_pre_hook(self.append)

    def append(self, module: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """To a block's input (B, tokens, width)."""
        tokens, *more = given
        tokens = tokens[:, : -len(self.prompt)] if self.replaces else tokens
        return torch.cat((tokens, self.prompt.expand(len(tokens), -1, -1)), dim=1), *more


def is_transformer(network: Any) -> bool:
    """Whether it is a plain transformer of timm, to whose blocks these can attach."""
    blocks = list(getattr(network, "blocks", ()))
    return bool(blocks) and all(hasattr(block, "attn") and hasattr(block, "mlp") for block in blocks)


def check_fits(network: Any, kind: str) -> None:
    """Raises a ValueError unless this kind can attach to the network, and is seen by its features."""
    if not is_transformer(network):
        raise ValueError(f"{kind} attaches to the blocks of timm's transformers; {type(network).__name__} has none")
    plain = (nn.Identity, type(None))
    named = ("ls1", "ls2", "drop_path1", "drop_path2")
    if not all(isinstance(getattr(block, name, None), plain) for block in network.blocks for name in named):
        raise ValueError(f"{kind} attaches to plain blocks, without layer scale and stochastic depth (drop_path)")
    if "prompts" in kind and network.global_pool != "token":
        raise ValueError(f"{kind} need the features of a class token, found those of '{network.global_pool}'")


def attach(network: Any, kind: str, size: int) -> nn.ModuleList:
    """Attaches one to each block, or to the first.

    Args:
        kind: "adaptformer", "adapter", "lora", "prompts" (of the first block) or "deep_prompts".
        size: hidden width, rank, or number of prompts.

    Raises:
        ValueError: see `check_fits`.
    """
    check_fits(network, kind)
    width, blocks = network.embed_dim, list(network.blocks)
    if "prompts" in kind:
        blocks = blocks if kind == "deep_prompts" else blocks[:1]
        patch = network.patch_embed.patch_size[0]
        made = [Prompts(block, width, size, patch, replaces=place > 0) for place, block in enumerate(blocks)]
        return nn.ModuleList(made)
    made_by: dict[str, Any] = {"adaptformer": AdaptFormer, "adapter": Behind, "lora": LoRA}
    return nn.ModuleList(made_by[kind](block, width, size) for block in blocks)
