"""StrDiffusion: image inpainting by structure-guided diffusion (CVPR 2024). Where things are: see README.md.

For example:

    from strdiffusion import StrDiffusion
    model = StrDiffusion.load("weights/benchmark")
    model("photo.jpg", "mask.png", seed=0).images[0].save("out.png")
"""

from strdiffusion.system.user import name_the_user

__version__ = "0.1.0"
__all__ = ["AdaptOptions", "Cancelled", "Composition", "PlacedObject", "StrDiffusion", "UserError", "adapt"]

name_the_user()


def __getattr__(name: str):
    """Import what `strdiffusion.app` offers only when they are used: the rest of the package does not need them."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from strdiffusion import app

    return getattr(app, name)
