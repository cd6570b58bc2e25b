"""Inpainting of pictures of any size and format by any method, behind one class.

* model.py: `StrDiffusion`, the class for programs
* picture.py: pictures; reading.py: from files, Pillow images, arrays and tensors; writing.py: to files
* inputs.py: picture, mask and hints together
* composition.py: `Composition`, cut-outs on a canvas around which a scene is painted; cutouts.py draws them
* windows.py: which parts of a picture the networks see; canvas.py: a part at the networks' scale; tiles.py: networks on overlapping tiles
* adapting.py: networks learn from the known part of pictures
* work.py: the batches of a call, its progress, callback and cancellation
* web/: the web page
"""

from strdiffusion.app.adapting import Adapting, AdaptOptions, adapt
from strdiffusion.app.composition import Composition, PlacedObject
from strdiffusion.app.model import Output, Plan, StrDiffusion
from strdiffusion.app.picture import Picture
from strdiffusion.app.reading import open_picture
from strdiffusion.app.work import Cancelled, WindowStep
from strdiffusion.system.errors import UserError

__all__ = [
    "AdaptOptions",
    "Adapting",
    "Cancelled",
    "Composition",
    "Output",
    "Picture",
    "PlacedObject",
    "Plan",
    "StrDiffusion",
    "UserError",
    "WindowStep",
    "adapt",
    "open_picture",
]
