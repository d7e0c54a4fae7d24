"""The decoder that MARIS and HARIS share: a query token meets words and cells, then is compared with every cell.

After SAM's two-way transformer and mask decoder (Kirillov et al. 2023, section A), with two differences, both ours:
padding words and cells without photo are masked wherever they would be keys, and there is one mask token.
"""

import torch
from torch import Tensor, nn

from ris_core.models.layers import Attention, FeedForward, Upscale, grid, padding_cells, tokens


class TwoWayLayer(nn.Module):
    """Tokens look at each other, then at the cells; then the cells look at the tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.among = Attention(width)
        self.to_cells = Attention(width)
        self.think = FeedForward(width)
        self.to_tokens = Attention(width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(4))

    def forward(
        self,
        words: Tensor,
        cells: Tensor,
        positional_encoding: Tensor,
        word_padding_mask: Tensor,
        cell_padding_mask: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """words (N, T, C), cells (N, HW, C), positional_encoding (1, HW, C) -> words and cells.

        word_padding_mask: (N, T), cell_padding_mask: (N, HW), True where a key isn't to be seen.
        """
        words = self.norms[0](words + self.among(words, words, words, word_padding_mask))
        words = self.norms[1](words + self.to_cells(words, cells + positional_encoding, cells, cell_padding_mask))
        words = self.norms[2](words + self.think(words))
        cells = self.norms[3](cells + self.to_tokens(cells + positional_encoding, words, words, word_padding_mask))
        return words, cells


class QueryDecoder(nn.Module):
    """Two two-way layers, then the mask as the product of the query token with the upscaled cells.

    Attributes:
        width: channels of the upscaled cells.
    """

    def __init__(self, width: int, steps: int, layers: int = 2) -> None:
        """`steps`: how often the grid doubles before the mask is read off."""
        super().__init__()
        self.layers = nn.ModuleList(TwoWayLayer(width) for _ in range(layers))
        self.last = Attention(width)
        self.norm = nn.LayerNorm(width)
        self.upscale = Upscale(width, steps)
        self.width = self.upscale.width
        self.to_kernel = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, self.width + 1))

    def forward(
        self,
        query: Tensor,
        words: Tensor,
        features: Tensor,
        positional_encoding: Tensor,
        word_padding_mask: Tensor,
        valid: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One photo a sentence -> mask logits (N, 1, H', W'), upscaled features (N, width, H', W'), query (N, C).

        Args:
            query: (N, 1, C). words: (N, L, C), L may be 0. word_padding_mask: (N, L), True where there is no word.
            features: (N, C, H, W). positional_encoding: (1, HW, C). valid: (N, 1, H, W), 1 where there is photo.
        """
        cell_padding_mask = padding_cells(valid)  # (N, HW)
        # The query itself is always seen.
        word_padding_mask = nn.functional.pad(word_padding_mask, (1, 0), value=False)  # (N, 1 + L)
        words, cells = torch.cat([query, words], dim=1), tokens(features)  # (N, 1 + L, C), (N, HW, C)
        for layer in self.layers:
            words, cells = layer(words, cells, positional_encoding, word_padding_mask, cell_padding_mask)
        query, keys = words[:, :1], cells + positional_encoding
        query = self.norm(query + self.last(query, keys, cells, cell_padding_mask)).squeeze(1)  # (N, C)
        upscaled = self.upscale(grid(cells, features) * valid)  # (N, width, H', W')
        kernel, bias = self.to_kernel(query).split([self.width, 1], dim=1)
        mask = torch.einsum("nchw,nc->nhw", upscaled, kernel) + bias[:, :, None]
        return mask.unsqueeze(1), upscaled, query
