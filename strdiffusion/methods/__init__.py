"""Methods of inpainting behind one seam: method.py says what a method is.

* strdiffusion.py, irsde.py: the paper's method, and the unguided process that it builds on
* baselines.py: `telea`, `navier_stokes`, `mean_fill`, `masked_input`, which need no network
* loading.py: where networks come from; counting.py: how many evaluations a sampler takes
"""

from strdiffusion.methods import baselines, irsde, strdiffusion  # noqa: F401  they register themselves
from strdiffusion.methods.method import METHODS, Evaluations, Method, Options, Result, Step, method_class, register, run, see

__all__ = ["METHODS", "Evaluations", "Method", "Options", "Result", "Step", "method_class", "register", "run", "see"]
