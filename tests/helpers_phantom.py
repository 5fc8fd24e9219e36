"""A GPU that is none: tensors that say cuda:0, keep their numbers on the CPU, and refuse to meet
tensors and generators of the CPU. It finds what was left on the wrong device, on a machine that has
no other; of speed, precision and kernels it knows nothing, and it is slow.

What it lets pass: numbers without dimensions, which PyTorch moves itself; whatever autograd adds up
in its backward pass, where it makes tensors of its own. Memory formats are ignored."""

import contextlib
from types import SimpleNamespace
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as tree
from torch.utils._python_dispatch import TorchDispatchMode

CUDA, CPU = torch.device("cuda:0"), torch.device("cpu")


def on_cuda(device):
    "Whether a device, its name or its number means the GPU"
    if device is None or isinstance(device, bool):
        return False
    return isinstance(device, int) or torch.device(device).type == "cuda"


class Phantom(Tensor):
    "Numbers on the CPU behind a tensor that says cuda:0"

    @staticmethod
    def __new__(cls, inner):
        about = dict(strides=inner.stride(), storage_offset=inner.storage_offset())
        about |= dict(dtype=inner.dtype, layout=inner.layout, device=CPU, requires_grad=False)
        return Tensor._make_wrapper_subclass(cls, inner.size(), **about)

    def __init__(self, inner):
        self.inner = inner

    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)

    def __repr__(self):
        return f"Phantom({self.inner})"

    def __reduce_ex__(self, protocol):
        return Phantom, (self.inner,)

    def __deepcopy__(self, memo):
        if id(self) not in memo:
            twin = Phantom(self.inner.detach().clone()).requires_grad_(self.requires_grad)
            twin._is_param = getattr(self, "_is_param", False)
            memo[id(self)] = twin
        return memo[id(self)]

    def numpy(self, *args, **kwargs):
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")

    __array__ = numpy

    def cpu(self, *args, **kwargs):
        return moved(self, CPU)

    def cuda(self, *args, **kwargs):
        return self

    def tolist(self):
        return self.inner.tolist()

    def data_ptr(self):
        return self.inner.data_ptr()

    def untyped_storage(self):
        return self.inner.untyped_storage()

    def type(self, dtype=None, **kwargs):
        return "torch.cuda.FloatTensor" if dtype is None else super().type(dtype)

    def to(self, *args, **kwargs):
        kwargs.pop("non_blocking", None)
        device, rest = kwargs.pop("device", None), list(args)
        if rest and isinstance(rest[0], Tensor):
            device, rest[0] = rest[0].device, rest[0].dtype
        elif rest and isinstance(rest[0], (str, int, torch.device)):
            device = rest.pop(0)
        rest = [o for o in rest if not isinstance(o, bool)]
        same = super().to(*rest, **kwargs) if rest or kwargs else self
        return same if device is None or on_cuda(device) else moved(same, CPU)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))


class Down(torch.autograd.Function):
    "From the GPU to the CPU, and gradients back"

    @staticmethod
    def forward(ctx, x):
        return x.inner.clone()

    @staticmethod
    def backward(ctx, grad):
        return Phantom(grad)


def moved(x, device):
    return Down.apply(x) if x.requires_grad else x.inner


# What PyTorch itself may be given from two devices
COPIES = {"aten::copy_", "aten::_to_copy", "aten::_copy_from", "aten::set_", "aten::set_data"}
INDEXING = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}
INDEXING |= {"aten::_unsafe_index"}


def check_meeting(name, args, tensors):
    "Refuse tensors of two devices in one operation, as CUDA does"
    here = [t for t in tensors if isinstance(t, Phantom)]
    there = [t for t in tensors if not isinstance(t, Phantom) and t.ndim > 0]
    in_backward = torch._C._current_graph_task_id() != -1
    if not here or name in COPIES or in_backward:
        return
    if name in INDEXING:
        if not isinstance(args[0], Phantom):
            raise RuntimeError(f"{name}: a CPU tensor is indexed by a CUDA tensor")
        values = tree.tree_leaves(args[2:])  # indices may be on the CPU, what is put may not
        there = [t for t in values if isinstance(t, Tensor) and t.ndim > 0]
        there = [t for t in there if not isinstance(t, Phantom)]
    if there:
        shapes = [tuple(t.shape) for t in tensors]
        raise RuntimeError(
            f"Expected all tensors to be on the same device: {name} mixes cuda:0 and cpu, {shapes}"
        )


def run(func, args, kwargs):
    "One operation of PyTorch, on the numbers behind the phantoms"
    name = func._schema.name
    flat, spec = tree.tree_flatten((args, kwargs))
    tensors = [a for a in flat if isinstance(a, Tensor)]
    check_meeting(name, args, tensors)

    phantom = any(isinstance(t, Phantom) for t in tensors)
    device = kwargs.get("device")
    on = phantom if device is None else on_cuda(device)
    if device is None and name in COPIES and args:
        on = isinstance(args[0], Phantom)
    for g in flat:
        if isinstance(g, torch.Generator) and (g.device.type == "cuda") != (on or phantom):
            raise RuntimeError(f"{name}: a generator of {g.device} for tensors of another device")

    def inner(a):
        if isinstance(a, Phantom):
            return a.inner
        return CPU if isinstance(a, torch.device) and a.type == "cuda" else a

    args, kwargs = tree.tree_unflatten([inner(a) for a in flat], spec)
    kwargs = kwargs | (dict(pin_memory=False) if "pin_memory" in kwargs else {})
    out = func(*args, **kwargs)
    if name == "aten::_local_scalar_dense":
        return out
    given = {id(t.inner): t for t in tensors if isinstance(t, Phantom)}  # in-place: the same object

    def outer(o):
        if not isinstance(o, Tensor) or isinstance(o, Phantom):
            return o
        return given.get(id(o)) if id(o) in given else Phantom(o) if on else o

    return tree.tree_map(outer, out)


class Operations(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})


def leaves(tensors):
    "Tensors whose gradients a backward pass adds to"
    ways, seen, found = [t.grad_fn for t in tensors if t is not None], set(), []
    while ways:
        way = ways.pop()
        if way is None or way in seen:
            continue
        seen.add(way)
        if hasattr(way, "variable"):
            found.append(way.variable)
        ways += [before for before, _ in way.next_functions]
    return found


def backward(func, args, kwargs):
    "A backward pass, and its gradients as phantoms: autograd makes them where it takes us to be"
    first = args[0] if args else kwargs.get("tensors")
    ends = leaves([first] if isinstance(first, Tensor) else first)
    out = func(*args, **kwargs)
    for t in ends:
        if isinstance(t, Phantom) and t.grad is not None and not isinstance(t.grad, Phantom):
            t.grad = Phantom(t.grad)
    return out


class Functions(TorchFunctionMode):
    "What is decided above the operations: devices by name, moves of CPU tensors, gradients"

    def __torch_function__(self, func, types, args=(), kwargs=None):
        def indexed(a):
            if isinstance(a, torch.device) and a.type == "cuda":
                return CUDA
            return "cuda:0" if isinstance(a, str) and a == "cuda" else a

        args = tuple(indexed(a) for a in args)
        kwargs = {k: indexed(v) for k, v in (kwargs or {}).items()}
        kwargs.pop("memory_format", None)
        if func in (torch.as_tensor, torch.tensor, torch.asarray) and on_cuda(kwargs.get("device")):
            del kwargs["device"]
            out = func(*args, **kwargs)
            return out if isinstance(out, Phantom) else out.to(CUDA)
        if func in (Tensor.backward, torch.autograd.backward):
            return backward(func, args, kwargs)
        if func is torch.autograd.grad:
            found = func(*args, **kwargs)
            return tuple(Phantom(g) if type(g) is Tensor else g for g in found)
        if func in (Tensor.to, Tensor.type_as) and len(args) > 1:
            if isinstance(args[1], Phantom) and not isinstance(args[0], Phantom):
                return args[0].to(CUDA, args[1].dtype)
        if func is Tensor.as_subclass and isinstance(args[0], Phantom):
            return args[0]
        if func is Tensor.pin_memory:
            return args[0]
        if func is Tensor.cuda:
            return args[0].to(CUDA)
        return func(*args, **kwargs)


RealGenerator = torch.Generator


class Generator(RealGenerator):
    "A generator of the CPU that says where it was made for"

    def __new__(cls, device="cpu"):
        g = RealGenerator.__new__(cls)
        g.where = CUDA if on_cuda(device) else torch.device(device)
        return g

    def __init__(self, device="cpu"):
        pass

    device = property(lambda self: self.where)


PROPERTIES = SimpleNamespace(
    name="Phantom", total_memory=80 << 30, multi_processor_count=132, major=9, minor=0
)
DRIVER = dict(  # what torch.cuda is asked, and what it says
    _lazy_init=None,
    is_available=True,
    is_initialized=True,
    is_bf16_supported=True,
    device_count=1,
    current_device=0,
    get_device_name="Phantom",
    get_device_capability=(9, 0),
    get_device_properties=PROPERTIES,
    mem_get_info=(80 << 30, 80 << 30),
    get_rng_state_all=[],
    current_stream=None,
    set_rng_state=None,
    set_rng_state_all=None,
    manual_seed=None,
    manual_seed_all=None,
    synchronize=None,
    empty_cache=None,
    set_device=None,
    memory_allocated=0,
    max_memory_allocated=0,
    reset_peak_memory_stats=None,
)


@contextlib.contextmanager
def phantom_gpu():
    "Inside, torch.cuda has one device"
    swap = torch.__future__.set_swap_module_params_on_conversion
    optimizer = torch.optim.Optimizer
    with contextlib.ExitStack() as stack:
        for name, says in DRIVER.items():
            answer = mock.patch.object(torch.cuda, name, lambda *a, says=says, **k: says)
            stack.enter_context(answer)
        state = mock.patch.object(torch.cuda, "get_rng_state", lambda *a: torch.get_rng_state())
        stack.enter_context(state)
        stack.enter_context(mock.patch.object(torch, "Generator", Generator))
        check = "_accelerator_graph_capture_health_check"
        stack.enter_context(mock.patch.object(optimizer, check, lambda self: None))
        if hasattr(torch, "as_subclass"):  # fastai's
            as_subclass = torch.as_subclass

            def kept(x, cls):
                return x if isinstance(x, Phantom) else as_subclass(x, cls)

            stack.enter_context(mock.patch.object(torch, "as_subclass", kept))
        stack.callback(swap, False)
        swap(True)
        stack.enter_context(Operations())
        stack.enter_context(Functions())
        yield
