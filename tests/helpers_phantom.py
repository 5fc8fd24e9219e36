"""A GPU that has been thought of: it finds what is left on the wrong device, where there is no GPU.

    with phantom_gpu():
        net = UNet(channels=1).to("cuda")
        net(torch.randn(1, 1, 8, 8), 3)  # refused: the images are on the CPU

A `Phantom` is a tensor that says `cuda:0`, keeps its numbers on the CPU, and refuses to meet CPU
tensors, CPU generators and NumPy. Every operation passes through `execute`, which looks at who
meets whom, computes on the CPU and hands the result back as a phantom. So the numbers are those of
the CPU, to the bit, wherever the code takes the same route.

What it can't tell: speed, memory, kernels, streams, pinned memory, the numbers of another
generator, whether `bfloat16` converges (autocast is that of the CPU).

What it does to itself, and is no fault of the code that runs on it. C++ takes a phantom for a CPU
tensor, because a `torch` without CUDA can't hold another, so that
- memory formats that are asked for are ignored: gradients would be copied into other layouts;
- autograd makes tensors on the CPU: inside of the backward pass of a phantom they are phantoms, and
  a gradient is made one when somebody looks at it;
- `torch.as_tensor` and `torch.tensor` take a tensor for one of theirs: they are told the device
  afterwards;
- tensor subclasses of other libraries (fastai's) are left out, `as_subclass` gives the phantom;
- kernels outside of PyTorch's dispatcher see no phantom. torchvision's `nms` and `roi_align` are
  inside of it and pass."""

from contextlib import contextmanager, ExitStack
from types import SimpleNamespace
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def is_gpu(device):
    "Whether a device, in any form that PyTorch takes, is a GPU"
    if isinstance(device, int):
        return True
    return device is not None and torch.device(device).type == "cuda"


# The tensor


class Phantom(Tensor):
    "A tensor that says it is on a GPU; `inner` has its numbers"

    @staticmethod
    def __new__(cls, inner):
        form = dict(strides=inner.stride(), storage_offset=inner.storage_offset())
        kind = dict(dtype=inner.dtype, layout=inner.layout, device=CPU)
        return Tensor._make_wrapper_subclass(cls, inner.size(), **form, **kind)

    def __init__(self, inner):
        self.inner = inner

    def __repr__(self):
        return f"Phantom({self.inner})"

    device = property(lambda self: GPU)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)

    @property
    def grad(self):
        "Autograd may have left a CPU tensor, see above"
        found = Tensor.grad.__get__(self)
        if found is not None and not isinstance(found, Phantom):
            found = self.grad = Phantom(found)
        return found

    @grad.setter
    def grad(self, value):
        Tensor.grad.__set__(self, value)

    def to(self, *args, **kwargs):
        if args and isinstance(args[0], Tensor):
            args = args[0].device, args[0].dtype, *args[1:]
        device, dtype, *_ = torch._C._nn._parse_to(*args, **kwargs)
        moved = self if dtype is None else super().to(dtype)
        if kwargs.get("copy") and moved is self:
            moved = self.clone()
        return moved if device is None or is_gpu(device) else down(moved)

    def cpu(self, *args, **kwargs):
        return down(self)

    def cuda(self, *args, **kwargs):
        return self

    def numpy(self, *args, **kwargs):
        raise TypeError("phantom: can't convert cuda:0 device type tensor to numpy; use .cpu()")

    def __array__(self, *args, **kwargs):
        return self.numpy()

    def tolist(self):
        return self.inner.tolist()

    def data_ptr(self):
        return self.inner.data_ptr()

    def untyped_storage(self):
        return self.inner.untyped_storage()

    def __reduce_ex__(self, protocol):
        return Phantom, (self.inner,)

    def __deepcopy__(self, memo):
        if id(self) not in memo:
            new = Phantom(self.inner.detach().clone()).requires_grad_(self.requires_grad)
            if getattr(self, "_is_param", False):
                new._is_param = True
            memo[id(self)] = new
        return memo[id(self)]

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return execute(func, args, kwargs or {})


class _Up(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return Phantom(x.clone())

    @staticmethod
    def backward(ctx, grad):
        return grad.inner


class _Down(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.inner.clone()

    @staticmethod
    def backward(ctx, grad):
        return Phantom(grad)


def up(x):
    "A CPU tensor onto the phantom, with its gradient"
    return _Up.apply(x) if x.requires_grad else Phantom(x.detach().clone())


def down(x):
    "A phantom onto the CPU, with its gradient"
    return _Down.apply(x) if x.requires_grad else x.inner.clone()


# Every operation


def leaves(o):
    "What is in lists, however they are nested"
    if not isinstance(o, (list, tuple)):
        return [o]
    return [leaf for part in o for leaf in leaves(part)]


def mapped(f, o):
    "The same lists with other leaves"
    if not isinstance(o, (list, tuple)):
        return f(o)
    return type(o)([mapped(f, part) for part in o])


COPIES = {"aten::copy_", "aten::_to_copy", "aten::_copy_from", "aten::set_"}
INDEXING = {f"aten::{name}" for name in ("index", "index_put", "index_put_", "_unsafe_index")}
INDEXING |= {"aten::_index_put_impl_"}
NO_SCALARS = {"aten::cat", "aten::stack"}  # where a CPU tensor of one number is refused, too
INSIDE = []  # for each backward pass that is going on: is it one of a phantom?


def check_company(func, args, tensors):
    "Refuse CPU tensors beside phantoms where a GPU does"
    name = func._schema.name
    if name in COPIES:
        return
    plain = [t for t in tensors if not isinstance(t, Phantom)]
    bad = plain if name in NO_SCALARS else [t for t in plain if t.ndim > 0]
    if name in INDEXING and isinstance(args[0], Phantom):  # indices may be on the CPU, values not
        values = [t for t in args[2:3] if isinstance(t, Tensor)]
        bad = [t for t in values if not isinstance(t, Phantom) and t.ndim > 0]
    if name.endswith("_") and not isinstance(args[0], Phantom):
        bad = plain
    if bad:
        shapes = [(str(t.device), tuple(t.shape)) for t in tensors]
        raise RuntimeError(
            f"phantom: all tensors on the same device are expected; {func}: {shapes}"
        )


def check_generators(func, flat, on_gpu):
    "Refuse a generator of the other device"
    wanted = "cuda" if on_gpu else "cpu"
    for g in flat:
        if isinstance(g, torch.Generator) and place_of(g).type != wanted:
            raise RuntimeError(
                f"phantom: {func}: a {wanted} generator is expected, but found {place_of(g).type}"
            )


def execute(func, args, kwargs):
    "An operation: who meets whom, the numbers on the CPU, the result where it belongs"
    flat = leaves([*args, *kwargs.values()])
    tensors = [a for a in flat if isinstance(a, Tensor)]
    phantoms = [t for t in tensors if isinstance(t, Phantom)]
    if phantoms and len(phantoms) < len(tensors):
        check_company(func, args, tensors)
    on_gpu = bool(phantoms)
    if func._schema.name in COPIES:
        on_gpu = isinstance(args[0], Phantom)
    if is_gpu(kwargs.get("device")):
        on_gpu = True
    elif kwargs.get("device") is not None and phantoms:
        on_gpu = bool(INSIDE)  # asked for on the CPU, by autograd or by somebody
    if not tensors and INSIDE and INSIDE[-1]:
        on_gpu = True
    check_generators(func, flat, on_gpu)

    def unwrapped(a):
        if isinstance(a, Phantom):
            return a.inner
        return CPU if isinstance(a, torch.device) else a

    args = mapped(unwrapped, args)
    kwargs = {k: mapped(unwrapped, v) for k, v in kwargs.items()}
    if kwargs.get("pin_memory"):
        kwargs["pin_memory"] = False
    known = {id(p.inner): p for p in phantoms}

    def wrapped(o):
        if not isinstance(o, Tensor) or isinstance(o, Phantom):
            return o
        if id(o) in known:  # changed in place
            return known[id(o)]
        return Phantom(o) if on_gpu else o

    return mapped(wrapped, func(*args, **kwargs))


class Operations(TorchDispatchMode):
    "Operations without a phantom among their arguments, too: those that make tensors"

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return execute(func, args, kwargs or {})


# What is called in Python, before C++ makes operations of it

MAKERS = torch.tensor, torch.as_tensor, torch.asarray
BACKWARD = Tensor.backward, torch.autograd.backward, torch.autograd.grad


def numbered(a):
    "`cuda` as `cuda:0`: C++ would ask the driver which one it is"
    if isinstance(a, torch.device) and a.type == "cuda" or isinstance(a, str) and a == "cuda":
        return GPU
    return a


class Calls(TorchFunctionMode):
    "Calls whose device C++ would take from the driver, or from what it takes a phantom for"

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.device or getattr(func, "__name__", "") == "__get__":
            return func(*args, **(kwargs or {}))
        args = tuple(map(numbered, args))
        kwargs = {k: numbered(v) for k, v in (kwargs or {}).items()}
        kwargs.pop("memory_format", None)
        if func in MAKERS and is_gpu(kwargs.get("device")):
            del kwargs["device"]
            made = func(*args, **kwargs)
            return made if isinstance(made, Phantom) else up(made)
        if func in BACKWARD:
            return self.backward(func, args, kwargs)
        if func in (Tensor.to, Tensor.type_as, Tensor.cuda) and type(args[0]) is not Phantom:
            return self.moved(func, *args, **kwargs)
        if func is Tensor.as_subclass:
            return args[0] if isinstance(args[0], Phantom) else func(*args)
        return func(*args, **kwargs)

    def backward(self, func, args, kwargs):
        "Autograd's own tensors are phantoms where it begins at one"
        roots = kwargs.get("outputs", kwargs.get("tensors", args[0] if args else None))
        INSIDE.append(any(isinstance(r, Phantom) for r in leaves(roots)))
        try:
            found = func(*args, **kwargs)
        finally:
            of_phantom = INSIDE.pop()

        def placed(g):
            plain = isinstance(g, Tensor) and not isinstance(g, Phantom)
            return Phantom(g) if plain and of_phantom else g

        return mapped(placed, found)

    def moved(self, func, x, *args, **kwargs):
        "A CPU tensor that goes to the device of another, or of that name"
        device, dtype = None, None
        if func is Tensor.cuda:
            device = GPU
        elif isinstance(args[0] if args else None, Tensor):
            device, dtype = args[0].device, args[0].dtype
        elif func is Tensor.to:
            device, dtype, *_ = torch._C._nn._parse_to(*args, **kwargs)
        if not is_gpu(device):
            return func(x, *args, **kwargs)
        return up(x if dtype is None else x.to(dtype))


# The driver


PLACES = {}  # address in C++, which hands operations another Python object -> device


def place_of(generator):
    "The device that a generator was made for"
    return PLACES.get(generator._cdata, CPU)


class _AnyGenerator(type(torch.Generator)):
    "Generators that were there before are generators, too"

    def __instancecheck__(cls, g):
        return isinstance(g, _Real)


_Real = torch.Generator


class Generator(_Real, metaclass=_AnyGenerator):
    "A generator that says on which device it draws"

    def __new__(cls, device="cpu"):
        made = _Real.__new__(cls)
        PLACES[made._cdata] = GPU if is_gpu(device) else torch.device(device)
        return made

    def __init__(self, device="cpu"):
        pass

    device = property(lambda self: place_of(self))


def driver():
    "What `torch.cuda` says and does on the phantom"
    about = dict(name="phantom", total_memory=80 << 30, multi_processor_count=132, major=9, minor=0)
    nothing = lambda *args, **kwargs: None
    silent = "_lazy_init synchronize set_rng_state set_rng_state_all manual_seed manual_seed_all"
    silent += " empty_cache reset_peak_memory_stats set_device"
    return dict.fromkeys(silent.split(), nothing) | dict(
        is_available=lambda: True,
        is_initialized=lambda: True,
        is_bf16_supported=lambda *args, **kwargs: True,
        is_current_stream_capturing=lambda: False,
        device_count=lambda: 1,
        current_device=lambda: 0,
        current_stream=nothing,
        get_device_name=lambda *args: "phantom",
        get_device_properties=lambda *args: SimpleNamespace(**about),
        get_device_capability=lambda *args: (9, 0),
        get_rng_state=lambda *args: torch.get_rng_state(),
        get_rng_state_all=lambda: [torch.get_rng_state()],
        memory_allocated=lambda *args: 0,
        max_memory_allocated=lambda *args: 0,
        mem_get_info=lambda *args: (80 << 30, 80 << 30),
    )


def cpu_autocast(autocast):
    "Autocast of a GPU as that of the CPU, whose lists of operations differ a little"
    begin = autocast.__init__

    def init(self, device_type, *args, **kwargs):
        begin(self, "cpu" if device_type == "cuda" else device_type, *args, **kwargs)

    return patch.object(autocast, "__init__", init)


def plain_subclass():
    "fastai keeps PyTorch's own method in `torch.as_subclass`: a phantom stays one in it"
    real = getattr(torch, "as_subclass", Tensor.as_subclass)

    def as_subclass(x, kind):
        return x if isinstance(x, Phantom) else real(x, kind)

    return patch.object(torch, "as_subclass", as_subclass, create=True)


@contextmanager
def phantom_gpu():
    "A GPU is there, called `cuda`; yields the driver, whose functions can be looked at"
    import torch._dynamo  # noqa: F401, it looks at all of PyTorch's functions as they are

    swaps = torch.__future__.get_swap_module_params_on_conversion()
    health = "_accelerator_graph_capture_health_check"  # of optimisers: asks the driver in C++
    if not hasattr(torch.optim.Optimizer, health):
        health = "_cuda_graph_capture_health_check"  # before PyTorch 2.9
    with ExitStack() as stack:
        enter = stack.enter_context
        enter(patch.multiple(torch.cuda, **driver()))
        enter(patch.object(torch, "Generator", Generator))
        enter(patch.object(torch.optim.Optimizer, health, lambda self: None))
        enter(plain_subclass())
        enter(patch.object(Tensor, "pin_memory", lambda self, *args: self))
        enter(cpu_autocast(torch.autocast))
        torch.__future__.set_swap_module_params_on_conversion(True)
        stack.callback(torch.__future__.set_swap_module_params_on_conversion, swaps)
        enter(Operations())
        enter(Calls())
        yield torch.cuda
