"""A method for any picture, behind one class.

* model.py: `StrDiffusion`, what a program uses
* picture.py: pictures of any kind; reading.py: from files, Pillow images, arrays and tensors; writing.py: to files
* inputs.py: picture, mask and hints together
* windows.py: which parts of a picture the networks see; tiles.py: networks on overlapping tiles; canvas.py: to their scale and back
* work.py: what there is to do in a call, and who looks on
* web/: the page
"""

from strdiffusion.app.model import Output, Plan, StrDiffusion
from strdiffusion.app.picture import Picture
from strdiffusion.app.reading import open_picture
from strdiffusion.app.work import Cancelled, WindowStep
from strdiffusion.system.errors import UserError

__all__ = ["Cancelled", "Output", "Picture", "Plan", "StrDiffusion", "UserError", "WindowStep", "open_picture"]
