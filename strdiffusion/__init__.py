"""StrDiffusion: image inpainting by structure-guided diffusion (CVPR 2024). Where things are: see README.md."""

__version__ = "0.1.0"
