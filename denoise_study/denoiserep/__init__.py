"Denoising layers before any network's layers, and their fusion (Xu et al. 2024)"
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
