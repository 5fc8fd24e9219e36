"Diffusion models: schedules, the U-Net, losses, samplers, reconstruction"
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
