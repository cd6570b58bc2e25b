"""Methods of inpainting behind one interface, `Method` in method.py.

* strdiffusion.py, irsde.py: the paper's method, and the unguided process on which it builds
* joint.py: texture and structure denoised together by one network
* repaint.py: RePaint, a prior conditioned at sampling; prior_loading.py: its networks
* dgts.py: DGTS; dgts_loading.py its networks, dgts_released.py the end of the released procedure
* baselines.py: `telea`, `navier_stokes`, `mean_fill`, `masked_input`, which need no network
* folders.py: the method of a model folder; loading.py: the networks of a method; counting.py: the evaluations that a sampler takes
"""

from strdiffusion.methods import baselines, dgts, irsde, joint, repaint, strdiffusion  # noqa: F401  they register themselves
from strdiffusion.methods.method import METHODS, Evaluations, Method, Options, Result, Step, method_class, register, run, see

__all__ = ["METHODS", "Evaluations", "Method", "Options", "Result", "Step", "method_class", "register", "run", "see"]
