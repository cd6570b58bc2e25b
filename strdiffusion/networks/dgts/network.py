"""DGTS as one network: structure tokens, texture references, decoder and pixels. The defaults are the released sizes."""

from torch import Tensor, nn

from strdiffusion.networks.dgts.decoder import Decoder, PatchPixels
from strdiffusion.networks.dgts.filling import Filled, Order, fill
from strdiffusion.networks.dgts.references import Backbone, ResNet, TextureReferences
from strdiffusion.networks.dgts.structure import Residual, StructureTokens
from strdiffusion.system.errors import UserError

PIXELS_OF_A_REFERENCE = 4  # a side, of the small image, with the small backbone
RELEASED_ONE_BY_ONE = 16  # patches filled one by one in training


class DGTS(nn.Module):
    """Fills holes of images of size x size pixels, size = reduction x patch x grid, at the size S = patch x grid.

    Args:
        reduction: filling sees every so manyth row and column. patch: side of a patch in pixels of the small image. grid: patches a side.
        width, reference_width: of structure tokens and of texture references. heads, encoder_layers: of the references' encoder.
        backbone: "resnet50", frozen in part and to be loaded from ImageNet weights, or "small", to be trained from nothing.
        residual: see `StructureTokens`. bridge: lambda, the weight of the bridge in the decoder's attention.
        dropout: in training.
    """

    def __init__(
        self,
        reduction: int = 4,
        patch: int = 8,
        grid: int = 8,
        width: int = 384,
        reference_width: int = 256,
        heads: int = 8,
        encoder_layers: int = 4,
        decoder_layers: int = 4,
        backbone: Backbone = "resnet50",
        residual: Residual = "filled",
        bridge: float = 0.1,
        dropout: float = 0.1,
    ):
        super().__init__()
        self._architecture = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        self.reduction, self.patch, self.grid = reduction, patch, grid
        side = self.size // ResNet.stride if backbone == "resnet50" else patch * grid // PIXELS_OF_A_REFERENCE
        self.structure = StructureTokens(width, patch, grid, residual, dropout)
        self.references = TextureReferences(backbone, self.size, side, reference_width, heads, encoder_layers, dropout)
        self.decoder = Decoder(width, reference_width, decoder_layers, bridge, dropout)
        self.pixels = PatchPixels(width, patch)
        for name, parameter in self.named_parameters():  # as released: matrices Xavier uniform, but for the backbone
            if parameter.dim() > 1 and "backbone" not in name:
                nn.init.xavier_uniform_(parameter)

    @property
    def size(self) -> int:
        """The side of the images, in pixels."""
        return self.reduction * self.patch * self.grid

    @property
    def slow_parameters(self) -> list[nn.Parameter]:
        """The parameters that are trained at a lower rate: the backbone's, if it comes from ImageNet."""
        return [*self.references.backbone.parameters()] if self._architecture["backbone"] == "resnet50" else []

    def set_bridge(self, share: float) -> None:
        """Set lambda, which released files do not record."""
        self._architecture["bridge"] = self.decoder.share = share

    def architecture(self) -> dict:
        """The arguments that build a network like this one."""
        return dict(self._architecture)

    def reduced(self, image: Tensor) -> Tensor:
        """x': every `reduction`-th row and column, from the first, without smoothing; (B,C,size,size) to (B,C,S,S)."""
        return image[:, :, :: self.reduction, :: self.reduction]

    def forward(self, image: Tensor, mask: Tensor, order: Order | Tensor = "known", one_by_one: int | None = None) -> Filled:
        """Fill images (B,3,size,size) in [-1,1] with holes; mask (B,1,size,size), its own for each image. See `fill`.

        Raises UserError for images of another size, and for a given order that does not fit the masks.
        """
        if image.shape[2:] != (self.size, self.size) or mask.shape != (len(image), 1, self.size, self.size):
            sizes = f"images {tuple(image.shape)} with masks {tuple(mask.shape)}"
            raise UserError(f"DGTS fills images of {self.size}x{self.size} pixels, each with its mask, and was given {sizes}")
        references = self.references(image, mask)
        return fill(self, self.reduced(image), self.reduced(mask), references, order, one_by_one)
