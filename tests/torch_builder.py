"""Files as torch.save lays them out, made without torch.

The classes that such a pickle names are faked as modules while it is written.
"""

import collections
import io
import pickle
import sys
import types
import zipfile

import numpy as np
from helpers import DATA


def _fake(module, name, base=object):
    return type(name, (base,), {"__module__": module, "__qualname__": name})


def _function(module, name):
    def function(*args):
        raise AssertionError("the reader called into a file")

    function.__module__, function.__name__, function.__qualname__ = module, name, name
    return function


FAKES = {
    "torch": {n: _fake("torch", n) for n in ("FloatStorage", "HalfStorage", "Generator")},
    "torch._utils": {
        n: _function("torch._utils", n) for n in ("_rebuild_tensor_v2", "_rebuild_parameter")
    },
    "omegaconf": {},
    "omegaconf.dictconfig": {"DictConfig": _fake("omegaconf.dictconfig", "DictConfig")},
    "omegaconf.nodes": {"AnyNode": _fake("omegaconf.nodes", "AnyNode")},
    "dill": {},
    "dill._dill": {"_load_type": _function("dill._dill", "_load_type")},
}


class Storage:
    def __init__(self, key, kind, size):
        self.pid = ("storage", FAKES["torch"][kind], key, "cpu", size)


class Call:
    """Pickles as a call of `function` with `args`."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


class Archive:
    """Collects storages while objects refer to them, then writes the file."""

    def __init__(self):
        self.storages = {}

    def tensor(self, array, *, parameter=False, key=None, claimed=None, strides=None, shape=None):
        """Return an object that pickles as a tensor; the options tell lies about it."""
        kind = "HalfStorage" if array.dtype == np.float16 else "FloatStorage"
        key = str(len(self.storages)) if key is None else key
        self.storages[key] = array.tobytes()
        storage = Storage(key, kind, array.size if claimed is None else claimed)
        steps = tuple(s // array.itemsize for s in array.strides) if strides is None else strides
        size = array.shape if shape is None else shape
        rebuild, as_parameter = FAKES["torch._utils"].values()
        made = Call(rebuild, storage, 0, size, steps, False, collections.OrderedDict())
        return Call(as_parameter, made, True, collections.OrderedDict()) if parameter else made

    def state_dict(self, arrays, **options):
        return collections.OrderedDict((k, self.tensor(v, **options)) for k, v in arrays.items())

    def pickled(self, content):
        buffer = io.BytesIO()
        pickler = pickle.Pickler(buffer, protocol=2)
        pickler.persistent_id = lambda o: o.pid if isinstance(o, Storage) else None
        modules = {name: types.ModuleType(name) for name in FAKES}
        for name, module in modules.items():
            vars(module).update(FAKES[name])
        before = {name: sys.modules.get(name) for name in FAKES}
        sys.modules.update(modules)
        try:
            pickler.dump(content)
        finally:
            for name, module in before.items():
                sys.modules.pop(name)
                if module is not None:
                    sys.modules[name] = module
        return buffer.getvalue()

    def write(self, path, content, compression=zipfile.ZIP_STORED):
        """Write a checkpoint of `content`, an object or a ready pickle."""
        data = content if isinstance(content, bytes) else self.pickled(content)
        with zipfile.ZipFile(path, "w", compression) as z:
            z.writestr("archive/data.pkl", data)
            for key, numbers in self.storages.items():
                z.writestr(f"archive/data/{key}", numbers)
            z.writestr("archive/version", "3\n")
        return path


# ---- checkpoints of the released code ------------------------------------------------------------


def golden(file):
    """Return the published weights of a golden file."""
    with np.load(DATA / f"{file}.npz") as z:
        return {k[2:]: z[k] for k in z.files if k.startswith("w/")}


def normalizer_of(seed, sizes=(("observations", 11), ("actions", 3), ("rewards", 1))):
    """Return a normalizer under its published names."""
    rng = np.random.default_rng(seed)
    names = [(f"normalizer.params_dict.{f}.{p}", n) for f, n in sizes for p in ("scale", "offset")]
    return {name: rng.uniform(0.5, 1.5, n).astype(np.float32) for name, n in names}


def config(task):
    """Return an OmegaConf configuration that names a task, as OmegaConf pickles one."""
    node = FAKES["omegaconf.nodes"]["AnyNode"]()
    root = FAKES["omegaconf.dictconfig"]["DictConfig"]()
    node.__dict__.update(_parent=root, _val=task)
    root.__dict__.update(_content={"task": {"env_name": node}}, _flags_cache=None)
    return root


def checkpoint(path, weights, normalizer=None, task="hopper-medium-replay-v2", averaged=None):
    """Write weights (with their prefixes) as the released workspaces save them."""
    archive = Archive()
    normalizer = normalizer_of(0) if normalizer is None else normalizer
    rest = normalizer | {"_dummy_variable": np.zeros(0, np.float32)}
    states = {"model": archive.state_dict(weights | rest)}
    if averaged is not None:
        states["ema_model"] = archive.state_dict(averaged | rest)
    moments = {0: {"step": 7, "exp_avg": archive.tensor(np.ones(5, np.float32))}}
    states["optimizer"] = {"state": moments, "param_groups": [{"lr": 1e-4, "betas": (0.95, 0.999)}]}
    content = {
        "cfg": config(task),
        "state_dicts": states,
        "pickles": {"epoch": b"\x80\x04K\x07.", "x": Call(*FAKES["dill._dill"].values(), "Logger")},
    }
    return archive.write(path, content)


def prefixed(prefix, weights):
    return {f"{prefix}{name}": array for name, array in weights.items()}
