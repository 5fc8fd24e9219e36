"Pretrained models, the commands, and the study of all three papers as one report"
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
