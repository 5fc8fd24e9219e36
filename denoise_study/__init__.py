"What does a denoiser know? Three papers on that, on the same data and with the same denoisers"
import os
import warnings
from importlib.metadata import version

import lazy_loader

__version__ = version("denoise_study")

# fastai still scripts two functions when it is imported; torch says so at length each time, and
# users can do nothing about it
warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated")

# How long a thread of a small network waits busily for the others. What libgomp does by itself is
# the fastest on a machine of one's own, and many times slower than this beside two busy processes;
# tests/benchmarks/bench_threads.py shows both. It is read when torch is loaded, so it is set here.
if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(os.environ):
    os.environ["GOMP_SPINCOUNT"] = "15000"

WINGS = "core", "diffusion", "daed", "denoiser", "representation", "denoiserep", "study"
__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, WINGS, {"study": ["load_pretrained"]})
