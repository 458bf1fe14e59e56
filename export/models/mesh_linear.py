"""The small decoder of the dense branch: a linear map from the latent code to 468 vertices."""

from __future__ import annotations

from torch import Tensor, nn

from retinaface_edge.runtime.spec import Mesh

from .layers import Activation, activate
from .mesh_encoder import Encoder, convolution, encoder_convolutions

LATENT = 40


class LinearBranch(nn.Module):
    """The small decoder: vertices are a linear function of the code, as in a morphable model."""

    kind = "linear"

    def __init__(self, inputs: int, vertices: int = Mesh.vertices) -> None:
        super().__init__()
        self.encoder = Encoder(inputs, LATENT)
        self.decoder = nn.Linear(LATENT, 3 * vertices)

    def forward(self, described: Tensor) -> Tensor:
        """Vertices (n, 468, 3) relative to the box, of descriptions (n, inputs)."""
        flat: Tensor = self.decoder(self.encoder(described))
        return flat.reshape(len(flat), -1, 3)


class DeployBranch(nn.Module):
    """A linear branch under the bundle's contract: `feature` (1, 1, n, inputs) in, `vertices` (1, 1, n, 1404) out.

    A linear map of each column is a 1×1 convolution, so that the compiler needs no operation besides the detector's.
    Standardisation is folded into the first.
    """

    def __init__(self, branch: LinearBranch) -> None:
        super().__init__()
        layers = [*encoder_convolutions(branch.encoder), convolution(branch.decoder)]
        self.layers = nn.ModuleList(layers).requires_grad_(False)

    def forward(self, feature: Tensor) -> tuple[Tensor, ...]:
        x = feature.permute(0, 3, 1, 2)
        *hidden, last = self.layers
        for layer in hidden:
            x = activate(layer(x), Activation.LEAKY_RELU)
        return (last(x).permute(0, 2, 3, 1),)
