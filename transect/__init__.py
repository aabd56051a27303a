"""transect: a compiler for machine-learning models, one Python program from graph to hardware.

The names below are all that a user of compiled models needs. They load on first use, so that
`import transect.runtime` costs, and requires, no more than the runtime.
"""

from importlib import import_module

__version__ = "0.1.0.dev0"

# Public name -> "module:attribute".
_EXPORTS = {
    "CompiledModel": "transect.driver:CompiledModel",
    "ExhaustivePolicy": "transect.plan:ExhaustivePolicy",
    "GreedyPolicy": "transect.plan:GreedyPolicy",
    "Plan": "transect.plan:Plan",
    "RandomPolicy": "transect.plan:RandomPolicy",
    "Target": "transect.target:Target",
    "TensorIntrin": "transect.tir.tensor_intrin:TensorIntrin",
    "check": "transect.driver.check:check",
    "compile": "transect.driver:compile",
    "num_threads": "transect.support.flags:num_threads",
    "register_function": "transect.runtime:register_function",
}


def __getattr__(name: str) -> object:
    loader = _EXPORTS.get(name)
    if loader is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = loader.partition(":")
    value = getattr(import_module(module), attribute)
    globals()[name] = value  # The next access does not come here.
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})
